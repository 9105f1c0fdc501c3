"""The frontier score: what a method solves where runs of GRPO differ, weighted by how often they fail (PROTOCOL 3.6).

It separates methods where conversion is at its floor. F = sum_i w_i c_i / sum_i w_i over unlearnable and unstable
items, w_i = 1 - (share of labelling runs with ps > tau), c_i the mean over seeds of `solved`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from unlearnbench.records import Frontier, Item
from unlearnbench.scoring.conversion_rule import share_arm, solved
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.inference.intervals import containing, mean_interval
from unlearnbench.scoring.inference.permutation import p_gain
from unlearnbench.scoring.outcomes import require_samples
from unlearnbench.scoring.rates import Flags, Reals
from unlearnbench.splits import Control, Split

FRONTIER = ("unlearnable", "unstable")


def frontier_items(split: Split) -> tuple[list[Item], Reals]:
    """The unlearnable and unstable items, and their weights w_i scaled to mean 1.

    No items, and no weights, if the split has no labelling runs, or if every run solved all of the items.
    """
    items = [item for item in split.items if item.group in FRONTIER]
    after = Cells.of(
        read_phase(split.counts(), "after", [item.item_id for item in items], source=f"split {split.name}")
    )
    if not items or not after.runs:
        return [], np.zeros(0)
    weights = 1 - (after.correct > split.config.protocol.tau * after.n).mean(axis=1)
    if not weights.sum():
        return [], np.zeros(0)
    return items, weights / weights.mean()


def frontier(split: Split, counts: pa.Table | None, runs: Sequence[str], null: Control | None) -> Frontier | None:
    """The frontier score of a method and of the null control; None for a split without such items or labelling runs.

    `counts` is None for a run with too few samples for anything to count as solved; then all numbers are None.
    Raises DataError where the null control lacks rollouts of an item.
    """
    items, weights = frontier_items(split)
    if not items:
        return None
    if counts is None:
        return Frontier(gain=None, interval=None, interval_families=None, method=None, null=None, p=None)
    ids, tau = [item.item_id for item in items], split.config.protocol.tau
    hits = solved(Cells.of(read_phase(counts, "eval", ids, runs=runs)), tau)
    method = float((hits.mean(axis=1) * weights).mean())
    if null is None:
        return Frontier(gain=None, interval=None, interval_families=None, method=method, null=None, p=None)
    seeds = [str(seed) for seed in null.seeds]
    null_cells = Cells.of(read_phase(null.counts, "eval", ids, runs=seeds, source="the null control"))
    others = solved(require_samples(null_cells, ids, seeds, "eval", "the null control"), tau)
    families = [item.family for item in items]
    interval, beyond = frontier_intervals(hits, others, weights, ids, families)
    null_score = float((others.mean(axis=1) * weights).mean())
    return Frontier(
        gain=method - null_score,
        interval=interval,
        interval_families=beyond,
        method=method,
        null=null_score,
        p=p_gain(hits.astype(float), others.astype(float), families, weights),
    )


def frontier_intervals(
    method: Flags, null: Flags, weights: Reals, ids: Sequence[str], families: Sequence[str]
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """95 % intervals of the weighted mean of solved, method minus null: for these families, and beyond them."""
    arms = [share_arm(hits, weights) for hits in (method, null)]
    difference = arms[0].values - arms[1].values
    rollouts = float(method.shape[1] * len(ids))
    inner, beyond = (
        mean_interval(difference, ids, families, arms, beyond=wide, rollouts=rollouts) for wide in (False, True)
    )
    return inner, containing(beyond, inner)
