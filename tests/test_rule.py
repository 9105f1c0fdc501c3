"""Solved, converted, memorised, lost (PROTOCOL 3.3) against the sentence itself, and shares against their variance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnbench.scoring.conversion_rule import converted, lost, memorised, rate_arm, rule_sentence, share_arm, solved
from unlearnbench.scoring.counts import Cells

TAU = 0.1


def cells(correct: list[list[int]], n: int = 32) -> Cells:
    counts = np.array(correct, np.int64)
    return Cells(counts, np.full_like(counts, n))


def solved_by_hand(correct: int, n: int) -> bool:
    """A quarter correct, and so many would come up in fewer than 5 % of draws at rate tau (Clopper and Pearson)."""
    return correct / n >= 0.25 and stats.binom.sf(correct - 1, n, TAU) < 0.05


@given(st.integers(32, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_solved_is_the_protocols_sentence(drawn: tuple[int, int]) -> None:
    n, correct = drawn
    assert solved(cells([[correct]], n), TAU).tolist() == [[solved_by_hand(correct, n)]]


@pytest.mark.parametrize(("least", "n"), [(8, 32), (16, 64), (32, 128), (11, 44), (9, 33)])
def test_the_protocols_thresholds(least: int, n: int) -> None:
    assert solved(cells([[least - 1, least]], n), TAU).tolist() == [[False, True]]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_a_solved_item_is_converted_or_memorised_by_its_probe_in_the_same_run(
    drawn: list[tuple[bool, bool, bool]],
) -> None:
    item, probe, has = (np.array(column, bool) for column in zip(*drawn, strict=True))
    two = np.stack([item, ~item], axis=1), np.stack([probe, probe], axis=1)
    learned, memory = converted(*two, has), memorised(*two, has)
    for row, (hit, probe_hit, has_probe) in enumerate(drawn):
        assert learned[row].tolist() == [hit and probe_hit and has_probe, (not hit) and probe_hit and has_probe]
        assert memory[row].tolist() == [
            hit and not probe_hit and has_probe,
            (not hit) and not probe_hit and has_probe,
        ]


def test_an_item_and_its_probe_in_different_runs_is_no_conversion() -> None:
    item, probe = np.array([[True, False, True]]), np.array([[False, True, True]])
    assert converted(item, probe, np.array([True])).mean() == pytest.approx(1 / 3)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_lost_means_an_upper_limit_below_tau(drawn: tuple[int, int]) -> None:
    n, correct = drawn
    assert lost(cells([[correct]], n), TAU).tolist() == [[stats.binom.cdf(correct, n, TAU) < 0.05 and correct < n]]


@given(st.integers(2, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_a_share_is_linear_in_seeds_so_any_number_of_them_means_the_same(runs: int, items: int, key: int) -> None:
    hits = np.random.default_rng(key).random((items, runs)) < 0.4
    by_run = [float(share_arm(hits[:, [run]]).values.mean()) for run in range(runs)]
    arm = share_arm(hits)
    assert arm.values.mean() == pytest.approx(np.mean(by_run))
    assert (arm.deviations.mean(axis=1) ** 2).sum() == pytest.approx(np.var(by_run, ddof=1) / runs)


def test_weights_make_a_weighted_mean() -> None:
    hits, weights = np.array([[True, True], [False, True]]), np.array([0.5, 1.5])
    assert share_arm(hits, weights).values.mean() == pytest.approx((0.5 * 1 + 1.5 * 0.5) / 2)


def test_variance_of_a_rate_over_runs_is_that_of_a_mean() -> None:
    arm = rate_arm(cells([[0, 8, 16]]))
    assert arm.values.tolist() == [0.25]
    assert (arm.deviations**2).sum() == pytest.approx(np.var([0, 0.25, 0.5], ddof=1) / 3)


def test_the_rule_in_a_sentence() -> None:
    assert rule_sentence(32, TAU, 10, 10) == (
        "Solved, in one seed: at least 8 of 32 rollouts correct. Converted: solved, and so is the item's probe, a "
        "held-out problem of the same skill with other numbers, in the same seed. Shares are means over seeds."
    )
    assert "16 of 64" in rule_sentence(64, TAU, 10, 10)
    assert "(3 of 10 items have no probe, and never convert)" in rule_sentence(32, TAU, 10, 7)
    assert "Whether an item was learned or memorised was not measured" in rule_sentence(32, TAU, 10, 0)
    assert "undefined" in rule_sentence(8, TAU, 10, 10)
