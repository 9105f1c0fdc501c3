"""The tests that hold claimed counts against measured ones: exact, with the false alarms that they state."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from slow_parameters import but_first_slow

from unlearnbench.leaderboard.verification.count_tests import (
    FALSE_ALARM,
    Cells,
    chernoff,
    differences,
    draws_agree,
    excess,
    log_pmf,
    spread,
)

N = 32


def cells(claimed: np.ndarray, found: np.ndarray, seeds: int, parts: int = 4) -> Cells:
    problems = len(claimed) // seeds
    problem = np.repeat(np.arange(problems), seeds)
    return Cells(claimed, found, N, problem, np.tile(np.arange(seeds), problems) * parts + problem % parts)


def drawn(rates: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).binomial(N, rates)


RATES = np.repeat(np.random.default_rng(0).choice([0.0, 0.03, 0.2, 0.5, 0.9, 1.0], 400), 3)


@given(st.integers(1, 40), st.data())
def test_the_distribution_given_the_total_is_hypergeometric(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, 2 * n))
    c = np.arange(n + 1)
    assert np.exp(log_pmf(n)[k]) == pytest.approx(stats.hypergeom(2 * n, k, n).pmf(c), abs=1e-12)


@pytest.mark.parametrize(("claimed", "found"), [(9, 1), (15, 2), (3, 3), (32, 0), (0, 0), (20, 31)])
def test_one_problem_in_one_seed_is_fishers_exact_test(claimed: int, found: int) -> None:
    one = Cells(np.array([claimed]), np.array([found]), N, np.array([0]), np.array([0]))
    p = stats.fisher_exact([[claimed, N - claimed], [found, N - found]]).pvalue
    told = [row.p for row in differences(one) if row.kind == "problem"]
    assert told == ([pytest.approx(p, rel=1e-6)] if p < FALSE_ALARM / 2 else [])


def test_a_problem_over_several_seeds_is_the_convolution_of_them() -> None:
    claimed, found = np.array([10, 12, 14]), np.array([1, 0, 2])
    draw = np.random.default_rng(0)
    simulated = sum(draw.hypergeometric(k, 2 * N - k, N, 200_000) for k in (claimed + found).tolist())
    often = np.mean(simulated >= 34)  # exact p is about 1e-9: what can be simulated is a nearer total
    pmf = np.ones(1)
    for k in (claimed + found).tolist():
        pmf = np.convolve(pmf, np.exp(log_pmf(N)[k]))
    assert pmf[34:].sum() < 1e-7 and often < 1e-4
    assert pmf[24:].sum() == pytest.approx(float(np.mean(simulated >= 24)), abs=0.004)
    row = differences(Cells(claimed, found, N, np.zeros(3, int), np.zeros(3, int)))[0]
    assert (row.kind, row.claimed, row.found, row.rollouts) == ("problem", 36, 3, 96)


@pytest.mark.parametrize("score", [excess, spread])
def test_the_bound_is_never_below_the_probability(score: object) -> None:
    table = score(N)  # type: ignore[operator]
    draw = np.random.default_rng(1)
    k = draw.integers(0, 2 * N + 1, 60)
    sums = np.zeros(100_000)
    for one in k.tolist():
        sums += table[one, draw.hypergeometric(one, 2 * N - one, N, len(sums))]
    for quantile in (0.5, 0.9, 0.99, 0.999):
        seen = float(np.quantile(sums, quantile))
        bound, real = chernoff(table, k, seen), float(np.mean(sums >= seen))
        assert real <= bound * 1.05 + 1e-4
        assert bound < 60 * real  # and it is not much above it
    assert chernoff(table, k, float(table[k, np.minimum(k, N)].sum()) + 1e6) == 0.0


@pytest.mark.parametrize("seeds", but_first_slow([range(100, 180), range(400)]), ids=len)
def test_honest_counts_are_refused_no_more_often_than_is_stated(seeds: range) -> None:
    """At a level that can be counted: of many honest bundles as many tests refuse as chance allows."""
    refused = 0
    for seed in seeds:
        rates = RATES[:300]
        one = cells(drawn(rates, 2 * seed), drawn(rates, 2 * seed + 1), 3)
        refused += bool(differences(one, false_alarm=0.05))
    assert stats.binomtest(refused, len(seeds), 0.05, "greater").pvalue > 0.001
    assert refused > 0  # the tests are exact, not empty


def test_equal_and_independent_draws_pass_and_other_policies_do_not() -> None:
    first, again = drawn(RATES, 1), drawn(RATES, 2)
    assert differences(cells(first, first, 3)) == [] == differences(cells(first, again, 3))
    # a few points more in every problem: no single one shows it, their sum does
    more = drawn(np.clip(RATES + 0.04, 0, 1), 3)
    assert {row.kind for row in differences(cells(more, again, 3))} <= {"total", "spread"}
    assert differences(cells(more, again, 3))
    # the same rates among other problems: sums are equal, and what is solved is not
    order = np.random.default_rng(4).permutation(len(RATES))
    part = Cells(drawn(RATES[order], 5), again, N, np.arange(len(RATES)), np.zeros(len(RATES), int))
    assert "spread" in {row.kind for row in differences(part)}
    # 9 to 15 right of every problem that a policy never solves
    few = np.random.default_rng(6).integers(9, 16, 300)
    assert sum(row.kind == "problem" for row in differences(cells(few, drawn(np.full(300, 0.02), 7), 3))) == 100


def test_agreement_tells_the_same_random_numbers_from_others() -> None:
    draw = np.random.default_rng(0)
    texts = draw.integers(0, 6, (300, N))
    other = draw.integers(0, 6, (300, N))
    assert draws_agree(texts, texts) is True and draws_agree(texts, other) is False
    rounded = np.where(draw.random(texts.shape) < 0.1, other, texts)  # another machine
    assert draws_agree(texts, rounded) is True
    shuffled = np.array([draw.permutation(row) for row in texts])
    assert draws_agree(texts, shuffled) is False
    assert draws_agree(np.zeros_like(texts), np.zeros_like(texts)) is None  # one text each: nothing to tell by


def test_the_moments_of_agreement_are_those_of_a_random_order() -> None:
    draw = np.random.default_rng(3)
    one, other = draw.integers(0, 3, 8), draw.integers(0, 4, 8)
    seen = np.array([np.sum(one == draw.permutation(other)) for _ in range(40_000)])
    a, b = np.bincount(one, minlength=4), np.bincount(other, minlength=4)
    s, n = float(a @ b), 8
    variance = (s - float(a @ b**2) / n - float(b @ a**2) / n + s**2 / n**2) / (n - 1)
    assert seen.mean() == pytest.approx(s / n, abs=0.03)
    assert seen.std() == pytest.approx(math.sqrt(variance), rel=0.03)
