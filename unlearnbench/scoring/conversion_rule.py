"""The rule: which items count as converted or lost, and how that varies with the runs it was seen in.

PROTOCOL 3.3 and 3.4, on integers (n, correct) only. Nothing here is random but the bootstrap over more than 5 runs
(`_replicated_runs`) and very many subsets of runs (`_subsets`), whose keys are fixed.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations, combinations_with_replacement

import numpy as np

from unlearnbench.scoring.counts import MIN_SAMPLES, Cells
from unlearnbench.scoring.intervals import Arm
from unlearnbench.scoring.rates import Counts, Flags, Reals, is_above, is_below, least_above

MOST_SUBSETS = 5000
"""Subsets of a control's runs that are looked at: all of 10 choose 3 (120), a sample of 20 choose 10 (184,756)."""


def two_thirds(runs: int) -> int:
    """The fewest runs that make two thirds of them."""
    return (2 * runs + 2) // 3


def converted(cells: Cells, tau: float) -> Flags:
    """PROTOCOL 3.3: pooled rate at least 0.25, and lower limit above tau in at least two thirds of the runs."""
    weights = np.ones((1, cells.runs), np.int64)
    hit: Flags = _converted(cells, is_above(cells.correct, cells.n, tau), weights)[0]
    return hit


def lost(cells: Cells, tau: float) -> Flags:
    """Upper limit below tau in at least two thirds of the runs."""
    below: Flags = is_below(cells.correct, cells.n, tau).sum(axis=1) >= two_thirds(cells.runs)
    return below


def conversion_arm(cells: Cells, tau: float, size: int) -> Arm:
    """Converted share of each item, and how it varies with the runs, for runs drawn `size` at a time.

    With exactly `size` runs the values are 0 or 1. How they vary comes from bootstrap samples of the runs: the part
    that is linear in how often each run was drawn (infinitesimal jackknife; Efron 2014, JASA 109:991, theorem 1),
    times size / (size - 1), which undoes the bootstrap's shrinkage. The bootstrap's whole variance is too large, up to
    three times in simulation: a run drawn twice is likelier to convert an item by chance than two runs are.
    With more, values are means over subsets of `size` runs (a U-statistic; Hoeffding 1948), and the variance is the
    jackknife's over runs (Arvesen 1969, Ann. Math. Stat. 40:2076). See `_subsets` for how many.
    """
    above, runs = is_above(cells.correct, cells.n, tau), cells.runs
    if runs == size:
        weights, chances = _replicated_runs(runs)
        replicates = _converted(cells, above, weights).astype(float)
        apart = chances[:, None] * (weights - chances @ weights)
        deviations = math.sqrt(runs / max(runs - 1, 1)) * (apart.T @ replicates)
        return Arm(converted(cells, tau).astype(float), deviations, runs - 1)
    subsets = _subsets(runs, size)
    replicates = _converted(cells, above, subsets).astype(float)
    left_out = (1 - subsets).T.astype(float)
    without = left_out @ replicates / left_out.sum(axis=1, keepdims=True)
    deviations = math.sqrt((runs - 1) / runs) * (without - without.mean(axis=0))
    return Arm(replicates.mean(axis=0), deviations, runs - 1)


def rate_arm(cells: Cells) -> Arm:
    """Rate of each problem, and how it varies with the runs (the variance of a mean over runs)."""
    rates = cells.correct / np.maximum(cells.n, 1)
    scale = math.sqrt(max(cells.runs * (cells.runs - 1), 1))
    deviations = (rates - rates.mean(axis=1, keepdims=True)).T / scale
    return Arm(cells.rates, deviations, cells.runs - 1)


def rule_sentence(samples: int, seeds: int, tau: float) -> str:
    """What counts as converted, with the threshold computed."""
    if samples < MIN_SAMPLES:
        return f"Converted is undefined with fewer than {MIN_SAMPLES} samples an item and seed (here {samples})."
    return (
        f"Converted: at least 25 % correct over all seeds, and at least {least_above(samples, tau)} of {samples} "
        f"correct (one-sided 95 % Clopper-Pearson lower limit above {tau:g}) in at least {two_thirds(seeds)} of "
        f"{seeds} seeds."
    )


def _converted(cells: Cells, above: Flags, weights: Counts) -> Flags:
    """The rule with each run counted `weights` times, shape (weightings, items).

    Integers only, held as floats (exact below 2**53) because their matrix products are many times quicker.
    """
    times = weights.astype(float)
    pooled: Flags = 4 * (times @ cells.correct.T.astype(float)) >= np.maximum(times @ cells.n.T.astype(float), 1)
    often: Flags = times @ above.T.astype(float) >= two_thirds(int(weights[0].sum()))
    return pooled & often


@lru_cache(maxsize=32)
def _subsets(runs: int, size: int) -> Counts:
    """Subsets of `size` runs as rows of zeros and ones: all, or where they are many, `MOST_SUBSETS` of them by chance.

    Drawn by Philox with key 0, each run left out of at least one.
    """
    if math.comb(runs, size) <= MOST_SUBSETS:
        rows = np.array(list(combinations(range(runs), size)))
    else:
        rows = np.random.Generator(np.random.Philox(key=0)).random((MOST_SUBSETS, runs)).argsort(axis=1)[:, :size]
    subsets = np.zeros((len(rows), runs), np.int64)
    np.put_along_axis(subsets, rows, 1, axis=1)
    return subsets


@lru_cache(maxsize=32)
def _replicated_runs(runs: int) -> tuple[Counts, Reals]:
    """Bootstrap samples of the runs, as how often each is drawn, and their chances.

    All of them up to 5 runs (126 rows); beyond, 500 drawn by Philox with key 0.
    """
    if runs <= 5:
        draws = np.array(list(combinations_with_replacement(range(runs), runs)))
    else:
        draws = np.random.Generator(np.random.Philox(key=0)).integers(0, runs, (500, runs))
    weights = (draws[:, :, None] == np.arange(runs)).sum(axis=1)
    if runs > 5:
        return weights, np.full(len(weights), 1 / len(weights))
    ways = [math.factorial(runs) / math.prod(map(math.factorial, row)) for row in weights.tolist()]
    return weights, np.array(ways) / runs**runs
