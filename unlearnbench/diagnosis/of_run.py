"""Gradient similarity at a run's start and end: the explanation that follows a score.

start: shipped beside the split, else made once and kept on this machine; end: of every seed's policy → block means of
all pairs, of pairs of one skill and of two → result.json and report.html, written once more
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlearnbench.diagnosis.diagnose import diagnose
from unlearnbench.diagnosis.memory import GIB
from unlearnbench.diagnosis.record import BlockRecord, SimilarityRecord
from unlearnbench.errors import DataError, PolicyError, RunError
from unlearnbench.harness.policy_ref import fingerprint
from unlearnbench.io import files, tables
from unlearnbench.records import GROUPS, BlockMean, Result, SimilarityScore
from unlearnbench.reports.run_report import write_report
from unlearnbench.reports.similarity import FOLDER
from unlearnbench.splits import Split
from unlearnbench.splits.split import built_home

OPTIONS: Mapping[str, Any] = {"rollouts_per_item": 8, "cap": 512, "items_per_group": 64}
"""As many items of each group as take about a minute on micro, all seeds together."""
SMALL = 20_000_000
"""Parameters below which one process is quicker than several, which have to start first."""
KEPT = ("similarity.json", "similarity.safetensors")
"""What a start is known by: copied into every run's folder, for its report."""

Told = Callable[[str, float], None]
"""Called with which policy is worked on, and the share of it that is done."""


def with_similarity(
    result: Result,
    split: Split,
    folder: Path,
    ends: Mapping[int, Path],
    *,
    start: Path | None = None,
    progress: Told | None = None,
) -> Result:
    """The result with `similarity`, written to result.json and report.html of its folder.

    `ends` is the policy of each seed; `start` the one that they began from, where it is not the split's base. What
    cannot be compared is said in `why_not`: a diagnosis never fails a run.
    """
    place = Path(folder) / FOLDER
    try:
        first = _start(split, place / "start", start, progress)
        last = [_end(split, place / f"end-{seed}", seed, path, progress) for seed, path in ends.items()]
        found = SimilarityScore(start=block_means([first]), end=block_means(last))
    except (DataError, PolicyError, RunError) as problem:
        found = SimilarityScore(why_not=str(problem).rstrip("."))
    scored = result.model_copy(update={"similarity": found})
    files.write_json(Path(folder) / "result.json", scored)
    write_report(Path(folder), split, scored)
    return scored


def start_of_split(split: Split, progress: Told | None = None) -> Path:
    """The folder of the diagnosis of a split's base: shipped in `similarity/`, else made on this machine and kept.

    Raises DataError where too few items can be compared, PolicyError or RunError as `diagnose` does.
    """
    shipped = split.path / FOLDER
    if _is_of(shipped, split):
        return shipped
    key = hashlib.sha256(json.dumps([split.hash, dict(OPTIONS)], sort_keys=True).encode()).hexdigest()[:16]
    kept = built_home().parent / FOLDER / key
    if not _is_of(kept, split):
        _diagnose(split, split.policy_path, kept, "start", progress)
    return kept


def ship_start(split: Split) -> Path:
    """Write the diagnosis of a split's base into its folder, as embedded splits have it; returns the folder."""
    made, place = start_of_split(split), split.path / FOLDER
    if made != place:
        _copy(made, place)
    return place


def block_means(records: Sequence[SimilarityRecord]) -> list[BlockMean]:
    """Blocks of groups, by kind of pairs, as means over policies that have them.

    An interval is the mean of the policies' ends: as if the same items erred in all of them.
    """
    found: dict[tuple[str, str, str], list[BlockRecord]] = {}
    for record in records:
        for block in (*record.blocks, *record.matched):
            if block.raw is not None and block.a in GROUPS and block.b in GROUPS:
                found.setdefault((block.a, block.b, block.of), []).append(block)
    means = []
    for (a, b, of), blocks in found.items():
        ends = [block.interval for block in blocks if block.interval is not None]
        low, high = (float(np.mean([end[side] for end in ends])) if ends else 0.0 for side in (0, 1))
        means.append(
            BlockMean.model_validate(
                {
                    "a": a,
                    "b": b,
                    "of": of,
                    "pairs": round(float(np.mean([block.pairs for block in blocks]))),
                    "mean": float(np.mean([block.raw for block in blocks if block.raw is not None])),
                    "interval": (low, high) if len(ends) == len(blocks) else None,
                }
            )
        )
    return means


# --- the parts of it ------------------------------------------------------------------------------------------


def _start(split: Split, place: Path, policy: Path | None, progress: Told | None) -> SimilarityRecord:
    if policy is not None:
        return _diagnose(split, policy, place, "start", progress)
    _copy(start_of_split(split, progress), place)
    return tables.read_json_record(place / KEPT[0], SimilarityRecord)


def _end(split: Split, place: Path, seed: int, policy: Path, progress: Told | None) -> SimilarityRecord:
    return _diagnose(split, policy, place, f"end of seed {seed}", progress)


def _diagnose(split: Split, policy: str | Path, out: Path, name: str, progress: Told | None) -> SimilarityRecord:
    """Diagnose one policy in `out`; a finished diagnosis of it that is there is taken as it is."""
    if _is_of(out, split) and isinstance(policy, Path):
        record = tables.read_json_record(out / KEPT[0], SimilarityRecord)
        if record.source == fingerprint(policy):
            return record

    def tell(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(name, (done / max(total, 1) + (stage == "gradients")) / 2)

    small = (split.config.base_policy.parameters or SMALL) < SMALL
    found = diagnose(policy, split, out=out, max_memory=8 * GIB, workers=1 if small else None, progress=tell, **OPTIONS)
    shutil.rmtree(out / ".work", ignore_errors=True)
    return found.record


def _is_of(folder: Path, split: Split) -> bool:
    """Whether a folder holds a diagnosis on this split, as it is made today."""
    path = folder / KEPT[0]
    if not all((folder / name).is_file() for name in KEPT):
        return False
    record = tables.read_json_record(path, SimilarityRecord)
    return record.split_hash == split.hash and all(record.options[name] == value for name, value in OPTIONS.items())


def _copy(source: Path, place: Path) -> None:
    for name in KEPT:
        files.write_bytes(place / name, (source / name).read_bytes())
