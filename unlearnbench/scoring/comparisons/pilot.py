"""Quick or partial runs side by side: rates by group and family, without any claim.

With one seed and few samples nothing counts as solved, and chance cannot be estimated; mean rates of the same items
remain, to see whether a method does anything at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unlearnbench.errors import RunError
from unlearnbench.records import GROUPS, GroupName, Item, Record
from unlearnbench.scoring.comparisons.comparability import Difference, Finished, differences, read_run
from unlearnbench.scoring.counted import labels_of
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.splits import Split


class PilotRun(Record):
    label: str
    folder: str
    method: str
    seeds: Sequence[int]
    samples: int
    steps: float | None


class PilotRow(Record):
    """Mean rate of the same items in every run, in the order of the runs."""

    name: str
    items: int
    before: float | None
    rates: Sequence[float]


class PilotComparison(Record):
    """Rates of runs on the items that all of them evaluated; nothing follows from a difference."""

    split: str
    split_hash: str
    runs: Sequence[PilotRun]
    differences: Sequence[Difference]
    groups: Sequence[PilotRow]
    families: Sequence[PilotRow]
    """Families of unlearnable items, those that differ most first."""


def pilot(runs: Sequence[Finished | Path | str], split: Split | None = None) -> PilotComparison:
    """Rates of runs on one split, quick and partial ones included.

    Raises RunError for fewer than two runs, or for runs on different splits; SplitError if the labels are not found.
    """
    if len(runs) < 2:
        raise RunError("a comparison needs at least two runs; name another folder")
    found = [run if isinstance(run, Finished) else read_run(Path(run)) for run in runs]
    for other in found[1:]:
        if other.result.split_hash != found[0].result.split_hash:
            raise RunError(f"{found[0].folder} and {other.folder} are of different splits; evaluate both on the same")
    split = labels_of(found, split)
    every = [_cells(run, split.items) for run in found]
    shared = np.all([cells.n.sum(axis=1) > 0 for cells in every], axis=0)
    items = [item for item, there in zip(split.items, shared, strict=True) if there]
    if not items:
        raise RunError("no item was evaluated in all of these runs, so there is nothing to compare")
    rates = np.stack([cells.rates[shared] for cells in every], axis=1)
    before = {name: score.rate_before for name, score in found[0].result.groups.items()}
    families = [
        _row(name, [place for place, item in enumerate(items) if _core(item) and item.family == name], rates, None)
        for name in sorted({item.family for item in items if _core(item)})
    ]
    return PilotComparison(
        split=split.name,
        split_hash=split.hash,
        runs=[_run(chr(ord("A") + place), run) for place, run in enumerate(found)],
        differences=differences(found),
        groups=[row for name in GROUPS if (row := _group(name, items, rates, before.get(name))).items],
        families=sorted(families, key=lambda row: (min(row.rates) - max(row.rates), row.name)),
    )


def _core(item: Item) -> bool:
    return item.group == "unlearnable"


def _cells(run: Finished, items: Sequence[Item]) -> Cells:
    ids, seeds = [item.item_id for item in items], [str(seed) for seed in run.result.seeds]
    return Cells.of(read_phase(run.counts, "eval", ids, runs=seeds, source=str(run.folder / "counts.parquet")))


def _group(name: GroupName, items: Sequence[Item], rates: np.ndarray, before: float | None) -> PilotRow:
    return _row(name, [place for place, item in enumerate(items) if item.group == name], rates, before)


def _row(name: str, places: Sequence[int], rates: np.ndarray, before: float | None) -> PilotRow:
    means = rates[list(places)].mean(axis=0).tolist() if places else []
    return PilotRow(name=name, items=len(places), before=before, rates=means)


def _run(label: str, run: Finished) -> PilotRun:
    result = run.result
    return PilotRun(
        label=label,
        folder=str(run.folder),
        method=result.method.name,
        seeds=result.seeds,
        samples=result.samples,
        steps=None if result.steps is None else result.steps.made,
    )
