"""Do two sets of counts come from the same policies? Exact conditional tests, with a stated rate of false alarms.

A *cell* is one problem in one seed; c of n rollouts are claimed to be correct, m of n were found so. If both were drawn
from the same policy then, given k = c + m, c is hypergeometric: P(c) = C(n, c) C(n, k - c) / C(2n, k), whatever the
rate is (Fisher 1935, The Design of Experiments). Two families of tests rest on that alone:

- of each problem, over all seeds: c summed over seeds is a sum of independent hypergeometric counts, whose distribution
  is convolved exactly; two-sided, as Fisher's exact test is.
- of each set of cells (a group or phase in one seed): the total of c (more, or fewer, than the policy gives), and the
  spread q = (c - k/2)^2 / var(c) summed over cells (other items than the policy solves). Their tails are bounded by
  Chernoff's inequality with the exact moment generating functions (1952, Ann. Math. Statist. 23:493), so that p is
  never too small.

Each family is adjusted by Holm's rule to FALSE_ALARM / 2, so that an honest bundle is refused with probability
FALSE_ALARM at most. Where a machine rounds otherwise, claimed and found rollouts come from the same random numbers and
agree in most places: counts are then nearer to one another than independent draws, and the probability is lower.

`draws_agree` answers another question: whether the claimed rollouts were drawn with the random numbers of their seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln, logsumexp

from unlearnbench.leaderboard.ranking import holm
from unlearnbench.scoring.rates import Counts, Reals

FALSE_ALARM = 1e-4
"""Probability that an honest bundle is refused by these tests, at most."""
SIGMAS = 6.0
"""Standard deviations above independent draws that agreement must reach, or half of what full agreement reaches."""
_STEEPEST = 60.0


@dataclass(frozen=True)
class Cells:
    """Claimed and found correct rollouts of each cell, of `n` rollouts each; arrays of shape (cells,)."""

    claimed: Counts
    found: Counts
    n: int
    problem: Counts
    """The place of the cell's problem."""
    part: Counts
    """The place of the set of cells (group or phase, and seed) that it belongs to."""


@dataclass(frozen=True)
class Difference:
    """One test that refuses. `place` is a problem's or a set's; `p` is adjusted for all tests of its family."""

    kind: str
    place: int
    claimed: int
    found: int
    rollouts: int
    p: float


def differences(cells: Cells, false_alarm: float = FALSE_ALARM) -> list[Difference]:
    """What independent draws from the same policies would not give; empty if there is no evidence against them."""
    return [*_of_problems(cells, false_alarm / 2), *_of_parts(cells, false_alarm / 2)]


def _of_problems(cells: Cells, level: float) -> list[Difference]:
    pmf = np.exp(log_pmf(cells.n))
    values = []
    problems = _rows(cells.problem)
    for _, rows in problems:
        total = np.ones(1)
        for k in (cells.claimed[rows] + cells.found[rows]).tolist():
            total = np.convolve(total, pmf[k])
        claimed = int(cells.claimed[rows].sum())
        values.append(min(1.0, float(total[total <= total[claimed] * (1 + 1e-7)].sum())))
    tests = [("problem", place, rows) for place, rows in problems]
    return _refusing(cells, tests, values, level)


def _of_parts(cells: Cells, level: float) -> list[Difference]:
    both = cells.claimed + cells.found
    by_excess, by_spread = excess(cells.n), spread(cells.n)
    tests, values = [], []
    for place, rows in _rows(cells.part):
        k, c = both[rows], cells.claimed[rows]
        tests += [("total", place, rows), ("spread", place, rows)]
        values.append(
            min(1.0, 2 * chernoff(by_excess, k, abs(float(by_excess[k, c].sum()))))
        )  # its distribution is even
        values.append(chernoff(by_spread, k, float(by_spread[k, c].sum())))
    return _refusing(cells, tests, values, level)


def _rows(places: Counts) -> list[tuple[int, Counts]]:
    """Each place that occurs, with the cells that are there."""
    order = np.argsort(places, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(places[order])) + 1)
    return [(int(places[rows[0]]), rows) for rows in parts if len(rows)]


def _refusing(
    cells: Cells, tests: Sequence[tuple[str, int, Counts]], values: Sequence[float], level: float
) -> list[Difference]:
    """The tests of one family whose adjusted p is below a level, the smallest p first."""
    found = []
    for (kind, place, rows), p in zip(tests, holm(values), strict=True):
        if p < level:
            claimed, drawn = (int(counts[rows].sum()) for counts in (cells.claimed, cells.found))
            found.append(Difference(kind, place, claimed, drawn, cells.n * len(rows), p))
    return sorted(found, key=lambda one: one.p)


# --- distributions --------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def log_pmf(n: int) -> Reals:
    """log P(c) given k, shape (2n + 1, n + 1); -inf where c is impossible."""
    k, c = np.arange(2 * n + 1)[:, None], np.arange(n + 1)[None, :]
    possible = (c <= k) & (k - c <= n)
    rest = np.where(possible, k - c, 0)
    found: Reals = np.where(possible, _log_choose(n, c) + _log_choose(n, rest) - _log_choose(2 * n, k), -np.inf)
    return found


def _log_choose(n: int, k: Counts) -> Reals:
    found: Reals = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


def excess(n: int) -> Reals:
    """c - k/2, shape (2n + 1, n + 1)."""
    return np.arange(n + 1)[None, :] - np.arange(2 * n + 1)[:, None] / 2


def spread(n: int) -> Reals:
    """(c - k/2)^2 over the variance of c given k, shape (2n + 1, n + 1); 0 where c is certain."""
    k = np.arange(2 * n + 1)[:, None]
    variance = k * (2 * n - k) / (4 * max(2 * n - 1, 1))
    found: Reals = np.divide(excess(n) ** 2, variance, out=np.zeros((2 * n + 1, n + 1)), where=variance > 0)
    return found


def chernoff(score: Reals, k: Counts, seen: float) -> float:
    """A bound on P(sum of the cells' scores >= seen), given each k: the least E[exp(t (sum - seen))] of all t > 0."""
    sizes, times = np.unique(k, return_counts=True)
    scores, log_p = score[sizes], log_pmf((score.shape[0] - 1) // 2)[sizes]
    if seen <= float(times @ (np.exp(log_p) * scores).sum(axis=1)):
        return 1.0
    least = minimize_scalar(
        lambda t: float(times @ logsumexp(log_p + t * scores, axis=1)) - t * seen,
        bounds=(0, _STEEPEST),
        method="bounded",
    )
    return min(1.0, math.exp(min(0.0, float(least.fun))))


# --- random numbers -------------------------------------------------------------------------------------------


def draws_agree(claimed: Counts, found: Counts) -> bool | None:
    """Whether rollouts agree, sample by sample, as those that are drawn with the same random numbers do.

    `claimed` and `found` are codes of texts, shape (cells, samples). Under independent draws every order of a cell's
    texts is equally likely, whatever the policies are: the number of agreeing samples then has the mean S / n and the
    variance of a sum over a random permutation (Hoeffding 1951, Ann. Math. Statist. 22:558). None where the texts are
    so few that even full agreement would show nothing.
    """
    n = claimed.shape[1]
    total = mean = variance = 0.0
    for one, other in zip(claimed, found, strict=True):
        _, codes = np.unique(np.concatenate([one, other]), return_inverse=True)
        a, b = (np.bincount(part, minlength=codes.max() + 1).astype(float) for part in np.split(codes.reshape(-1), 2))
        s = float(a @ b)
        total += float((one == other).sum())
        mean += s / n
        variance += (s - float(a @ b**2) / n - float(b @ a**2) / n + s**2 / n**2) / max(n - 1, 1)
    if variance <= 0:
        return None
    possible, reached = (value / math.sqrt(variance) for value in (claimed.size - mean, total - mean))
    return None if possible < SIGMAS else reached >= min(SIGMAS, possible / 2)
