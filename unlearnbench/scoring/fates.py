"""The fate of each item in training: never, flickered, lost or held, from the ledger of rollouts.

A visit is one step's rollouts of an item; it solves the item if at least half of them are correct. The field counts
forgetting events the same way, as transitions between consecutive visits (Toneva et al. 2019, arXiv 1812.05159,
definitions 1 and 2); with rollouts that differ within a visit, `half correct` takes the place of `correct`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.records import FATES, Fate, Fates
from unlearnbench.scoring.rates import Counts, Flags

SCHEMA = {
    "item_id": pa.string(),
    "seed": pa.int64(),
    "fate": pa.string(),
    "first_correct_step": pa.int64(),
    "rewarded": pa.int64(),
    "rewarded_valid_trace": pa.int64(),
}
"""Columns of fates.parquet, one row per item and seed."""
VISITS = {
    "seed": pa.int64(),
    "step": pa.int64(),
    "item_id": pa.string(),
    "rollouts": pa.int64(),
    "judged": pa.int64(),
    "correct": pa.int64(),
    "traced": pa.int64(),
    "valid": pa.int64(),
}
"""Columns of visits.parquet, one row per visit. `judged` rollouts have a verdict; of the `correct` ones the verdict on
their trace is known of `traced`, and `valid` have a valid trace."""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
UNKNOWN = -1


def visits_of(rollouts: pa.Table) -> pa.Table:
    """Rollouts counted by visit, columns as in VISITS: one row per seed, step and item, in this order.

    `rollouts` has one row per rollout: seed, step, item_id, correct and valid_trace (other columns are ignored). A
    rollout whose `correct` is null has no verdict and counts in `rollouts` alone.
    """
    judged = rollouts["correct"].is_valid()
    correct = rollouts["correct"].fill_null(False)
    counted = {
        "rollouts": pa.chunked_array([np.ones(rollouts.num_rows, np.int64)], pa.int64()),
        "judged": judged,
        "correct": correct,
        "traced": pc.and_(correct, rollouts["valid_trace"].is_valid()),
        "valid": pc.and_(correct, rollouts["valid_trace"].fill_null(False)),
    }
    keys = {name: rollouts[name].cast(VISITS[name]) for name in ("seed", "step", "item_id")}
    table = pa.table(keys | {name: column.cast(pa.int64()) for name, column in counted.items()})
    sums = table.group_by(list(keys)).aggregate([(name, "sum") for name in counted])
    sums = sums.rename_columns([name.removesuffix("_sum") for name in sums.column_names]).select(list(VISITS))
    return sums.sort_by([(name, "ascending") for name in keys]).cast(pa.schema(list(VISITS.items())))


def fates_of(visits: pa.Table, item_ids: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> pa.Table:
    """One row per item and seed: `item_id, seed, fate, first_correct_step, rewarded, rewarded_valid_trace`.

    `visits` as `visits_of` gives them. never: no correct rollout; flickered: some, but no visit solved the item;
    lost: a visit solved it, the last one did not; held: the last visit solved it. Rows are made for all `item_ids`
    and `seeds` (default: those that occur); what was never visited has fate never. `rewarded_valid_trace` is null where
    no rewarded rollout's trace could be judged, and 0 where none was rewarded.
    """
    ids = _unique(visits["item_id"]) if item_ids is None else list(item_ids)
    runs = sorted(_unique(visits["seed"])) if seeds is None else list(seeds)
    item = pc.index_in(visits["item_id"], value_set=pa.array(ids, pa.string())).fill_null(UNKNOWN).to_numpy()
    run = pc.index_in(visits["seed"], value_set=pa.array(runs, pa.int64())).fill_null(UNKNOWN).to_numpy()
    known = (item != UNKNOWN) & (run != UNKNOWN) & (visits["judged"].to_numpy() > 0)
    cell = item[known].astype(np.int64) * len(runs) + run[known]
    step, judged, correct, traced, valid = (
        visits[name].to_numpy()[known] for name in ("step", "judged", "correct", "traced", "valid")
    )
    cells = len(ids) * len(runs)
    rewarded, seen, rewarded_valid = (np.zeros(cells, np.int64) for _ in range(3))
    for total, counts in ((rewarded, correct), (seen, traced), (rewarded_valid, valid)):
        np.add.at(total, cell, counts)
    first = np.full(cells, np.iinfo(np.int64).max)
    np.minimum.at(first, cell[correct > 0], step[correct > 0])

    order = np.argsort(step, kind="stable")
    solved = 2 * correct >= judged
    ever, held = np.zeros(cells, bool), np.zeros(cells, bool)
    ever[cell[solved]] = True
    held[cell[order]] = solved[order]  # in the order of steps, so the last one stays
    fate = np.where(rewarded == 0, 0, np.where(~ever, 1, np.where(~held, 2, 3)))
    return pa.table(
        {
            "item_id": pa.array(np.repeat(np.array(ids, object), len(runs)), pa.string()),
            "seed": pa.array(np.tile(np.array(runs, np.int64), len(ids)), pa.int64()),
            "fate": pa.array(np.array(FATES, object)[fate], pa.string()),
            "first_correct_step": pa.array(first, pa.int64(), mask=rewarded == 0),
            "rewarded": pa.array(rewarded, pa.int64()),
            "rewarded_valid_trace": pa.array(rewarded_valid, pa.int64(), mask=(rewarded > 0) & (seen == 0)),
        }
    )


def fates(rollouts: pa.Table, item_ids: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> pa.Table:
    """`fates_of` the visits of these rollouts."""
    return fates_of(visits_of(rollouts), item_ids, seeds)


def count_fates(table: pa.Table, item_ids: Sequence[str]) -> Fates:
    """How many (item, seed) pairs of these items met each fate."""
    chosen = table.filter(pc.is_in(table["item_id"], value_set=pa.array(list(item_ids), pa.string())))["fate"]
    return Fates(**{name: int(pc.sum(pc.equal(chosen, name)).as_py() or 0) for name in FATES})


@dataclass(frozen=True)
class Watched:
    """What training saw of items, as arrays of shape (items, seeds); -1 (UNKNOWN) where there is no value.

    `fate` is an index into FATES; `first` the step of the first correct rollout; `rewarded` counts correct rollouts
    and `valid` those among them with a valid trace.
    """

    fate: Counts
    first: Counts
    rewarded: Counts
    valid: Counts
    drawn: Flags | None = None
    """Whether training drew the item at all; None where the rollouts of the training were not kept."""

    def __getitem__(self, rows: Flags | Sequence[int]) -> Watched:
        """The same of some of the items."""
        drawn = None if self.drawn is None else self.drawn[rows]
        return Watched(self.fate[rows], self.first[rows], self.rewarded[rows], self.valid[rows], drawn)

    def seed(self, place: int) -> Watched:
        """The same of one seed, by its place."""
        here = slice(place, place + 1)
        drawn = None if self.drawn is None else self.drawn[:, here]
        return Watched(self.fate[:, here], self.first[:, here], self.rewarded[:, here], self.valid[:, here], drawn)

    @property
    def undrawn(self) -> Flags:
        """Where an item has fate never because training never drew it; nowhere if that is not known."""
        never = self.met("never")
        return never & False if self.drawn is None else never & ~self.drawn

    def met(self, fate: Fate) -> Flags:
        """Where an item met this fate."""
        found: Flags = self.fate == FATES.index(fate)
        return found


@dataclass(frozen=True)
class Summary:
    """What became of some items in training. A pair is an item in one seed."""

    pairs: int
    met: Mapping[Fate, int]
    """Pairs by fate."""
    first_steps: NDArray[np.int64] | None
    """Step of the first correct rollout of every pair that had one, sorted; None where that is not known."""
    rewarded: int | None
    """Correct rollouts; None where they are not known."""
    judged: int
    """Correct rollouts of pairs whose traces could be judged."""
    valid: int | None
    """Correct rollouts with a valid trace among the judged ones; None where there are none."""
    undrawn: int = 0
    """Pairs among the `never` ones that training is known not to have drawn."""

    @property
    def first_quantiles(self) -> list[int | None]:
        """Steps by which QUANTILES of those pairs had had a correct rollout; None where there is no such pair."""
        if self.first_steps is None or not len(self.first_steps):
            return [None] * len(QUANTILES)
        steps: list[int | None] = np.quantile(self.first_steps, QUANTILES, method="inverted_cdf").tolist()
        return steps


def summary(watched: Watched) -> Summary:
    """Counts over all pairs with a known fate."""
    known = watched.fate != UNKNOWN
    judged = known & (watched.valid != UNKNOWN)
    seen = int(watched.rewarded[judged].sum())
    return Summary(
        pairs=int(known.sum()),
        met={name: int(watched.met(name).sum()) for name in FATES},
        first_steps=np.sort(watched.first[known & (watched.first != UNKNOWN)]),
        rewarded=int(watched.rewarded[known].sum()),
        judged=seen,
        valid=int(watched.valid[judged].sum()) if seen else None,
        undrawn=int(watched.undrawn.sum()),
    )


def read_fates(path: Path, item_ids: Sequence[str], seeds: Sequence[int]) -> Watched:
    """fates.parquet as arrays over these items and seeds; rows of others are left out, those it lacks are UNKNOWN.

    Raises DataError naming file, row and field: a fate that is none, a negative number, a repeated item and seed.
    """
    table = tables.read_parquet(path, SCHEMA)
    fate = pc.index_in(table["fate"], value_set=pa.array(FATES, pa.string())).fill_null(UNKNOWN).to_numpy()
    if (fate == UNKNOWN).any():
        row = int(np.argmax(fate == UNKNOWN))
        raise DataError(
            f"{path}, row {row + 1}, field 'fate': {table['fate'][row].as_py()!r} is none of {', '.join(FATES)}; "
            "run the same `eval` command again, which writes the file again"
        )
    numbers = []
    for name in ("first_correct_step", "rewarded", "rewarded_valid_trace"):
        wrong = pc.less(table[name], 0).fill_null(name == "rewarded").to_numpy()
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{path}, row {row + 1}, field {name!r}: {table[name][row].as_py()} is not a number from 0; run the "
                "same `eval` command again, which writes the file again"
            )
        numbers.append(table[name].fill_null(UNKNOWN).to_numpy())
    item = pc.index_in(table["item_id"], value_set=pa.array(item_ids, pa.string())).fill_null(UNKNOWN).to_numpy()
    run = pc.index_in(table["seed"], value_set=pa.array(seeds, pa.int64())).fill_null(UNKNOWN).to_numpy()
    known = np.flatnonzero((item != UNKNOWN) & (run != UNKNOWN))
    cells = item[known].astype(np.int64) * len(seeds) + run[known]
    first = np.unique(cells, return_index=True)[1]
    if len(first) < len(cells):
        row = int(known[np.setdiff1d(np.arange(len(cells)), first)[0]])
        raise DataError(
            f"{path}, row {row + 1}: a second row of item {table['item_id'][row].as_py()!r} and seed "
            f"{table['seed'][row].as_py()}; keep one row per item and seed"
        )
    arrays = np.full((4, len(item_ids) * len(seeds)), UNKNOWN, np.int64)
    arrays[:, cells] = np.stack([fate, *numbers])[:, known]
    return Watched(*arrays.reshape(4, len(item_ids), len(seeds)))


def _unique(column: pa.ChunkedArray) -> list[str | int]:
    return list(pc.unique(column).to_pylist())
