"""The rate of correct rollouts in training, by group and step: curves.parquet, of a run and of a split's controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.scoring.rates import Reals

SCHEMA = {
    "seed": pa.int64(),
    "step": pa.int64(),
    "group": pa.string(),
    "rollouts": pa.int64(),
    "correct": pa.int64(),
}
"""Columns of curves.parquet, one row per seed, step and group that had rollouts."""
WINDOW = 25
"""Steps of a curve's means."""
LEAST_WINDOWS = 4
"""A run with fewer windows of that many steps is shown in shorter ones."""


def training_curves(visits: pa.Table, groups: Mapping[str, str | None]) -> pa.Table:
    """Rows of SCHEMA from visits (`scoring.fates.VISITS`); `groups` is the group of each item.

    Rollouts without a verdict are left out, as are those of items without a group.
    """
    names = pa.array([name for name, group in groups.items() if group is not None], pa.string())
    of = pa.array([group for group in groups.values() if group is not None], pa.string())
    group = of.take(pc.index_in(visits["item_id"].combine_chunks(), value_set=names)) if len(of) else of
    if not len(of):
        return pa.schema(list(SCHEMA.items())).empty_table()
    known = visits.select(["seed", "step", "judged", "correct"]).append_column("group", group).drop_null()
    known = known.filter(pc.greater(known["judged"], 0))
    sums = known.group_by(["seed", "step", "group"]).aggregate([("judged", "sum"), ("correct", "sum")])
    sums = sums.rename_columns({"judged_sum": "rollouts", "correct_sum": "correct"}).select(list(SCHEMA))
    sums = sums.sort_by([("seed", "ascending"), ("step", "ascending"), ("group", "ascending")])
    return sums.cast(pa.schema(list(SCHEMA.items())))


def read_curves(path: Path) -> pa.Table | None:
    """A curves.parquet; None where there is none. Raises DataError naming file, row and field."""
    if not path.is_file():
        return None
    table = tables.read_parquet(path, SCHEMA).select(list(SCHEMA))
    wrong = pc.or_(pc.less(table["rollouts"], table["correct"]), pc.less(table["correct"], 0))
    wrong = pc.or_(pc.fill_null(wrong, True), pc.less(pc.fill_null(table["step"], -1), 0)).to_numpy()
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{path}, row {row + 1}: step, correct and rollouts must be whole numbers from 0, and correct at most "
            "rollouts; rerun the `eval` command that wrote it"
        )
    return table


def window_of(steps: int) -> int:
    """Steps of the means of a run of so many steps: WINDOW, or an eighth of a run that is too short for it."""
    return WINDOW if steps >= LEAST_WINDOWS * WINDOW else max(1, steps // (2 * LEAST_WINDOWS))


@dataclass(frozen=True)
class Curve:
    """Rate of a group in windows of steps: `rates` (seeds, windows), NaN where a seed drew nothing; `steps` (windows,)
    are the windows' middles."""

    steps: Reals
    rates: Reals

    @property
    def mean(self) -> Reals:
        """Mean over the seeds that drew something in a window."""
        count = np.isfinite(self.rates).sum(axis=0)
        return np.where(count > 0, np.nansum(self.rates, axis=0) / np.maximum(count, 1), np.nan)

    @property
    def band(self) -> tuple[Reals, Reals]:
        """Lowest and highest seed of each window."""
        rates, known = self.rates, np.isfinite(self.rates).any(axis=0)
        low = np.where(np.isfinite(rates), rates, np.inf).min(axis=0)
        high = np.where(np.isfinite(rates), rates, -np.inf).max(axis=0)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)


def group_curve(table: pa.Table, group: str, window: int = WINDOW) -> Curve | None:
    """The curve of one group by curves.parquet; None where it has no rows."""
    rows = table.filter(pc.equal(table["group"], group))
    if not rows.num_rows:
        return None
    seeds = np.unique(rows["seed"].to_numpy())
    steps = rows["step"].to_numpy()
    windows = int(steps.max()) // window + 1
    cell = np.searchsorted(seeds, rows["seed"].to_numpy()) * windows + steps // window
    sums = [
        np.bincount(cell, rows[name].to_numpy().astype(float), len(seeds) * windows).reshape(len(seeds), windows)
        for name in ("correct", "rollouts")
    ]
    rates = np.where(sums[1] > 0, sums[0] / np.maximum(sums[1], 1), np.nan)
    last = float(steps.max()) + 1
    ends = np.minimum(np.arange(1, windows + 1) * float(window), last)
    return Curve((np.arange(windows) * window + ends) / 2, rates)
