"""What a released training run shows: mean reward by group and step, and the items that it never rewarded.

The paper judges its interventions by these curves, by quarter of training (PROTOCOL 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.records import GROUPS
from unlearnbench.scoring.rates import Reals
from unlearnbench.splits import Split
from unlearnbench.splits.released_rewards import released_rewards

PARTS = 4
"""Quarters of training."""
POINTS = 20
"""Windows of steps of a curve, at most."""
UNLABELLED = "no label"


@dataclass(frozen=True)
class GroupRewards:
    """Mean rewards of a group's rollouts; NaN where it had none."""

    items: int
    """Items of the group that the run sampled."""
    rollouts: int
    quarters: Reals
    """(4,): by quarter of training."""
    steps: Reals
    """(windows,): the middle of each window of steps."""
    curve: Reals
    """(windows,)"""


@dataclass(frozen=True)
class ReleasedRun:
    """A released run's rewards, joined with the labels of a split."""

    steps: int
    items: int
    unknown: int
    """Ids in the file that are no item of the split; they are in no group."""
    groups: Mapping[str, GroupRewards]
    """By group, and UNLABELLED for items without one."""
    no_reward: tuple[str, ...]
    """Ids whose largest mean reward is 0, as the paper's released rule has it (PROTOCOL 2), in order."""


def released_run(split: Split) -> ReleasedRun | None:
    """The released run of a built split; None where none was released or taken along.

    Raises DataError for a file that is altered or malformed.
    """
    table = released_rewards(split.path)
    if table is None or not table.num_rows:
        return None
    return summarise(table, {item.item_id: item.group or UNLABELLED for item in split.items})


def summarise(table: pa.Table, groups: Mapping[str, str]) -> ReleasedRun:
    """`table` has columns of `released_rewards.SCHEMA`; `groups` is the group of each item."""
    ids, steps = table["item_id"].to_pylist(), table["step"].to_numpy()
    of = np.array([groups.get(name, "") for name in ids], object)
    names = np.array(ids, object)
    rollouts = table["rollouts"].to_numpy().astype(float)
    sums = table["reward"].to_numpy() * rollouts
    first, last = int(steps.min()), int(steps.max())
    found: dict[str, GroupRewards] = {}
    for name in (*GROUPS, UNLABELLED):
        rows = of == name
        if not rows.any():
            continue
        quarters = _means(steps[rows], sums[rows], rollouts[rows], _edges(first, last, PARTS))
        edges = _edges(first, last, min(POINTS, last - first + 1))
        curve = _means(steps[rows], sums[rows], rollouts[rows], edges)
        found[name] = GroupRewards(
            len(set(names[rows])), int(rollouts[rows].sum()), quarters, (edges[:-1] + edges[1:] - 1) / 2, curve
        )
    best = table.group_by("item_id").aggregate([("reward", "max")])
    zero = best.filter(pc.equal(best["reward_max"], 0.0))["item_id"].to_pylist()
    different = set(ids)
    return ReleasedRun(
        steps=last - first + 1,
        items=len(different),
        unknown=len(different - groups.keys()),
        groups=found,
        no_reward=tuple(sorted(zero, key=lambda name: (len(name), name))),
    )


def _edges(first: int, last: int, parts: int) -> Reals:
    """Borders of `parts` equal parts of the steps from `first` to `last`: part k is [edges[k], edges[k + 1])."""
    return np.ceil(np.linspace(first, last + 1, parts + 1))


def _means(steps: Reals, sums: Reals, rollouts: Reals, edges: Reals) -> Reals:
    """Mean reward of the rollouts in each part; NaN for a part without any."""
    total, count = (np.histogram(steps, edges, weights=part)[0] for part in (sums, rollouts))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
