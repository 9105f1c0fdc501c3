"""What became of each item in training: never, flickered, converted or held, from the ledger of rollouts.

A visit is one step's rollouts of an item; it solves the item if at least half of them are correct. The field counts
forgetting events the same way, as transitions between consecutive visits (Toneva et al. 2019, arXiv 1812.05159,
definitions 1 and 2); with rollouts that differ within a visit, `half correct` takes the place of `correct`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.records import FATES, Fates


def fates(visits: pa.Table, item_ids: Sequence[str] | None = None, seeds: Sequence[int] | None = None) -> pa.Table:
    """One row an item and seed: `item_id, seed, fate, first_correct_step, rewarded, rewarded_valid_trace`.

    `visits` has one row a rollout: seed, step, item_id, correct and valid_trace (other columns are ignored; a
    rollout whose `correct` is null has no verdict and is left out). never: no correct rollout; flickered: some, but
    no visit solved it; converted: a visit solved it, the last one did not; held: the last visit solved it. Rows are
    made for all `item_ids` and `seeds` (default: those that occur); what was never visited has fate never.
    `rewarded_valid_trace` is null where no rewarded rollout's trace could be judged, and 0 where none was rewarded.
    """
    ids = _unique(visits["item_id"]) if item_ids is None else list(item_ids)
    runs = sorted(_unique(visits["seed"])) if seeds is None else list(seeds)
    item = pc.index_in(visits["item_id"], value_set=pa.array(ids, pa.string())).to_numpy()
    run = pc.index_in(visits["seed"].cast(pa.int64()), value_set=pa.array(runs, pa.int64())).to_numpy()
    known = ~(np.isnan(item) | np.isnan(run) | visits["correct"].is_null().to_numpy())
    cell = (item[known] * len(runs) + run[known]).astype(np.int64)
    step = visits["step"].to_numpy()[known].astype(np.int64)
    correct = visits["correct"].fill_null(False).to_numpy()[known]
    judged = ~visits["valid_trace"].is_null().to_numpy()[known]
    valid = visits["valid_trace"].fill_null(False).to_numpy()[known]

    cells = len(ids) * len(runs)
    rewarded = np.bincount(cell[correct], minlength=cells)
    seen = np.bincount(cell[correct & judged], minlength=cells)
    rewarded_valid = np.bincount(cell[correct & valid], minlength=cells)
    first = np.full(cells, np.iinfo(np.int64).max)
    np.minimum.at(first, cell[correct], step[correct])

    visit, inverse = np.unique(np.stack([cell, step]), axis=1, return_inverse=True)
    size = np.bincount(inverse.ravel(), minlength=visit.shape[1])
    solved = 2 * np.bincount(inverse.ravel(), correct, visit.shape[1]) >= size
    ever, held = np.zeros(cells, bool), np.zeros(cells, bool)
    ever[visit[0][solved]] = True
    held[visit[0]] = solved  # visits are in the order of steps, so the last one stays
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


def count_fates(table: pa.Table, item_ids: Sequence[str]) -> Fates:
    """How many (item, seed) pairs of these items met each fate."""
    chosen = table.filter(pc.is_in(table["item_id"], value_set=pa.array(list(item_ids), pa.string())))["fate"]
    return Fates(**{name: int(pc.sum(pc.equal(chosen, name)).as_py() or 0) for name in FATES})


def _unique(column: pa.ChunkedArray) -> list[str | int]:
    return list(pc.unique(column).to_pylist())
