"""How alike items' gradients are: cosines, how much of them is noise, and whether groups differ.

An item's gradient is an estimate from m rollouts, dealt to P parts of m/P each. With g_ip the gradient of item i in
part p and g_i their mean, everything here follows from the inner products <g_ip, g_jq>:

    cosine(i, j)    = <g_i, g_j> / (|g_i| |g_j|)
    reliability(i)  = mean over p != q of <g_ip, g_iq>  /  |g_i|^2

The reliability is the share of |g_i|^2 that is not noise: the average over all split halves, stepped up to the whole by
Spearman and Brown (1910). Noise of different items is independent, so it leaves <g_i, g_j> unbiased and only lengthens
the vectors: the raw cosine is expected to be the true one times sqrt(reliability(i) reliability(j)) (Spearman 1904). An
item's own reliability is too noisy to take a root of, so a block's mean is divided by the root of both groups' mean
reliabilities, where these are above a floor. That takes away the bias of few rollouts, not their noise; where
reliabilities within a group differ much, it takes away too little. In simulation the corrected mean is right to
a few percent from a mean reliability of 0.3 on, and 6 % too large at 0.2.

Groups differ in their mix of skills, and gradients follow the skill that a rollout performs. So where skills are known
every block is also given for pairs of one skill and for pairs of two, and the AUC for references of other skills than
the item's own (PROTOCOL 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unlearnbench.records import GroupName
from unlearnbench.rng import stream

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
"""(items, items): which pairs count."""

FLOOR = 0.1
"""Mean reliability of a group below which its means are not corrected."""
LEVEL = 0.95
Of = Literal["all", "same_skill", "other_skills"]
_REFERENCES = ("easy", "learnable")


@dataclass(frozen=True, slots=True)
class Block:
    """Cosines between the items of two groups (or within one): of all pairs, or of those that `of` names.

    `interval`, `corrected_interval`: 95 % by bootstrap over items. `p`: for two groups, how often a random exchange of
    their labels makes pairs within them so much more alike than pairs between them; within one, how often as many
    random items of all are as far from the mean of all pairs, on either side. None where there are too few items.
    `reliable_items`: those of both groups that are above the floor.
    """

    a: str
    b: str
    pairs: int
    raw: float
    corrected: float | None
    interval: tuple[float, float] | None
    corrected_interval: tuple[float, float] | None
    p: float | None
    reliable_items: int
    of: Of = "all"


@dataclass(frozen=True, slots=True)
class Auc:
    """Chance that a learnable item is more like the easy and learnable ones than an unlearnable item is."""

    value: float
    interval: tuple[float, float] | None
    n: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Similarity:
    """`cosine` (items, items) and `reliability` (items,); NaN for items whose gradient is 0."""

    cosine: Matrix
    reliability: NDArray[np.float64]
    blocks: tuple[Block, ...]
    auc: Auc | None
    by_rollouts: tuple[tuple[int, tuple[Block, ...]], ...]
    """Blocks from the first 1, 2, ... parts alone: how the raw means depend on the number of rollouts."""
    matched: tuple[Block, ...] = ()
    """The blocks once more for pairs of one skill, and of two; `p` is None. Empty without skills."""
    auc_other_skills: Auc | None = None
    """As `auc`, by the similarity to items of other skills alone."""


def gram(vectors: NDArray[np.float32], tile: int = 512) -> Matrix:
    """All inner products of (items, parts, dimension) vectors: (items * parts, items * parts), row i * parts + p.

    Vectors may be a memory map; two tiles of rows are held at once. Products are of float32, as in one matrix product.
    """
    rows = vectors.reshape(-1, vectors.shape[-1])
    inner = np.empty((len(rows), len(rows)))
    for top in range(0, len(rows), tile):
        upper = np.ascontiguousarray(rows[top : top + tile])
        for left in range(top, len(rows), tile):
            block = upper @ (upper if left == top else np.ascontiguousarray(rows[left : left + tile])).T
            inner[top : top + tile, left : left + tile] = block
            inner[left : left + tile, top : top + tile] = block.T
    return inner


def cosines(inner: Matrix, parts: int, used: int | None = None) -> Matrix:
    """Cosines (items, items) of the mean gradients over the first `used` parts. NaN where a gradient is 0."""
    share = _by_part(inner, parts)[:, :used, :, :used].mean((1, 3))
    norms = np.sqrt(np.diag(share))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Matrix = share / np.outer(norms, norms)
    return np.clip(found, -1.0, 1.0)


def reliabilities(inner: Matrix, parts: int) -> NDArray[np.float64]:
    """Reliability (items,) of each item's gradient; below 0 by chance where it is all noise. NaN with one part."""
    own = np.einsum("ipiq->ipq", _by_part(inner, parts))
    whole = own.mean((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (own.sum((1, 2)) - np.trace(own, axis1=1, axis2=2)) / (parts * (parts - 1))
        found: NDArray[np.float64] = between / whole
    return found


def similarity(
    inner: Matrix,
    groups: Sequence[str],
    parts: int,
    *,
    skills: Sequence[str] | None = None,
    floor: float = FLOOR,
    draws: int = 1000,
    seed: int = 0,
) -> Similarity:
    """Everything that is reported of the inner products of `gram`. `groups` and `skills` have one name per item."""
    names = np.array(groups, dtype=object)
    cosine, reliability = cosines(inner, parts), reliabilities(inner, parts)
    order = group_order(groups)
    pairs = [(a, b) for place, a in enumerate(order) for b in order[place:]]
    whole = ~np.eye(len(names), dtype=bool)
    blocks = tuple(
        _block(a, b, cosine, whole, reliability, names, floor, draws, seed + number)
        for number, (a, b) in enumerate(pairs)
    )
    matched: list[Block] = []
    auc = None
    if skills is not None:
        skill = np.array(skills, dtype=object)
        same = (skill[:, None] == skill[None, :]) & whole
        for kind, mask in (("same_skill", same), ("other_skills", whole & ~same)):
            for number, (a, b) in enumerate(pairs):
                one = _block(a, b, cosine, mask, reliability, names, floor, draws, seed + number)
                matched.append(replace(one, p=None, of=kind))  # type: ignore[arg-type]
        auc = _auc(cosine, whole & ~same, names, draws, seed)
    by_rollouts = []
    for used in range(1, parts + 1):
        part = cosines(inner, parts, used)
        by_rollouts.append((used, tuple(_raw(a, b, part, whole, names) for a, b in pairs)))
    own = _auc(cosine, whole, names, draws, seed)
    return Similarity(cosine, reliability, blocks, own, tuple(by_rollouts), tuple(matched), auc)


def group_order(names: Sequence[str]) -> list[str]:
    """The different names among these, the groups of a split first, in their order."""
    return [name for name in _ORDER if name in names] + sorted(set(names) - set(_ORDER))


_ORDER: tuple[GroupName, ...] = ("easy", "learnable", "unlearnable", "no_reward", "unstable", "boundary")


def _generator(*names: object) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=stream("similarity", *names)))


def _by_part(inner: Matrix, parts: int) -> NDArray[np.float64]:
    items = len(inner) // parts
    return inner.reshape(items, parts, items, parts)


def _usable(cosine: Matrix) -> NDArray[np.bool_]:
    usable: NDArray[np.bool_] = np.isfinite(np.diag(cosine))
    return usable


def _raw(a: str, b: str, cosine: Matrix, mask: Mask, names: NDArray[np.object_]) -> Block:
    usable = _usable(cosine)
    rows, columns = (np.flatnonzero((names == name) & usable) for name in (a, b))
    values, chosen = cosine[np.ix_(rows, columns)], mask[np.ix_(rows, columns)]
    pairs = values[np.triu(chosen, 1)] if a == b else values[chosen]
    mean = float(pairs.mean()) if len(pairs) else float("nan")
    return Block(a, b, len(pairs), mean, None, None, None, None, 0)


def _block(
    a: str,
    b: str,
    cosine: Matrix,
    mask: Mask,
    reliability: NDArray[np.float64],
    names: NDArray[np.object_],
    floor: float,
    draws: int,
    seed: int,
) -> Block:
    usable = _usable(cosine)
    raw = _raw(a, b, cosine, mask, names)
    if raw.pairs == 0:
        return raw
    rows, columns = (np.flatnonzero((names == name) & usable) for name in (a, b))
    random = _generator(seed)
    weights = _resampled(random, draws, len(rows), len(columns), a == b)
    # the same draws of items for both intervals, so that both are of the same samples
    means = _means(cosine[np.ix_(rows, columns)], mask[np.ix_(rows, columns)], weights)
    sides = reliability[rows], reliability[columns]
    factor = _attenuation(sides, (np.ones((1, len(rows))), np.ones((1, len(columns)))), floor)[0]
    several = min(len(rows), len(columns)) > 1  # one item resampled is always the same
    corrected = None if np.isnan(factor) else float(raw.raw / factor)
    return Block(
        a,
        b,
        raw.pairs,
        raw.raw,
        corrected,
        _interval(means) if several else None,
        None if corrected is None or not several else _interval(means / _attenuation(sides, weights, 0.0)),
        _permutation(a, b, cosine, names, usable, draws, random),
        int(sum((side >= floor).sum() for side in (sides[:1] if a == b else sides))),
    )


def _attenuation(
    sides: tuple[NDArray[np.float64], NDArray[np.float64]], weights: tuple[Matrix, Matrix], floor: float
) -> NDArray[np.float64]:
    """What raw means are expected to be multiplied by: (draws,); NaN where a mean reliability is below the floor."""
    means = [(weight @ side) / weight.sum(1) for side, weight in zip(sides, weights, strict=True)]
    sure = (means[0] > floor) & (means[1] > floor)
    return np.where(sure, np.sqrt(np.where(sure, means[0] * means[1], 1.0)), np.nan)


def _resampled(random: np.random.Generator, draws: int, rows: int, columns: int, same: bool) -> tuple[Matrix, Matrix]:
    """How often each item is drawn in each bootstrap sample of both sides: (draws, rows), (draws, columns)."""
    first = random.multinomial(rows, np.full(rows, 1 / rows), size=draws).astype(float)
    if same:
        return first, first
    return first, random.multinomial(columns, np.full(columns, 1 / columns), size=draws).astype(float)


def _means(values: Matrix, mask: Mask, weights: tuple[Matrix, Matrix]) -> NDArray[np.float64]:
    """Means over the pairs of the mask, weighted by both items' weights; an item makes no pair with itself."""
    left, right = weights
    total = ((left @ np.where(mask, values, 0.0)) * right).sum(1)
    pairs = ((left @ mask.astype(float)) * right).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: NDArray[np.float64] = total / pairs
    return means


def _interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    finite = values[np.isfinite(values)]
    if len(finite) < len(values) * 0.9:
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _permutation(
    a: str,
    b: str,
    cosine: Matrix,
    names: NDArray[np.object_],
    usable: NDArray[np.bool_],
    draws: int,
    random: np.random.Generator,
) -> float | None:
    rows = np.flatnonzero(usable & ((names == a) | (names == b) if a != b else usable))
    member = (names[rows] == a).astype(float)
    size, rest = int(member.sum()), len(rows) - int(member.sum())
    if size < 2 or rest < 2:
        return None
    values = cosine[np.ix_(rows, rows)]
    values = values - np.diag(np.diag(values))
    permuted = random.permuted(np.tile(member, (draws, 1)), axis=1)

    def statistic(inside: Matrix) -> NDArray[np.float64]:
        outside = 1.0 - inside
        product = inside @ values
        within = (product * inside).sum(1) / (size * (size - 1))
        if a == b:
            overall = values.sum() / (len(rows) * (len(rows) - 1))
            return np.asarray(np.abs(within - overall))
        between = (product * outside).sum(1) / (size * rest)
        other = ((outside @ values) * outside).sum(1) / (rest * (rest - 1))
        return np.asarray((within + other) / 2 - between)

    observed = statistic(member[None])[0]
    reached = int((statistic(permuted) >= observed - 1e-12).sum())
    return (1 + reached) / (1 + draws)


def _auc(cosine: Matrix, mask: Mask, names: NDArray[np.object_], draws: int, seed: int) -> Auc | None:
    """By the mean cosine with the reference items that the mask lets an item be compared with."""
    usable = _usable(cosine)
    groups = [np.flatnonzero(usable & (names == name)) for name in ("easy", "learnable", "unlearnable")]
    easy, learnable, unlearnable = groups
    if not len(learnable) or not len(unlearnable) or len(easy) + len(learnable) < 2:
        return None
    random = _generator(seed, "auc")
    off, compared = np.where(mask, np.nan_to_num(cosine), 0.0), mask.astype(float)
    scored = np.isin(names, ("learnable", "unlearnable")) & usable
    if not (mask[scored] & (np.isin(names, _REFERENCES) & usable)).any(axis=1).all():
        return None

    def value(weights: NDArray[np.float64]) -> float:
        """With each item counted so often."""
        reference = np.where(np.isin(names, _REFERENCES) & usable, weights, 0.0)
        # the item itself is never among those that it is compared with, nor are further copies of it
        with np.errstate(invalid="ignore", divide="ignore"):
            score = np.nan_to_num((off @ reference) / (compared @ reference))
        return _chance_above(score[learnable], weights[learnable], score[unlearnable], weights[unlearnable])

    ones = np.ones(len(names))
    values = np.empty(draws)
    for draw in range(draws):
        weights = np.zeros(len(names))
        for group in groups:
            if len(group):
                weights[group] = random.multinomial(len(group), np.full(len(group), 1 / len(group)))
        values[draw] = value(weights)
    spread = _interval(values) if min(len(learnable), len(unlearnable)) > 2 else None  # one item drawn again is itself
    return Auc(value(ones), spread, (len(learnable), len(unlearnable)))


def _chance_above(
    high: NDArray[np.float64], times: NDArray[np.float64], low: NDArray[np.float64], others: NDArray[np.float64]
) -> float:
    """Weighted share of pairs in which the first value is above the second; ties count half."""
    order = np.argsort(low, kind="stable")
    ranked, cumulated = low[order], np.concatenate([[0.0], np.cumsum(others[order])])
    below = cumulated[np.searchsorted(ranked, high, side="left")]
    equal = cumulated[np.searchsorted(ranked, high, side="right")] - below
    return float((times * (below + equal / 2)).sum() / (times.sum() * others.sum()))
