"""How often chance gives as large a gain: exact permutation of runs, and a bootstrap of families (PROTOCOL 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np

from unlearnbench.scoring.rates import Reals

MOST_P = 0.05
"""The largest p with which a difference is claimed, beside an interval that excludes 0 (PROTOCOL 3.4)."""
DRAWS = 20_000
"""Bootstrap draws of families, and permutations of runs that are looked at where there are more."""


def p_runs(method: Reals, null: Reals) -> float:
    """One-sided p of mean(method) - mean(null), over all assignments of runs to method and null of the same sizes.

    `method` and `null` hold one score per run. Exact (Fisher 1935; Phipson & Smyth 2010, arXiv 1603.05766) up to
    DRAWS ways, else a sample of them by Philox with key 0 that counts the observed one. Its floor is 1 over the number
    of ways: 1/286 for 3 runs against 10.
    """
    values, size = np.concatenate([method, null]), len(method)
    observed = float(method.mean() - null.mean())
    total, rest = float(values.sum()), len(values) - size
    ways = comb(len(values), size)
    if ways <= DRAWS:
        sums = np.array([values[list(chosen)].sum() for chosen in combinations(range(len(values)), size)])
    else:
        order = np.random.Generator(np.random.Philox(key=0)).random((DRAWS, len(values))).argsort(axis=1)
        sums = np.concatenate([[method.sum()], values[order[:, :size]].sum(axis=1)])
    gains = sums / size - (total - sums) / rest
    return float((gains >= observed - 1e-12).mean())


def p_families(difference: Reals, families: Sequence[str]) -> float:
    """One-sided p that the mean difference of items is above 0, families resampled whole (DRAWS draws, Philox key 0).

    1 where there is one family, since nothing says how families differ.
    """
    names, family = np.unique(np.asarray(families, object), return_inverse=True)
    if len(names) < 2:
        return 1.0
    sums = np.bincount(family, difference, len(names))
    return float((1 + ((_drawn(len(names)) @ sums) <= 1e-12).sum()) / (1 + DRAWS))


@lru_cache(maxsize=8)
def _drawn(families: int) -> Reals:
    """How often each family is drawn, (DRAWS, families): cached by the number of families, since drawing is slow."""
    drawn = np.random.Generator(np.random.Philox(key=0)).multinomial(families, [1 / families] * families, DRAWS)
    return drawn.astype(float)


def p_gain(method: Reals, null: Reals, families: Sequence[str], weights: Reals | None = None) -> float:
    """The larger of both, for items x runs values of a method and a null. `weights` (items,) of mean 1."""
    scale = np.ones(len(method)) if weights is None else weights
    runs = p_runs((method * scale[:, None]).mean(axis=0), (null * scale[:, None]).mean(axis=0))
    return max(runs, p_families(scale * (method.mean(axis=1) - null.mean(axis=1)), families))


def p_two_sided(first: Reals, second: Reals, families: Sequence[str]) -> float:
    """Twice the smaller of both one-sided p-values, at most 1."""
    return min(1.0, 2 * min(p_gain(first, second, families), p_gain(second, first, families)))


def least_p_two_sided(first_runs: int, second_runs: int) -> float:
    """The smallest value that `p_two_sided` can take with these numbers of runs: 0.1 for 3 and 3, 1/35 for 4 and 4."""
    return min(1.0, 2 / comb(first_runs + second_runs, first_runs))
