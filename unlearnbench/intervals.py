"""How sure a score is: 95 % intervals for what items that come in families did in a few training runs.

A mean over items has three sources of chance. *Items* differ within their family. *Families* move together, so
items are not independent. *Runs* (seeds) differ, partly in step for all items, partly family by family. Variances
of the three are estimated apart and added:

- items within families: the stratified variance of the mean; families: the variance of a ratio of cluster sums
  (Cochran 1977, Sampling Techniques, ch. 5 and 11), which already holds what runs do family by family;
- runs: from replicates of the score with some runs left out or repeated (`Arm`). Their sum over items is split
  into a part common to all families, a part of each family's own, and the items' own part, which the variance
  between items holds already.

Degrees of freedom follow Welch and Satterthwaite (1946, Biometrics Bulletin 2:110), so that 3 seeds that differ
cost a wide interval. Limits of a rate are Wilson's at the effective number of items, p (1 - p) / variance, with
Student's quantile (Dean & Pagano 2015); two arms join by MOVER with the correlation of their items
(`rates.mover`). Where fewer than 5 items are discordant, the item part is that of Newcombe's paired score interval
exactly. tests/test_intervals.py simulates the coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unlearnbench.rates import Counts, Reals, mover, paired_correlation, wilson
from unlearnbench.records import Interval

FEW_DISCORDANT = 5
Component = tuple[float, float]
"""A variance, and the square of a variance over its degrees of freedom (Satterthwaite's denominator)."""


@dataclass(frozen=True)
class Arm:
    """What one arm did on each item, and how that varies with its runs.

    `deviations` has one row a replicate, scaled so that the variance over runs of any weighted sum over items is
    the sum over rows of its square. `freedom` is the number of runs less one.
    """

    values: Reals
    deviations: Reals
    freedom: int


def gain_intervals(method: Arm, null: Arm, families: Sequence[str]) -> tuple[Interval | None, Interval | None]:
    """Intervals of mean(method) - mean(null), items paired: for these families, and beyond them.

    `values` lie in [0, 1]. None where it cannot be estimated: one run in an arm, or one family for the second.
    """
    if not method.freedom or not null.freedom or not len(method.values):
        return None, None
    family = np.unique(np.asarray(families, object), return_inverse=True)[1]
    beyond = _gain_interval(method, null, family, beyond=True) if family.max() else None
    return _gain_interval(method, null, family, beyond=False), beyond


def rate_interval(arm: Arm, families: Sequence[str], trials: float) -> Interval | None:
    """Interval of the mean of one arm's values, beyond these families; `trials` caps the effective number.

    None where it cannot be estimated: one run, or one family.
    """
    family = np.unique(np.asarray(families, object), return_inverse=True)[1]
    if not arm.freedom or not len(arm.values) or not family.max():
        return None
    mean, items = float(arm.values.mean()), len(arm.values)
    between = _between(arm.values[:, None], family)[0, 0]
    common, _ = _run_components(arm, family, family)
    together = _together(arm.values, family, between)
    variance = between * together[0] + common[0]
    quantile = _quantile([(between, between**2 / family.max()), common], between + common[0])
    most = trials if 0 < mean < 1 else items / together[1]
    return wilson(mean, _effective(mean, variance, most), quantile)


def mean_interval(
    values: Reals,
    units: Sequence[str],
    families: Sequence[str],
    arms: Sequence[Arm],
    *,
    beyond: bool,
    rollouts: float,
) -> Interval | None:
    """Student's interval of the mean of `values` (differences between arms, one entry a problem).

    Problems of one unit (the twins of an item) move together. `arms` give the part of the runs. A unit's rate is
    taken to be uncertain by half a rollout of its `rollouts` at least, so that the interval never has width 0. None
    where it cannot be estimated: one run in an arm, one family (beyond), or one unit.
    """
    unit = np.unique(np.asarray(units, object), return_inverse=True)[1]
    family = np.unique(np.asarray(families, object), return_inverse=True)[1]
    freedom = family.max(initial=0) if beyond else unit.max(initial=0)
    if not freedom or not all(arm.freedom for arm in arms):
        return None
    column = values[:, None]
    spread = float((_between(column, family) if beyond else _within(column, unit, family))[0, 0])
    spread = max(spread, 0.25 / rollouts**2 / (unit.max() + 1))
    parts = [(spread, spread**2 / freedom)]
    for arm in arms:
        common, own = _run_components(arm, unit, family)
        parts += [common] if beyond else [common, own]
    variance = sum(part for part, _ in parts)
    half = _quantile(parts, variance) * float(np.sqrt(variance))
    mean = float(values.mean())
    return max(-1.0, mean - half), min(1.0, mean + half)


def _gain_interval(method: Arm, null: Arm, family: Counts, *, beyond: bool) -> Interval:
    both = np.stack([method.values, null.values], axis=1)
    items, means = len(both), both.mean(axis=0)
    cells = (
        float(method.values @ null.values),
        float(method.values @ (1 - null.values)),
        float((1 - method.values) @ null.values),
        float((1 - method.values) @ (1 - null.values)),
    )
    few = cells[1] + cells[2] < FEW_DISCORDANT
    if few:
        single = np.sqrt(means * (1 - means) / items)
        spread = np.outer(single, single) * paired_correlation(*cells)
        np.fill_diagonal(spread, single**2)
    else:
        spread = _between(both, family) if beyond else _within(both, np.arange(items), family)
    together = 1.0
    if beyond:
        factor, together = _together(method.values, family, float(spread[0, 0]))
        spread *= np.sqrt(np.outer([factor, 1], [factor, 1]))
    difference = float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    freedom = float(family.max() if beyond else np.inf if few else max(items - family.max() - 1, 1))
    parts = [(difference, difference**2 / freedom)]
    variances = [float(spread[0, 0]), float(spread[1, 1])]
    for index, arm in enumerate((method, null)):
        common, own = _run_components(arm, np.arange(items), family)
        for part in [common] if beyond else [common, own]:
            variances[index] += part[0]
            parts.append(part)
    quantile = _quantile(parts, variances[0] + variances[1] - 2 * float(spread[0, 1]))
    limits = []
    for mean, variance, design in zip(means, variances, (together, 1.0), strict=True):
        most = items / design if mean in (0, 1) else items if beyond or few else 4 * items
        limits.append(wilson(float(mean), _effective(float(mean), variance, most), quantile))
    scale = float(np.sqrt(variances[0] * variances[1]))
    r = float(np.clip(spread[0, 1] / scale, -1, 1)) if scale > 0 else 0.0
    return mover(float(means[0]), limits[0], float(means[1]), limits[1], r)


def _between(values: Reals, family: Counts) -> Reals:
    """Covariance of the means, families resampled whole (ratio estimator: families differ in size)."""
    families = int(family.max()) + 1
    sums = _sum_by(family, (values - values.mean(axis=0)) / len(values))
    return families / (families - 1) * sums.T @ sums


def _within(values: Reals, unit: Counts, family: Counts) -> Reals:
    """Covariance of the means, units resampled within families.

    The only unit of its family is compared with the mean of all, which errs on the wide side.
    """
    sizes = np.bincount(family)
    units = np.bincount(family[np.unique(unit, return_index=True)[1]], minlength=len(sizes))
    centre = np.where((units > 1)[:, None], _sum_by(family, values) / sizes[:, None], values.mean(axis=0))
    weight = np.sqrt(np.where(units > 1, units / np.maximum(units - 1, 1), 1.0))
    sums = _sum_by(unit, weight[family][:, None] * (values - centre[family]) / len(values))
    return sums.T @ sums


def _run_components(arm: Arm, unit: Counts, family: Counts) -> tuple[Component, Component]:
    """Variance over runs of the mean: the part common to all families, and the families' own (units' own removed).

    The common part is a small difference of two estimates, the first from a few runs only; its degrees of freedom
    are lowered accordingly (geometric mean of it and what it was taken from).
    """
    moved = arm.deviations.T / len(arm.values)
    by_unit, by_family = _sum_by(unit, moved), _sum_by(family, moved)
    own_unit = float((by_unit**2).sum())
    each = (by_family**2).sum(axis=1)
    own_family, total = float(each.sum()), float((by_family.sum(axis=0) ** 2).sum())
    common, own = max(total - own_family, 0.0), max(own_family - own_unit, 0.0)
    effective = own_family**2 / float((each**2).sum()) if own_family > 0 else 1.0
    return (
        (common, common * max(total, own_family) / arm.freedom),
        (own, own**2 / (arm.freedom * max(effective, 1.0))),
    )


def _together(values: Reals, family: Counts, between: float) -> tuple[float, float]:
    """(factor on the variance between families, design effect), for values of which few are above 0.

    A design effect estimated from converted items in few families is too small: it is averaged with that of
    families which move as one (sum of squared sizes / items; Kish 1965, Survey Sampling, 5.4), which counts as one
    family beside the effective number of families that the values come from.
    """
    mean, items = float(values.mean()), len(values)
    whole = float((np.bincount(family).astype(float) ** 2).sum()) / items
    sums = np.bincount(family, values)
    squares = float((sums**2).sum())
    seen = min(float(sums.sum()) ** 2 / squares, float(sums.sum())) if squares > 0 else 0.0
    single = mean * (1 - mean) / items
    estimated = between / single if single > 0 else 1.0
    design = (seen * estimated + whole) / (seen + 1)
    return (max(design / estimated, 1.0) if estimated > 0 else 1.0), max(design, 1.0)


def _quantile(parts: Sequence[Component], variance: float) -> float:
    """Student's 97.5 % quantile at Satterthwaite's degrees of freedom, at least one."""
    denominator = sum(share for _, share in parts)
    if denominator <= 0 or variance <= 0:
        return float(stats.norm.ppf(0.975))
    return float(stats.t.ppf(0.975, max(variance**2 / denominator, 1.0)))


def _effective(mean: float, variance: float, most: float) -> float:
    """Independent trials that would give this variance, between 1 and `most`."""
    if variance <= 0 or not 0 < mean < 1:
        return most
    return min(max(mean * (1 - mean) / variance, 1.0), most)


def _sum_by(index: NDArray[np.int64], values: Reals) -> Reals:
    """Sums of the rows of `values` that share an index, shape (indices, columns)."""
    sums = np.zeros((int(index.max()) + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums
