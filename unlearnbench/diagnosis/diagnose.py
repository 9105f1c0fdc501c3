"""Gradient similarity of a policy's items, from the policy to the page (PROTOCOL 5).

policy, and a split or a file of rollouts → as many rollouts of each item → a gradient of each item, in parts
→ inner products → cosines, reliability, blocks → similarity.json and .safetensors, heatmap.png, report.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unlearnbench.diagnosis.memory import GIB
from unlearnbench.diagnosis.options import Options
from unlearnbench.diagnosis.record import Diagnosis, Memory
from unlearnbench.diagnosis.run_folder import claim_several
from unlearnbench.diagnosis.stages import Progress, Task
from unlearnbench.errors import DataError, PolicyError
from unlearnbench.harness.policy_ref import resolve
from unlearnbench.harness.rollouts.files import Reading
from unlearnbench.splits import Split, load_split


def diagnose(
    policy: str | Path,
    split: str | Path | Split | None = None,
    *,
    rollouts: str | Path | None = None,
    reading: Reading | None = None,
    out: str | Path | None = None,
    revision: str | None = None,
    max_memory: int = 4 * GIB,
    workers: int | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
    planned: Callable[[Memory], None] | None = None,
    **options: Any,
) -> Diagnosis:
    """Gradient similarity of the items of a split (micro, if no rollouts are given), or of a file of rollouts.

    `policy` is a folder, a Hub id, a shipped split's name (its base policy), a run's checkpoint or a run of one seed;
    `reading` says how the file is read, `options` are the fields of `Options`; `ray` is the address of a Ray cluster
    for the work (`local`: started here). Part of the same diagnosis in the folder `out` is resumed; one of another is
    refused with RunError. Raises DataError, SplitError, PolicyError, VerifierError.
    """
    places = resolve(policy)
    if len(places) > 1:
        names = ", ".join(str(place.source) for place in places)
        raise PolicyError(f"{policy} is a run of several seeds ({names}); name one of them, or use diagnose_each.")
    computed = (max_memory, workers, ray, progress, planned)
    task = Task(Options(**options), _split(split, rollouts), _path(rollouts), reading or Reading(), *computed)
    return task.run(places[0], Path(out) if out is not None else task.default_folder(places[0]), revision)


def diagnose_each(
    policies: Sequence[str | Path],
    split: str | Path | Split | None = None,
    *,
    rollouts: str | Path | None = None,
    reading: Reading | None = None,
    out: str | Path,
    revision: str | None = None,
    max_memory: int = 4 * GIB,
    workers: int | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
    planned: Callable[[Memory], None] | None = None,
    **options: Any,
) -> tuple[Diagnosis, ...]:
    """The same at each of several policies; more than one go to a folder each under `out`, with one page over them.

    A policy that cannot be used does not stop the others: its PolicyError is raised after them. Raises RunError where
    the folder holds another diagnosis.
    """
    from unlearnbench.diagnosis.page import write_comparison

    places = [place for policy in policies for place in resolve(policy)]
    computed = (max_memory, workers, ray, progress, planned)
    task = Task(Options(**options), _split(split, rollouts), _path(rollouts), reading or Reading(), *computed)
    if len(places) == 1:
        return (task.run(places[0], Path(out), revision),)
    names = [f"{number}-{place.label.replace('/', '-')}" for number, place in enumerate(places, start=1)]
    claim_several(Path(out), names)
    found: list[Diagnosis] = []
    failed: list[Exception] = []
    for name, place in zip(names, places, strict=True):
        try:
            found.append(task.run(place, Path(out) / name, revision))
        except (PolicyError, DataError) as problem:
            failed.append(problem)
    if found:
        write_comparison(Path(out), [diagnosis.record for diagnosis in found])
    if failed:
        raise PolicyError(" ".join(str(problem) for problem in failed))
    return tuple(found)


def _split(split: str | Path | Split | None, rollouts: str | Path | None) -> Split | None:
    if isinstance(split, Split):
        return split
    return None if split is None and rollouts is not None else load_split(split or "micro")


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
