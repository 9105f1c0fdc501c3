"""Success rates as pairs of integers (correct, n): confidence limits, thresholds on `correct`, and pass@k."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from unlearnbench.records import Interval

Reals = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]
Z = float(special.ndtri(0.975))
"""The normal's quantile of a two-sided 95 % interval."""


def lower_limit(correct: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> Reals:
    """One-sided lower limit of a binomial rate (Clopper & Pearson 1934, Biometrika 26:404, in its beta form).

    The rate at which `correct` or more of n would come up with probability 1 - confidence; 0 where correct is 0.
    """
    c, total = _broadcast(correct, n)
    return np.where(c > 0, special.betaincinv(np.maximum(c, 1), total - c + 1, 1 - confidence), 0.0)


def upper_limit(correct: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> Reals:
    """One-sided upper limit (Clopper & Pearson 1934); 1 where every one of n is correct, and for n = 0."""
    c, total = _broadcast(correct, n)
    return np.where(c < total, special.betaincinv(c + 1, np.maximum(total - c, 1), confidence), 1.0)


def clopper_pearson(correct: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[Reals, Reals]:
    """Two-sided exact interval: both one-sided limits at confidence (1 + level) / 2."""
    confidence = (1 + level) / 2
    return lower_limit(correct, n, confidence), upper_limit(correct, n, confidence)


@lru_cache(maxsize=4096)
def least_above(n: int, tau: float) -> int:
    """Smallest `correct` of n whose one-sided 95 % lower limit is above tau; n + 1 if there is none.

    The limit of c is above tau exactly if P(X >= c | n, tau) < 0.05, which needs no inverse. At tau = 0.1: 7 of 32,
    12 of 64, 20 of 128.
    """
    c = np.arange(1, n + 1)
    reached = c[special.betainc(c, n - c + 1, tau) < 0.05]
    return int(reached[0]) if reached.size else n + 1


@lru_cache(maxsize=4096)
def most_below(n: int, tau: float) -> int:
    """Largest `correct` of n whose one-sided 95 % upper limit is below tau; -1 if there is none.

    The limit of c is below tau exactly if P(X <= c | n, tau) < 0.05. 28 of 384 at tau = 0.1.
    """
    c = np.arange(0, n)
    reached = c[special.betaincc(c + 1, n - c, tau) < 0.05]
    return int(reached[-1]) if reached.size else -1


def is_above(correct: ArrayLike, n: ArrayLike, tau: float) -> Flags:
    """Whether the one-sided 95 % lower limit is above tau."""
    c, total = _broadcast(correct, n)
    sizes, place = np.unique(total, return_inverse=True)
    return c >= np.array([least_above(int(size), tau) for size in sizes], np.int64)[place].reshape(c.shape)


def is_below(correct: ArrayLike, n: ArrayLike, tau: float) -> Flags:
    """Whether the one-sided 95 % upper limit is below tau."""
    c, total = _broadcast(correct, n)
    sizes, place = np.unique(total, return_inverse=True)
    return c <= np.array([most_below(int(size), tau) for size in sizes], np.int64)[place].reshape(c.shape)


def wilson(rate: float, n: float, quantile: float | None = None) -> Interval:
    """Score interval of a binomial rate (Wilson 1927, JASA 22:209; Newcombe 1998a, method 3). 95 % by default.

    n may be an effective number of independent trials, and `quantile` Student's (Dean & Pagano 2015, J. Survey
    Statistics and Methodology 3:484, on clustered samples).
    """
    z = Z if quantile is None else quantile
    a = z * z / n
    centre, half = rate + a / 2, float(np.sqrt(rate * (1 - rate) * a + a * a / 4))
    return max(0.0, (centre - half) / (1 + a)), min(1.0, (centre + half) / (1 + a))


def mover(first: float, first_limits: Interval, second: float, second_limits: Interval, r: float) -> Interval:
    """Limits of first - second from the limits of each and the correlation r of the two estimates.

    Zou & Donner 2008, Statistics in Medicine 27:1693, eq. 9 and 10 with correlation; with Wilson limits it is the
    form of Newcombe's method 10.
    """
    down1, up1 = first - first_limits[0], first_limits[1] - first
    down2, up2 = second - second_limits[0], second_limits[1] - second
    low = np.sqrt(max(down1**2 - 2 * r * down1 * up2 + up2**2, 0.0))
    high = np.sqrt(max(up1**2 - 2 * r * up1 * down2 + down2**2, 0.0))
    gain = first - second
    return max(-1.0, gain - float(low)), min(1.0, gain + float(high))


def paired_correlation(both: float, only_first: float, only_second: float, neither: float) -> float:
    """phi of a paired 2 x 2 table with Newcombe's continuity correction (1998b, method 10); 0 if a margin is 0."""
    product = both * neither - only_first * only_second
    if product > 0:
        product = max(product - (both + only_first + only_second + neither) / 2, 0.0)
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    return float(product / np.sqrt(margins)) if margins > 0 else 0.0


def newcombe_paired(both: float, only_first: float, only_second: float, neither: float) -> Interval:
    """95 % score interval for a difference of paired proportions, first minus second.

    Newcombe 1998b, Statistics in Medicine 17:2635, method 10. Cells may be fractional (expected counts).
    """
    n = both + only_first + only_second + neither
    first, second = (both + only_first) / n, (both + only_second) / n
    phi = paired_correlation(both, only_first, only_second, neither)
    return mover(first, wilson(first, n), second, wilson(second, n), phi)


def pass_at_k(correct: ArrayLike, n: ArrayLike, k: int) -> Reals:
    """Unbiased probability that one of k samples is correct: 1 - C(n - c, k) / C(n, k).

    Chen et al. 2021, arXiv 2107.03374, eq. 1, in its stable product form; exact zeros and ones. NaN where n < k.
    """
    c, total = _broadcast(correct, n)
    result = np.full(c.shape, np.nan)
    for size in np.unique(total[total >= k]):
        all_wrong = np.concatenate([[1.0], np.cumprod(np.maximum(1 - k / (size - np.arange(size)), 0.0))])
        here = total == size
        result[here] = 1 - all_wrong[c[here]]
    return result


def _broadcast(correct: ArrayLike, n: ArrayLike) -> tuple[Counts, Counts]:
    c, total = np.broadcast_arrays(np.asarray(correct, np.int64), np.asarray(n, np.int64))
    return c, total
