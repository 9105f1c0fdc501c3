"""One phase of a counts table as arrays: item, run, n, correct. Malformed rows are refused here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.scoring.rates import Counts, Flags, Reals

MIN_SAMPLES = 32
"""With fewer samples per item and run, `solved` and what follows from it are undefined."""


@dataclass(frozen=True)
class Grid:
    """Cells (item, run) of one phase, as indices into `ids` and `runs`. A cell without a row has n = 0."""

    ids: Sequence[str]
    runs: Sequence[str]
    item: Counts
    run: Counts
    n: Counts
    correct: Counts
    best: Reals | None = None

    @property
    def pooled(self) -> tuple[Counts, Counts]:
        """(correct, n) of each item, summed over runs; each of shape (items,)."""
        totals = [np.bincount(self.item, values, len(self.ids)) for values in (self.correct, self.n)]
        return totals[0].astype(np.int64), totals[1].astype(np.int64)

    @property
    def table(self) -> tuple[Counts, Counts]:
        """(correct, n), each of shape (items, runs)."""
        result = np.zeros((2, len(self.ids), len(self.runs)), np.int64)
        result[0, self.item, self.run] = self.correct
        result[1, self.item, self.run] = self.n
        return result[0], result[1]


def read_phase(
    counts: pa.Table,
    phase: str,
    ids: Sequence[str],
    *,
    runs: Sequence[str] | None = None,
    key: str = "item_id",
    strict: bool = False,
    source: str = "counts",
) -> Grid:
    """The rows of `phase` for these ids, and for these runs (default: all that occur, sorted).

    Rows of other ids or runs are left out, or refused if `strict`. Raises DataError naming item, phase and run:
    a missing value, a repeated row, n < 0, correct < 0, correct > n.
    """
    rows = counts.filter(pc.equal(counts["phase"], phase))
    names, ran = rows[key].cast(pa.string()), rows["run"].cast(pa.string())
    item = pc.index_in(names, value_set=pa.array(ids, pa.string())).to_numpy()
    if runs is None:
        runs = sorted(pc.unique(ran.drop_null()).to_pylist())
    run = pc.index_in(ran, value_set=pa.array(runs, pa.string())).to_numpy()
    known = ~(np.isnan(item) | np.isnan(run))
    noun = "twin" if key == "twin_id" else "item"

    def refuse(bad: np.ndarray, why: str) -> None:
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            name, run_name = names[at].as_py(), ran[at].as_py()
            raise DataError(f"{source}: {noun} {name!r}, phase {phase}, run {run_name!r}: {why}")

    for column, values in (("item_id", names), ("run", ran), ("n", rows["n"]), ("correct", rows["correct"])):
        refuse(values.is_null().to_numpy(), f"{column} is missing; give every row a value for it")
    if strict:
        refuse(np.isnan(item), f"this {noun} is not in the split; remove the row")
        refuse(np.isnan(run), f"this run is not among the seeds {', '.join(runs)}; remove the row")
    n, correct = rows["n"].to_numpy().astype(np.int64), rows["correct"].to_numpy().astype(np.int64)
    refuse(known & (n < 0), "n is negative; n counts rollouts, so it must be 0 or more")
    refuse(known & (correct < 0), "correct is negative; it counts rollouts, so it must be 0 or more")
    refuse(known & (correct > n), "correct is above n; correct counts some of the n rollouts")
    place = np.where(known, np.nan_to_num(item) * len(runs) + np.nan_to_num(run), -1 - np.arange(len(item)))
    order = np.argsort(place, kind="stable")
    repeated = np.zeros(len(place), bool)
    repeated[order[1:]] = place[order[1:]] == place[order[:-1]]
    refuse(repeated, "there is a second row for it; keep one row for each item, phase and run")
    best = None
    if "best" in rows.column_names:
        best = rows["best"].cast(pa.float64()).to_numpy(zero_copy_only=False)[known]
    return Grid(
        tuple(ids),
        tuple(runs),
        item[known].astype(np.int64),
        run[known].astype(np.int64),
        n[known],
        correct[known],
        best,
    )


@dataclass(frozen=True)
class Cells:
    """Counts of problems in runs: two integer arrays (problems, runs)."""

    correct: Counts
    n: Counts

    @classmethod
    def of(cls, grid: Grid) -> Cells:
        return cls(*grid.table)

    @property
    def runs(self) -> int:
        return int(self.n.shape[1])

    @property
    def rates(self) -> Reals:
        """Rate of each problem pooled over runs; NaN where it has no sample."""
        n = self.n.sum(axis=1)
        return np.where(n > 0, self.correct.sum(axis=1) / np.maximum(n, 1), np.nan)

    @property
    def enough(self) -> bool:
        """Whether every cell has at least MIN_SAMPLES samples."""
        return bool(self.n.size) and int(self.n.min()) >= MIN_SAMPLES

    def __getitem__(self, rows: Flags | Sequence[int] | Counts) -> Cells:
        return Cells(self.correct[rows], self.n[rows])
