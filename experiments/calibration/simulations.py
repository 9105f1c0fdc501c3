"""Coverage of the intervals in one setting, and shipped null seeds against each other."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from experiments.calibration.settings import Setting
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.inference.intervals import Arm, gain_intervals
from unlearnbench.scoring.inference.simulation import Simulation
from unlearnbench.scoring.nulls import control_outcomes
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import newcombe_paired
from unlearnbench.splits import load_split


class Limits(NamedTuple):
    """Share of experiments with the true value below and above the interval, and the interval's mean width."""

    below: float
    above: float
    width: float


class Covered(NamedTuple):
    """One setting: mean number of converted items, both intervals, and the coverage of items taken as independent."""

    converted: float
    null_converted: float
    these: Limits
    beyond: Limits
    independent: float
    narrowest: float


def coverage(setting: Setting, repeats: int) -> Covered:
    """Simulate one setting `repeats` times, with the random stream of its names."""
    simulation, design = Simulation(setting.world, setting.design), setting.design
    rng = setting.generator()
    below, above, widths = np.zeros(2), np.zeros(2), np.zeros((repeats, 2))
    hits, independent, families = np.zeros(2), 0, design.families
    for number in range(repeats):
        drawn = simulation.draw(rng)
        arms = [share_arm(arm.hits(design.tau)) for arm in (drawn.method, drawn.null)]
        intervals = gain_intervals(arms[0], arms[1], families)
        for index, (interval, truth) in enumerate(zip(intervals, (drawn.gain, simulation.gain), strict=True)):
            if interval is None:
                raise ValueError(f"{setting.design_name}, {setting.world_name}: no interval")
            below[index] += truth < interval[0]
            above[index] += truth > interval[1]
            widths[number, index] = interval[1] - interval[0]
        naive = _independent(*arms)
        independent += naive[0] <= simulation.gain <= naive[1]
        hits += [arm.values.sum() for arm in arms]
    these, beyond = (
        Limits(float(low), float(high), float(width))
        for low, high, width in zip(below / repeats, above / repeats, widths.mean(axis=0), strict=True)
    )
    mean_hits = hits / repeats
    return Covered(float(mean_hits[0]), float(mean_hits[1]), these, beyond, independent / repeats, float(widths.min()))


def _independent(method: Arm, null: Arm) -> tuple[float, float]:
    """Newcombe's interval for paired items, with items taken as independent and runs as fixed."""
    first, second = method.values, null.values
    return newcombe_paired(
        float(first @ second),
        float(first @ (1 - second)),
        float((1 - first) @ second),
        float((1 - first) @ (1 - second)),
    )


class NullPairs(NamedTuple):
    """Shipped seeds of the null control against other ones: share of intervals that include 0, and mean width."""

    seeds: int
    null_seeds: int
    pairs: int
    these: tuple[float, float]
    beyond: tuple[float, float]


def null_against_null(seeds: int = 3, every: int = 1) -> list[NullPairs]:
    """Every three of micro's null seeds against the remaining seeds, and every pair of disjoint threes.

    With `every` above 1, only one in `every` of those pairs.
    """
    split = load_split("micro")
    control = split.control("null_control")
    if control is None:
        raise ValueError("split micro has no null control")
    items = [item for item in split.items if item.group == "unlearnable"]
    families, tau = [item.family for item in items], split.config.protocol.tau
    hits = control_outcomes(control, items, probes_of(split), tau, "null control").converted
    arms: dict[tuple[int, ...], Arm] = {}

    def arm(chosen: tuple[int, ...]) -> Arm:
        if chosen not in arms:
            arms[chosen] = share_arm(hits[:, chosen])
        return arms[chosen]

    threes = list(combinations(range(hits.shape[1]), seeds))
    remaining = [(one, tuple(sorted(set(range(hits.shape[1])) - set(one)))) for one in threes]
    disjoint = [(one, other) for one in threes for other in threes if one < other and not set(one) & set(other)]
    rows = []
    for pairs in (remaining, disjoint[::every]):
        limits = np.array([gain_intervals(arm(one), arm(other), families) for one, other in pairs], float)
        held = ((limits[..., 0] <= 0) & (limits[..., 1] >= 0)).mean(axis=0)
        widths = (limits[..., 1] - limits[..., 0]).mean(axis=0)
        these, beyond = ((float(share), float(width)) for share, width in zip(held, widths, strict=True))
        rows.append(NullPairs(seeds, len(pairs[0][1]), len(pairs), these, beyond))
    return rows
