"""p-values against enumeration by another road, against their floor, and against data without an effect."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.scoring.inference.permutation import p_families, p_gain, p_runs, p_two_sided

score = st.integers(0, 6).map(lambda k: k / 6)


@given(st.lists(score, min_size=1, max_size=3), st.lists(score, min_size=1, max_size=4))
def test_p_of_runs_counts_orders(method: list[float], null: list[float]) -> None:
    """Every order of the runs, the first ones called the method's: many give the same set, all sets equally many."""
    size, seen = len(method), np.mean(method) - np.mean(null)
    orders = [np.mean(order[:size]) - np.mean(order[size:]) for order in permutations(method + null)]
    expected = np.mean([gain >= seen - 1e-12 for gain in orders])
    assert p_runs(np.array(method), np.array(null)) == pytest.approx(expected)


def test_three_runs_above_ten_reach_the_floor() -> None:
    assert p_runs(np.array([0.5, 0.6, 0.7]), np.linspace(0, 0.1, 10)) == pytest.approx(1 / 286)
    assert p_runs(np.zeros(3), np.zeros(10)) == 1.0


def test_of_too_many_ways_a_sample_that_holds_the_observed_one_is_taken() -> None:
    rng = np.random.default_rng(0)
    method, null = rng.random(10) + 0.25, rng.random(10)  # 184,756 ways
    whole = np.concatenate([method, null])
    gains = [2 * whole[list(chosen)].sum() for chosen in combinations(range(20), 10)]
    exact = float(np.mean(np.array(gains) >= 2 * method.sum() - 1e-12))
    assert p_runs(method, null) == pytest.approx(exact, abs=0.01) and 0 < exact < 0.2
    assert p_runs(method + 5, null) > 0


def test_families_resampled_whole_by_enumeration() -> None:
    difference, families = np.array([1.0, 1.0, 1.0, -1.0]), ["a", "a", "b", "c"]  # sums 2, 1, -1
    sums = np.array([2.0, 1.0, -1.0])
    draws = [sums[[i, j, k]].sum() for i in range(3) for j in range(3) for k in range(3)]
    assert p_families(difference, families) == pytest.approx(np.mean(np.array(draws) <= 0), abs=0.01)
    assert p_families(difference, ["a"] * 4) == 1.0


def test_a_gain_in_one_family_of_many_is_not_sure_beyond_it() -> None:
    families = [f"{i // 10}" for i in range(60)]
    method, null = np.zeros((60, 3)), np.zeros((60, 10))
    method[:10] = 1.0
    assert p_runs(method.mean(axis=0), null.mean(axis=0)) == pytest.approx(1 / 286)
    alone = p_gain(method, null, families)
    assert alone == pytest.approx((5 / 6) ** 6, abs=0.02)  # the family is in none of the draws
    method[:] = 1.0
    assert p_gain(method, null, families) == pytest.approx(1 / 286)


def test_weights_count_items_as_often() -> None:
    rng = np.random.default_rng(1)
    method, null = (rng.random((6, 3)) < 0.6).astype(float), (rng.random((6, 5)) < 0.4).astype(float)
    families, times = list("aabbcc"), np.array([1, 2, 1, 3, 1, 1])
    repeated = p_gain(method.repeat(times, 0), null.repeat(times, 0), list(np.array(families).repeat(times)))
    assert p_gain(method, null, families, times / times.mean()) == pytest.approx(repeated)


def test_two_sided_is_symmetric_and_at_most_1() -> None:
    rng = np.random.default_rng(2)
    first, second = (rng.random((12, 3)) < 0.5).astype(float), (rng.random((12, 4)) < 0.4).astype(float)
    families = [f"{i // 2}" for i in range(12)]
    assert p_two_sided(first, second, families) == p_two_sided(second, first, families) <= 1.0


def test_without_an_effect_p_is_seldom_small() -> None:
    rng = np.random.default_rng(3)
    families = [f"{i // 5}" for i in range(50)]
    found = []
    for _ in range(200):
        rate = rng.beta(1, 4, (50, 1))
        found.append(p_gain((rng.random((50, 3)) < rate) * 1.0, (rng.random((50, 10)) < rate) * 1.0, families))
    assert np.mean(np.array(found) <= 0.05) <= 0.09
