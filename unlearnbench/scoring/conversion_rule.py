"""Solved, converted, memorised, lost: the state of an item in one run (PROTOCOL 3.3), from integers (n, correct) alone.

Shares of items are means over items and runs, so they mean the same for any number of runs.
"""

from __future__ import annotations

import math

import numpy as np

from unlearnbench.scoring.counts import MIN_SAMPLES, Cells
from unlearnbench.scoring.inference.intervals import Arm
from unlearnbench.scoring.rates import Flags, Reals, is_above, is_below, least_above

LEAST_RATE = 0.25
"""Success rate that an item needs at least to count as solved."""


def solved(cells: Cells, tau: float, least: float = LEAST_RATE) -> Flags:
    """Items x runs: rate at least `least`, and one-sided 95 % lower limit above tau (PROTOCOL 3.3)."""
    enough: Flags = cells.correct >= least * cells.n
    return enough & is_above(cells.correct, cells.n, tau)


def converted(items: Flags, probes: Flags, has_probe: Flags) -> Flags:
    """Items x runs: the item is solved and so is its probe, in the same run. An item without a probe is not."""
    hit: Flags = items & probes & has_probe[:, None]
    return hit


def memorised(items: Flags, probes: Flags, has_probe: Flags) -> Flags:
    """Items x runs: the item is solved and its probe is not."""
    hit: Flags = items & ~probes & has_probe[:, None]
    return hit


def lost(cells: Cells, tau: float) -> Flags:
    """Items x runs: one-sided 95 % upper limit below tau."""
    return is_below(cells.correct, cells.n, tau)


def share_arm(hits: Flags, weights: Reals | None = None) -> Arm:
    """For each item the share of the runs in which `hits` (items, runs) is true, and how the mean varies over runs.

    `weights` (items,) of mean 1 make the arm's mean a weighted mean of items.
    """
    values = hits.astype(float) if weights is None else hits * weights[:, None]
    return _arm(values)


def rate_arm(cells: Cells) -> Arm:
    """Success rate of each problem, and how the mean varies over runs."""
    arm = _arm(cells.correct / np.maximum(cells.n, 1))
    return Arm(cells.rates, arm.deviations, arm.freedom)


def _arm(values: Reals) -> Arm:
    """Of values (items, runs): means over runs, with deviations scaled as `Arm` wants them."""
    runs = values.shape[1]
    mean = values.mean(axis=1)
    scale = math.sqrt(max(runs * (runs - 1), 1))
    return Arm(mean, (values - mean[:, None]).T / scale, runs - 1)


def rule_sentence(samples: int, tau: float, items: int, with_probe: int, *, similar: bool = False) -> str:
    """What counts as converted, with the threshold computed; `similar` if the probes are generated similar problems."""
    if samples < MIN_SAMPLES:
        return f"Converted is undefined with fewer than {MIN_SAMPLES} samples per item and seed (here {samples})."
    least = max(least_above(samples, tau), math.ceil(LEAST_RATE * samples))
    solved_is = f"Solved, in one seed: at least {least} of {samples} rollouts correct"
    if not with_probe:
        return f"{solved_is}. Whether an item was learned or memorised was not measured: probes were not."
    probe = "generated similar problem" if similar else "problem of the same skill with other numbers"
    some = "" if with_probe == items else f" ({items - with_probe} of {items} items have no probe, and never convert)"
    return (
        f"{solved_is}. Converted: solved, and so is the item's probe, a held-out {probe}, in the same seed{some}. "
        "Shares are means over seeds."
    )
