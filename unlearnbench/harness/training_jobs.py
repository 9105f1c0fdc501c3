"""The job of training one seed: the inputs of its process, the judge that answers it, and its sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearnbench.harness.judge import SLACK_STEPS, TRAINING, Judge, Terms
from unlearnbench.harness.policy_ref import base_folder
from unlearnbench.harness.privileged import POLICY
from unlearnbench.io.child import search_path
from unlearnbench.io.files import write_bytes
from unlearnbench.methods import MethodSource
from unlearnbench.splits import Split
from unlearnbench.splits.split import PACKAGE, SHELVES, built_home
from unlearnbench.training.run_spec import Limits
from unlearnbench.verifier import Verifier
from unlearnbench.workers.isolation import Isolation
from unlearnbench.workers.jobs import Compute, Job, TrainJob, stream_root

SOURCE = "method.py"
"""The method's source as it is run, beside a seed's config.json."""


@dataclass(frozen=True)
class Run:
    """One method on one split, whatever the seed."""

    split: Split
    sealed: Path
    method: MethodSource
    purpose: str
    """Names the random streams: those of different purposes never meet."""
    fingerprint: str
    limits: Limits
    compute: Compute
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the method that differ from its own."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe that differ from the split's."""
    start: Path | None = None
    """The policy to start from, where it is not the split's base."""
    hidden: tuple[Path, ...] = ()
    """Further folders that the processes may not see."""


def training_job(run: Run, seed: int, place: Path, verifier: Verifier) -> Job:
    """Train one seed in `place`, by processes that have prompts and no answers."""
    out = place / TRAINING
    kept = keep_source(run.method, place)
    own = run.sealed / "policy"
    base = own if own.is_dir() else base_folder(run.split)
    job = TrainJob(
        sealed=str(run.sealed.resolve()),
        out=str(out.resolve()),
        method=run.method.copied(kept),
        changes=run.changes,
        recipe=run.recipe,
        seed=seed,
        root=stream_root(run.split, run.purpose, seed),
        limits=run.limits,
        start=None if run.start is None else str(run.start.resolve()),
        fingerprint=run.fingerprint,
        search=_search(run.method),
        processes=run.compute.processes,
        engine=run.compute.engine,
        trainer=run.compute.trainer,
    )
    return Job(
        "unlearnbench.workers.train_job:train",
        job,
        label=f"seed {seed} of {run.method.name}",
        log=place / "log.txt",
        processes=run.compute.processes,
        patience=run.compute.patience,
        judge=Judge(run.split, place, verifier, _terms(run, seed, base)),
        isolation=_isolation(run, job, base),
    )


def keep_source(method: MethodSource, place: Path) -> Path:
    """The copy of a method's file that its run executes, and that `submit` bundles wherever the file is by then.

    Once made it stays: a seed that resumes runs what it began with (its configuration names the source's hash).
    """
    kept = place / SOURCE
    source = Path(method.file).read_bytes()
    if not kept.is_file() or kept.read_bytes() != source:  # an attempt that came to nothing may have left another
        write_bytes(kept, source)
    return kept


def _terms(run: Run, seed: int, base: Path) -> Terms:
    recipe, protocol, policy = run.split.config.recipe, run.split.config.protocol, run.split.policy_path
    limits = [
        recipe.max_tokens,
        protocol.sampling.max_tokens,
        run.recipe.get("max_tokens"),
        run.changes.get("max_tokens"),
    ]
    most = run.limits.flops
    if most is not None and run.split.config.budget is not None:
        most += round(SLACK_STEPS * run.split.config.budget.flops_1x / recipe.steps)
    return Terms(
        name=run.method.name,
        source_hash=run.method.hash,
        seed=seed,
        fingerprint=run.fingerprint,
        max_tokens=max(limit for limit in limits if isinstance(limit, int)),
        base=base,
        most_flops=most,
        hub=None if isinstance(policy, Path) else (policy, run.split.config.base_policy.revision),
    )


def _search(method: MethodSource) -> tuple[str, ...]:
    """Where a method's own imports are looked for: beside its file, then in the working folder."""
    if method.built_in:
        return ()
    return tuple(dict.fromkeys((str(Path(method.file).resolve().parent), str(Path.cwd()))))


def _isolation(run: Run, job: TrainJob, base: Path) -> Isolation:
    """What the processes of a run may see: the sealed copy, the base policy, Python, and modules beside the method."""
    libraries = [path for path in search_path() if path != str(PACKAGE.parent)]
    readable = [job.sealed, str(_repository(base)), str(PACKAGE), *libraries]
    readable += [job.method.file, str(Path(job.out).parent / POLICY)]
    readable += [] if job.start is None else [job.start]
    for folder in job.search:
        readable += [str(file) for file in Path(folder).glob("*.py")]
        readable += [str(file.parent) for file in Path(folder).glob("*/__init__.py")]
    needed = [Path(path) for path in (job.out, job.sealed, job.method.file, *([job.start] if job.start else []))]
    needed.append(base)
    return Isolation(
        writable=(job.out,),
        readable=tuple(dict.fromkeys(readable)),
        listable=(str(PACKAGE.parent), *job.search),
        hidden=tuple(_hidden([run.split.path, *run.hidden], needed)),
        alone=run.compute.processes == 1,
    )


def _hidden(folders: list[Path], needed: list[Path]) -> list[str]:
    """Everything that may hold labels, answers or earlier results: the split, other splits, the board, earlier runs."""
    places = [*folders, *SHELVES, built_home(), PACKAGE.parent / "leaderboard", PACKAGE.parent / "runs"]
    found: list[str] = []
    for place in dict.fromkeys([*places, Path.cwd() / "runs"]):
        found += _around(place.resolve(), [path.resolve() for path in needed])
    return list(dict.fromkeys(found))


def _around(place: Path, needed: list[Path]) -> list[str]:
    """A folder's entries, but for those that are needed or hold what is."""
    if not place.is_dir():
        return []
    found: list[str] = []
    for entry in sorted(place.iterdir()):
        if not any(path.is_relative_to(entry) for path in needed):
            found.append(str(entry))
        elif entry not in needed:
            found += _around(entry, needed)
    return found


def _repository(base: Path) -> Path:
    """The folder of a policy's files; in the Hub's cache, where files are links, the folder of the repository."""
    return base.parents[1] if base.parent.name == "snapshots" else base
