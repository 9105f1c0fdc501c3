"""Rates: every formula against an independent computation, and the protocol's own figures."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnbench.scoring.rates import (
    clopper_pearson,
    is_above,
    is_below,
    least_above,
    lower_limit,
    most_below,
    newcombe_paired,
    paired_correlation,
    pass_at_k,
    upper_limit,
    wilson,
)

counts = st.integers(0, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts.filter(lambda pair: pair[1] > 0))
def test_limits_are_those_of_the_exact_test(pair: tuple[int, int]) -> None:
    correct, n = pair
    low = stats.binomtest(correct, n, alternative="greater").proportion_ci(0.95).low
    high = stats.binomtest(correct, n, alternative="less").proportion_ci(0.95).high
    both = stats.binomtest(correct, n).proportion_ci(0.95)
    assert float(lower_limit(correct, n)) == pytest.approx(low, abs=1e-9)
    assert float(upper_limit(correct, n)) == pytest.approx(high, abs=1e-9)
    assert [float(limit) for limit in clopper_pearson(correct, n)] == pytest.approx([both.low, both.high], abs=1e-9)


@given(counts.filter(lambda pair: pair[1] > 0))
def test_wilson_is_scipys(pair: tuple[int, int]) -> None:
    expected = stats.binomtest(*pair).proportion_ci(0.95, method="wilson")
    assert wilson(pair[0] / pair[1], pair[1]) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_without_samples_nothing_is_known() -> None:
    assert (float(lower_limit(0, 0)), float(upper_limit(0, 0))) == (0.0, 1.0)
    assert (least_above(0, 0.1), most_below(0, 0.1)) == (1, -1)


@pytest.mark.parametrize(("n", "least"), [(32, 7), (64, 12), (128, 20)])
def test_thresholds_of_the_protocol(n: int, least: int) -> None:
    assert least_above(n, 0.1) == least


def test_certification_threshold_of_the_protocol() -> None:
    assert most_below(384, 0.1) == 28


@given(st.integers(1, 300), st.sampled_from([0.07, 0.1, 0.25, 0.5]))
def test_thresholds_are_where_the_limits_cross_tau(n: int, tau: float) -> None:
    every = np.arange(n + 1)
    low, high = lower_limit(every, n) > tau, upper_limit(every, n) < tau
    assert (is_above(every, n, tau) == low).all() and (is_below(every, n, tau) == high).all()


def test_a_guessing_rate_of_one_in_fifteen_seldom_exceeds_tau_at_512_samples() -> None:
    def exceeds(n: int) -> float:
        return float(stats.binom.sf(np.floor(0.1 * n), n, 0.067))

    assert exceeds(512) == pytest.approx(0.002, abs=5e-4)
    assert exceeds(32) == pytest.approx(0.16, abs=0.01)
    assert (1 - exceeds(32)) ** 8 == pytest.approx(0.24, abs=0.02)


@pytest.mark.parametrize(("n", "correct"), [(6, 0), (6, 1), (6, 3), (6, 6), (7, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n: int, correct: int) -> None:
    samples = [True] * correct + [False] * (n - correct)
    for k in range(1, n + 1):
        share = np.mean([any(chosen) for chosen in combinations(samples, k)])
        assert float(pass_at_k(correct, n, k)) == pytest.approx(share, abs=1e-12)


@given(counts.filter(lambda pair: pair[1] > 0), st.data())
def test_pass_at_k_is_exact(pair: tuple[int, int], data: st.DataObject) -> None:
    correct, n = pair
    k = data.draw(st.integers(1, n))
    exact = 1 - Fraction(comb(n - correct, k), comb(n, k))
    assert float(pass_at_k(correct, n, k)) == pytest.approx(float(exact), abs=1e-12)
    assert float(pass_at_k(0, n, k)) == 0.0 and float(pass_at_k(n, n, k)) == 1.0


def test_pass_at_k_takes_arrays_of_any_sizes() -> None:
    got = pass_at_k([[1, 0], [2, 1]], [[2, 2], [4, 1]], 2)
    assert got[0].tolist() == [1.0, 0.0] and got[1][0] == pytest.approx(5 / 6) and np.isnan(got[1][1])


def test_newcombes_method_10_by_hand() -> None:
    """Newcombe 1998b's formulas written out again for his example 20, 12, 2, 16."""
    a, b, c, d = 20, 12, 2, 16
    n = a + b + c + d
    (l2, u2), (l3, u3) = (stats.binomtest(x, n).proportion_ci(method="wilson") for x in (a + b, a + c))
    p2, p3 = (a + b) / n, (a + c) / n
    phi = max(a * d - b * c - n / 2, 0) / np.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    delta = np.sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u3 - p3) + (u3 - p3) ** 2)
    epsilon = np.sqrt((u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p3 - l3) + (p3 - l3) ** 2)
    assert newcombe_paired(a, b, c, d) == pytest.approx((p2 - p3 - delta, p2 - p3 + epsilon))
    assert newcombe_paired(a, b, c, d) == pytest.approx((0.0562, 0.3290), abs=2e-3)


@given(*[st.integers(0, 60)] * 4)
def test_newcombes_interval_is_ordered_antisymmetric_and_never_a_point(a: int, b: int, c: int, d: int) -> None:
    if a + b + c + d == 0:
        return
    low, high = newcombe_paired(a, b, c, d)
    gain = (b - c) / (a + b + c + d)
    assert -1 <= low <= gain <= high <= 1 and high - low > 0
    assert newcombe_paired(a, c, b, d) == pytest.approx((-high, -low))
    assert -1 <= paired_correlation(a, b, c, d) <= 1
