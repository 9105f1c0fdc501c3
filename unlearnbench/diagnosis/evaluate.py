"""The whole of `eval`: train, measure, score (`harness.evaluate`); then why: gradient similarity at start and end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.diagnosis.of_run import with_similarity
from unlearnbench.harness import evaluate as scored
from unlearnbench.harness.evaluate import Placed
from unlearnbench.harness.policy_ref import find_checkpoint
from unlearnbench.harness.privileged import POLICY
from unlearnbench.harness.progress_file import ProgressFile
from unlearnbench.harness.run_config import MERGED
from unlearnbench.io.folder_lock import locked
from unlearnbench.records import Result
from unlearnbench.splits import Split, load_split
from unlearnbench.workers.jobs import Watch
from unlearnbench.workers.messages import Progress


@dataclass(frozen=True)
class Evaluated:
    """A result and the folder that it was written to."""

    result: Result
    folder: Path


def evaluate(
    method: str,
    split: str | Path | Split = "micro",
    seeds: int | Sequence[int] = 3,
    *,
    diagnose: bool = True,
    quick: bool = False,
    progress: Watch | None = None,
    placed: Placed | None = None,
    **options: Any,
) -> Evaluated:
    """As `harness.evaluate.evaluate`, which takes the `options`; with `diagnose` and without `quick` the result has
    `similarity`."""
    chosen, places = _split(split), list[Path]()
    both = _both(places, placed)
    result = scored.evaluate(method, chosen, seeds, quick=quick, progress=progress, placed=both, **options)
    folder = places[0]
    if diagnose and not quick:
        ends = {seed: folder / str(seed) / "checkpoint" for seed in result.seeds}
        result = _explained(result, chosen, folder, ends, _start(folder, result), progress)
    return Evaluated(result, folder)


def evaluate_checkpoints(
    checkpoints: Sequence[str | Path],
    split: str | Path | Split = "micro",
    *,
    diagnose: bool = True,
    progress: Watch | None = None,
    placed: Placed | None = None,
    **options: Any,
) -> Evaluated:
    """The same for finished policies, one per seed (`harness.evaluate.evaluate_checkpoints`)."""
    chosen, places = _split(split), list[Path]()
    both = _both(places, placed)
    result = scored.evaluate_checkpoints(checkpoints, chosen, progress=progress, placed=both, **options)
    folder = places[0]
    if diagnose:
        merged = {seed: folder / str(seed) / MERGED for seed in result.seeds}
        pairs = zip(merged.items(), checkpoints, strict=True)
        ends = {seed: place if place.is_dir() else find_checkpoint(path, chosen) for (seed, place), path in pairs}
        result = _explained(result, chosen, folder, ends, None, progress)
    return Evaluated(result, folder)


def _explained(
    result: Result,
    split: Split,
    folder: Path,
    ends: Mapping[int, Path],
    start: Path | None,
    progress: Watch | None,
) -> Result:
    """The result with its similarity; progress is that of one further stage of the first seed."""
    names = ["start", *(f"end of seed {seed}" for seed in ends)]

    with locked(folder):
        watch = ProgressFile(folder, f"{result.method.name} on {split.name}", result.seeds, progress)

        def told(name: str, share: float) -> None:
            done = (names.index(name) + share) / len(names)
            watch(Progress(seed=result.seeds[0], stage="similarity", done=min(done, 1.0), rate=0.0))

        return with_similarity(result, split, folder, ends, start=start, progress=told)


def _start(folder: Path, result: Result) -> Path | None:
    """The policy that the first seed started from, where a method took another than the split's base."""
    path = folder / str(result.seeds[0]) / "method.json"
    elsewhere = path.is_file() and json.loads(path.read_text()).get("start", "base") != "base"
    return folder / str(result.seeds[0]) / POLICY if elsewhere else None


def _both(places: list[Path], placed: Placed | None) -> Placed:
    def told(folder: Path) -> None:
        places.append(folder)
        if placed is not None:
            placed(folder)

    return told


def _split(split: str | Path | Split) -> Split:
    return split if isinstance(split, Split) else load_split(split)
