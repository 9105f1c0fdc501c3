"""Intervals: simulations with known truth at reduced size, exact agreements, and what may never happen.

`coverage` is the simulation; run this file as a script for a larger one, `python tests/test_intervals.py 2000`.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlearnbench.intervals import Arm, gain_intervals, mean_interval, rate_interval
from unlearnbench.rates import newcombe_paired
from unlearnbench.rule import Cells, conversion_arm
from unlearnbench.simulation import Design, Simulation, World, uneven_sizes

N, ITEMS, TAU = 32, 250, 0.1


WORLDS = {
    "same as null": World(),
    "tiny": World(shift=0.2, shift_family=0.3),
    "small": World(shift=0.7, shift_family=0.7),
    "middle": World(shift=1.0, shift_family=0.8),
    "large": World(shift=1.5, shift_family=1.0),
    "nearly all": World(shift=5.0, shift_family=1.0),
    "runs differ, in step": World(shift=1.5, shift_family=1.0, run=0.8, family_run=0.2),
    "runs differ by family": World(shift=1.5, shift_family=1.0, run=0.0, family_run=1.5),
    "runs alike": World(shift=1.5, shift_family=1.0, run=0.0, family_run=0.0, item_run=0.0),
    "whole families": World(jump=0.2, shift_family=0.2),
    "a whole family, perhaps": World(jump=0.06, shift_family=0.2),
    "families alike": World(family=0.3, shift=1.5, shift_family=0.1, run=0.1, family_run=0.1),
}


def coverage(world: World, families: int, repeats: int, seed: int = 0) -> tuple[float, ...]:
    """Coverage and mean width of both intervals, and converted items on average: 3 runs against 10 of the null."""
    rng = np.random.Generator(np.random.Philox(key=[seed, families]))
    simulation = Simulation(world, Design(uneven_sizes(ITEMS, families, rng)))
    names = simulation.design.families
    covered, widths, hits = np.zeros(2), np.zeros(2), 0.0
    for _ in range(repeats):
        drawn = simulation.draw(rng)
        arms = conversion_arm(drawn.method, TAU, 3), conversion_arm(drawn.null, TAU, 3)
        for index, (interval, truth) in enumerate(
            zip(gain_intervals(*arms, names), (drawn.gain, simulation.gain), strict=True)
        ):
            assert interval is not None and interval[1] - interval[0] > 1e-6
            covered[index] += interval[0] <= truth <= interval[1]
            widths[index] += interval[1] - interval[0]
        hits += arms[0].values.sum()
    return (*(covered / repeats), *(widths / repeats), hits / repeats)


@pytest.mark.parametrize("name", ["same as null", "large", "runs differ, in step", "whole families"])
def test_both_intervals_cover(name: str) -> None:
    repeats = 250
    these, beyond, *_ = coverage(WORLDS[name], 16, repeats)
    noise = 2.5 * np.sqrt(0.95 * 0.05 / repeats)  # 0.034
    assert these > 0.93 - noise and beyond > 0.93 - noise


def still(values: list[float]) -> Arm:
    """An arm whose runs never differ."""
    return Arm(np.array(values), np.zeros((1, len(values))), 2)


@given(st.integers(0, 2), st.integers(0, 2), st.integers(1, 20), st.integers(6, 40))
def test_few_discordant_items_give_newcombes_interval(first: int, second: int, both: int, neither: int) -> None:
    method = still([1.0] * (both + first) + [0.0] * (second + neither))
    null = still([1.0] * both + [0.0] * first + [1.0] * second + [0.0] * neither)
    families = [str(index % 5) for index in range(len(method.values))]
    these, _ = gain_intervals(method, null, families)
    expected = newcombe_paired(both, first, second, neither)
    assert these == pytest.approx(expected)


def test_where_nothing_is_converted_other_families_may_still_be() -> None:
    arm = still([0.0] * 250)
    these, beyond = gain_intervals(arm, arm, [str(index % 16) for index in range(250)])
    assert these == pytest.approx(newcombe_paired(0, 0, 0, 250))
    assert beyond is not None and beyond[0] > -0.02 and beyond[1] > 0.1  # none of 16 families


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(2, 12), st.floats(0, 0.6), st.floats(0, 0.3))
def test_intervals_hold_the_gain_and_stay_in_range(seed: int, families: int, high: float, low: float) -> None:
    rng = np.random.default_rng(seed)
    family = rng.integers(0, families, 40)
    arms = [
        conversion_arm(Cells(rng.binomial(N, rate, (40, runs)), np.full((40, runs), N)), TAU, 3)
        for rate, runs in ((high, 3), (low, 5))
    ]
    gain = float(arms[0].values.mean() - arms[1].values.mean())
    for interval in gain_intervals(*arms, [str(name) for name in family]):
        if interval is not None:
            assert -1 <= interval[0] <= gain + 1e-9 and gain - 1e-9 <= interval[1] <= 1
            assert interval[1] - interval[0] > 0


def test_a_family_is_not_many_items() -> None:
    """Four of sixteen families convert as wholes: beyond them far less is known than about 62 free items."""
    values = [float(index % 16 < 4) for index in range(256)]
    null, names = still([0.0] * 256), [str(index % 16) for index in range(256)]
    _, together = gain_intervals(still(values), null, names)
    _, scattered = gain_intervals(
        still(sorted(values)), null, [str(index // 64 + 4 * (index % 4)) for index in range(256)]
    )
    assert together is not None and scattered is not None
    assert together[1] - together[0] > 0.3


def test_what_cannot_be_estimated_is_none() -> None:
    one_run = Arm(np.array([1.0, 0.0]), np.zeros((1, 2)), 0)
    two = still([1.0, 0.0])
    assert gain_intervals(one_run, two, ["a", "b"]) == (None, None)
    these, beyond = gain_intervals(two, two, ["a", "a"])
    assert these is not None and beyond is None
    assert rate_interval(two, ["a", "a"], 2) is None and rate_interval(one_run, ["a", "b"], 2) is None
    assert mean_interval(two.values, ["x", "x"], ["a", "a"], [two], beyond=False, rollouts=96) is None
    assert mean_interval(two.values, ["x", "y"], ["a", "a"], [two], beyond=True, rollouts=96) is None
    assert mean_interval(two.values, ["x", "y"], ["a", "b"], [one_run], beyond=True, rollouts=96) is None


def test_mean_interval_of_free_units_is_students() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.2, 0.1, 30)
    names = [str(index) for index in range(30)]
    got = mean_interval(values, names, names, [], beyond=True, rollouts=96)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert got == pytest.approx((expected.low, expected.high))
    flat = mean_interval(np.zeros(30), names, names, [], beyond=True, rollouts=96)
    assert flat is not None and flat[0] < 0 < flat[1]


if __name__ == "__main__":
    for families in (16, 30):
        for name, world in WORLDS.items():
            these, beyond, width, width_beyond, hits = coverage(world, families, int(sys.argv[1]))
            print(
                f"| {families} | {name} | {hits:.0f} | {100 * these:.1f} % | {width:.3f} | {100 * beyond:.1f} % "
                f"| {width_beyond:.3f} |",
                flush=True,
            )
