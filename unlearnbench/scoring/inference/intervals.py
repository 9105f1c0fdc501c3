"""95 % intervals of a score, from items that come in families and a few training runs.

A mean over items has three sources of chance. *Items* differ within their family. *Families* move together, so
items are not independent. *Runs* (seeds) differ, partly in step for all items, partly family by family. Variances
of the three are estimated apart and added:

- items within families: the stratified variance of the mean; families: the variance of a ratio of cluster sums
  (Cochran 1977, Sampling Techniques, ch. 5 and 11), which already holds what runs do family by family;
- runs: from what the score owes to each run (`Arm`). Products of two items' parts estimate what runs do to both, so
  the sum over items is split into a part common to all families, a part of each family's own, and the items' own
  part, which the variance between items holds already.

Each part has degrees of freedom of its own, 2 for what three seeds have in common. Its variance counts with a squared
quantile that goes from the normal's to Student's as its share of the whole grows (`_squared`), so that 3 seeds that
differ cost a wide interval, and a small part with few degrees of freedom does not. Limits of a rate are Wilson's at
the effective number of items (Dean & Pagano 2015); two arms join by MOVER with the correlation of their items
(`rates.mover`). Where fewer than 5 items are discordant, the item part is that of Newcombe's paired score interval
exactly. docs/reference/statistics.md says what the intervals claim, and how often simulated ones contain the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from unlearnbench.records import Interval
from unlearnbench.scoring.rates import Counts, Reals, Z, mover, paired_correlation, wilson

TwinVerdict = Literal["generalised", "partly", "memorised", "undecided"]
LEVEL = 0.95
FEW_DISCORDANT = 5
WHOLE_FAMILIES = 0.75
"""The allowance for families that move as one, in independent conversions (`_together`). Tuned in simulation."""
COMMON_FLOOR = 0.25
"""The variance common to all families is taken to be at least this share of the variance family by family, since three
runs may agree by chance. Applied for these families only; beyond them it is negligible. Tuned in simulation."""


class Part(NamedTuple):
    """One source of chance: its variance, and the degrees of freedom from which that was estimated."""

    variance: float
    freedom: float


@dataclass(frozen=True)
class Arm:
    """The values of the items in one arm (method or null), (items,), and how they vary over its runs.

    `deviations` (runs, items) is scaled so that the variance of any weighted sum over items is the sum over rows of
    its square. `freedom` is the number of runs less one.
    """

    values: Reals
    deviations: Reals
    freedom: int


def gain_intervals(
    method: Arm, null: Arm, families: Sequence[str], level: float = LEVEL
) -> tuple[Interval | None, Interval | None]:
    """Intervals of mean(method) - mean(null), items paired: for these families, and beyond them.

    `values` lie in [0, 1]. None where it cannot be estimated: one run in an arm, or one family for the second. Other
    levels than 95 % serve to invert the interval into a p-value; what is known of coverage is known at 95 %.
    """
    if not method.freedom or not null.freedom or not len(method.values):
        return None, None
    family = np.unique(np.asarray(families, object), return_inverse=True)[1]
    runs = [_run_parts(arm, np.arange(len(family)), family) for arm in (method, null)]
    beyond = _gain_interval(method, null, runs, family, level, beyond=True) if family.max() else None
    inner = _gain_interval(method, null, runs, family, level, beyond=False)
    return inner, containing(beyond, inner)


def containing(beyond: Interval | None, inner: Interval | None) -> Interval | None:
    """The interval beyond these families, at least as wide as the one for them, since it claims more."""
    if beyond is None or inner is None:
        return beyond
    return min(beyond[0], inner[0]), max(beyond[1], inner[1])


def rate_interval(arm: Arm, families: Sequence[str], trials: float) -> Interval | None:
    """Interval of the mean of one arm's values, beyond these families; `trials` caps the effective number.

    None where it cannot be estimated: one run, or one family.
    """
    family = np.unique(np.asarray(families, object), return_inverse=True)[1]
    if not arm.freedom or not len(arm.values) or not family.max():
        return None
    mean, items = float(arm.values.mean()), len(arm.values)
    between = float(_between(arm.values[:, None], family)[0, 0])
    factor, design = _together(arm.values, family, between)
    common, _ = _run_parts(arm, family, family)
    most = trials if 0 < mean < 1 else items / design
    return _wilson(mean, _squared([Part(between * factor, family.max()), common]), most)


def mean_interval(
    values: Reals,
    units: Sequence[str],
    families: Sequence[str],
    arms: Sequence[Arm],
    *,
    beyond: bool,
    rollouts: float,
) -> Interval | None:
    """Student's interval of the mean of `values` (differences between arms, one entry per problem).

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
    parts = [Part(spread, float(freedom))]
    for arm in arms:
        common, own = _run_parts(arm, unit, family)
        parts += [common] if beyond else _floored(common, own)
    half = float(np.sqrt(_squared(parts)))
    mean = float(values.mean())
    return max(-1.0, mean - half), min(1.0, mean + half)


def twin_verdict(interval: Interval | None, own: float | None) -> TwinVerdict:
    """PROTOCOL 3.8, from the interval of the twins' gain and the `own` gain of their items."""
    if interval is None or own is None:
        return "undecided"
    if interval[0] > own / 2 > 0:
        return "generalised"
    if interval[1] < own / 2:
        return "memorised"
    return "partly" if interval[0] > 0 else "undecided"


def _gain_interval(
    method: Arm, null: Arm, runs: Sequence[tuple[Part, Part]], family: Counts, level: float, *, beyond: bool
) -> Interval:
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
    design = 1.0
    if beyond:
        factor, design = _together(method.values, family, float(spread[0, 0]))
        spread *= np.sqrt(np.outer([factor, 1], [factor, 1]))
    freedom = float(family.max() if beyond else np.inf if few else max(items - family.max() - 1, 1))
    shared = Part(float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1]), freedom)
    # what runs do family by family is in the variance between families
    of_runs = [(common,) if beyond else _floored(common, own) for common, own in runs]

    whole = shared.variance + sum(part.variance for parts in of_runs for part in parts)
    spread *= _quantile(shared, whole, level)
    squares = [
        float(spread[index, index]) + sum(part.variance * _quantile(part, whole, level) for part in parts)
        for index, parts in enumerate(of_runs)
    ]
    limits = []
    for mean, square, effect in zip(means.tolist(), squares, (design, 1.0), strict=True):
        # The effective number of trials is at most that of independent items; for these families, and unless few items
        # are discordant, it may be larger, up to what an uncertainty of half an item allows.
        most = items / effect if mean in (0, 1) else items
        if not (beyond or few):
            most = max(most, 4 * mean * (1 - mean) * items**2)
        limits.append(_wilson(mean, square, most, level))
    scale = float(np.sqrt(squares[0] * squares[1]))
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


def _run_parts(arm: Arm, unit: Counts, family: Counts) -> tuple[Part, Part]:
    """Variance over runs of the mean: the part common to all families, and the families' own (units' own removed)."""
    moved = arm.deviations.T / len(arm.values)
    by_unit, by_family = _sum_by(unit, moved), _sum_by(family, moved)
    own_unit = float((by_unit**2).sum())
    each = (by_family**2).sum(axis=1)
    own_family, total = float(each.sum()), float((by_family.sum(axis=0) ** 2).sum())
    effective = own_family**2 / float((each**2).sum()) if own_family > 0 else 1.0
    return (
        Part(max(total - own_family, 0.0), arm.freedom),
        Part(max(own_family - own_unit, 0.0), arm.freedom * max(effective, 1.0)),
    )


def _floored(common: Part, own: Part) -> tuple[Part, ...]:
    return Part(max(common.variance, COMMON_FLOOR * own.variance), common.freedom), own


def _together(values: Reals, family: Counts, between: float) -> tuple[float, float]:
    """(factor on the variance between families, design effect), for values of which few are above 0, or below 1.

    A design effect estimated from few independent conversions is too small: families that move as one may not be
    among them. So it is averaged with that of families which do (sum of squared sizes / items; Kish 1965, Survey
    Sampling, 5.4), which counts as `WHOLE_FAMILIES` conversions beside the effective number of those seen.
    """
    mean, items = float(values.mean()), len(values)
    whole = float((np.bincount(family).astype(float) ** 2).sum()) / items
    single = mean * (1 - mean) / items
    estimated = between / single if single > 0 else 1.0
    seen = items * min(mean, 1 - mean) / max(estimated, 1.0)
    design = (seen * estimated + WHOLE_FAMILIES * whole) / (seen + WHOLE_FAMILIES)
    return (max(design / estimated, 1.0) if estimated > 0 else 1.0), max(design, 1.0)


def _squared(parts: Sequence[Part]) -> float:
    """The square of a symmetric interval's half width."""
    whole = sum(part.variance for part in parts)
    return sum(part.variance * _quantile(part, whole) for part in parts)


def _quantile(part: Part, whole: float, level: float = LEVEL) -> float:
    """The square of the quantile (97.5 %) that a part counts with: the normal's, and beyond it Student's excess.

    The excess is weighted by the cube root of the part's share of the whole variance. With the share itself this is
    Welch and Satterthwaite's interval to first order (1946, Biometrics Bulletin 2:110), too narrow where a part with 2
    degrees of freedom is half of the whole; with weight 1 (Howe 1974, JASA 69:789) it is too wide.
    """
    normal = _normal(level) ** 2
    if whole <= 0 or part.variance <= 0:
        return normal
    upper = (1 + level) / 2
    student = float(special.stdtrit(part.freedom, upper)) ** 2 if np.isfinite(part.freedom) else normal
    return normal + (student - normal) * float(np.cbrt(part.variance / whole))


def _wilson(mean: float, square: float, most: float, level: float = LEVEL) -> Interval:
    """Wilson's interval at the number of independent trials whose squared half width is `square`, at most `most`."""
    inside, z = 0 < mean < 1 and square > 0, _normal(level)
    return wilson(mean, min(z**2 * mean * (1 - mean) / square, most) if inside else most, z)


def _normal(level: float) -> float:
    """The normal's quantile of a two-sided interval of that level."""
    return Z if level == LEVEL else float(special.ndtri((1 + level) / 2))


def _sum_by(index: NDArray[np.int64], values: Reals) -> Reals:
    """Sums of the rows of `values` that share an index, shape (indices, columns)."""
    size = int(index.max()) + 1
    return np.stack([np.bincount(index, column, size) for column in values.T], axis=1)
