"""Intervals: exact agreements, and what may never happen. tests/test_calibration.py asks how often they hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unlearnbench.scoring.conversion_rule import rate_arm, share_arm
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.inference.intervals import Arm, gain_intervals, mean_interval, rate_interval, twin_verdict
from unlearnbench.scoring.rates import newcombe_paired, wilson


def test_a_verdict_follows_from_its_interval() -> None:
    assert twin_verdict((0.26, 0.9), 0.5) == "generalised"
    assert twin_verdict((0.24, 0.9), 0.5) == "partly"
    assert twin_verdict((-0.1, 0.2), 0.5) == "memorised"
    assert twin_verdict((-0.1, 0.3), 0.5) == twin_verdict(None, 0.5) == twin_verdict((-0.1, 0.2), None) == "undecided"


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
    arms = [share_arm(rng.random((40, runs)) < rate) for rate, runs in ((high, 3), (low, 5))]
    gain = float(arms[0].values.mean() - arms[1].values.mean())
    for interval in gain_intervals(*arms, [str(name) for name in family]):
        if interval is not None:
            assert -1 <= interval[0] <= gain + 1e-9 and gain - 1e-9 <= interval[1] <= 1
            assert interval[1] - interval[0] > 0
    inner, beyond = gain_intervals(*arms, [str(name) for name in family])
    if inner is not None and beyond is not None:  # what claims more is at least as wide
        assert beyond[0] <= inner[0] and inner[1] <= beyond[1]


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


def in_step(rates: list[float], items: int = 4000) -> Arm:
    """Items that all do in each run what the run does."""
    return rate_arm(
        Cells(np.tile(np.round(np.array(rates) * 1000).astype(int), (items, 1)), np.full((items, len(rates)), 1000))
    )


def test_runs_alone_give_students_interval() -> None:
    """Where only the runs differ, what is known is the mean of three numbers."""
    arm, names = in_step([0.2, 0.3, 0.45]), [str(index % 40) for index in range(4000)]
    got = mean_interval(arm.values, [str(i) for i in range(4000)], names, [arm], beyond=False, rollouts=3000)
    expected = stats.ttest_1samp([0.2, 0.3, 0.45], 0).confidence_interval()
    assert got is not None and got[0] == pytest.approx(expected.low, abs=0.01)
    assert got[1] == pytest.approx(expected.high, abs=0.01)


def test_runs_alone_give_wilsons_interval_with_students_quantile() -> None:
    arm, null = in_step([0.2, 0.3, 0.45]), in_step([0.0, 0.0, 0.0])
    these, beyond = gain_intervals(arm, null, [str(index % 40) for index in range(4000)])
    variance = np.var([0.2, 0.3, 0.45], ddof=1) / 3
    mean = float(arm.values.mean())
    expected = wilson(mean, mean * (1 - mean) / variance, float(stats.t.ppf(0.975, 2)))
    for interval in (these, beyond):
        assert interval == pytest.approx(expected, abs=0.01)


def test_a_null_that_converts_almost_nothing_is_as_sure_as_one_that_converts_nothing() -> None:
    method, names = still([1.0] * 60 + [0.0] * 220), [str(index % 35) for index in range(280)]
    lows = []
    for share in (0.0, 1 / 120):  # one item in one of 120 subsets of the null's runs
        these, _ = gain_intervals(method, still([0.0] * 279 + [share]), names)
        assert these is not None
        lows.append(these[0])
    assert lows[1] == pytest.approx(lows[0], abs=0.003)
