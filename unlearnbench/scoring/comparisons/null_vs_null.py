"""A/A comparisons of the null control with itself: some of its seeds as the method, others as the null.

GRPO with other seeds is no better method, so the intervals should include 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import combinations, count

import numpy as np

from unlearnbench.errors import RunError
from unlearnbench.records import Interval, Record
from unlearnbench.scoring.comparisons.comparison import paired_intervals
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.inference.intervals import Arm, gain_intervals
from unlearnbench.scoring.nulls import control_outcomes
from unlearnbench.scoring.probes import probes_of
from unlearnbench.splits import Split

MOST_PAIRS = 5_000
"""Largest number of disjoint pairs of seed sets that are compared; of more, every second, third ... pair."""

Seeds = tuple[int, ...]
Compared = tuple[float, Interval | None, Interval | None]


class Miss(Record):
    """A comparison of GRPO with itself in which an interval excludes 0."""

    first: Sequence[int]
    second: Sequence[int]
    gain: float
    interval: Interval | None
    interval_families: Interval | None


class Repeats(Record):
    """Many comparisons of GRPO with itself, which share seeds and so are not independent."""

    comparisons: int
    of: int
    """All comparisons that are possible; fewer are made where there are more than MOST_PAIRS."""
    intervals: int
    """Comparisons with an interval: two arms of at least two seeds, and at least two families."""
    interval_holds_zero: int
    interval_families_holds_zero: int
    mean_gain: float
    mean_absolute_gain: float
    gain_sd: float
    smallest_gain: float
    largest_gain: float
    misses: Sequence[Miss]


class NullAgainstNull(Record):
    split: str
    split_hash: str
    null_hash: str
    null_seeds: Sequence[int]
    seeds: int
    items: int
    families: int
    rate: float
    """Conversion of the null, the mean over its seeds."""
    method_against_rest: Repeats
    """`seeds` of the seeds as the method, the rest as its null control: how every method is scored."""
    disjoint: Repeats | None
    """`seeds` against `seeds` others, every unordered pair; None for one seed, for which these are `single`."""
    single: Repeats
    """Every seed against every other; one seed has no interval."""


def null_against_null(split: Split, seeds: int = 3, progress: Callable[[float], None] | None = None) -> NullAgainstNull:
    """GRPO against GRPO on the shipped null seeds. `progress` is called with the share that is done.

    Raises RunError if the split has no null control, one without counts of probes, or too few seeds for `seeds` against
    at least as many.
    """
    control = split.control("null_control", "1x")
    if control is None:
        raise RunError(
            f"split {split.name} has no null control to compare with itself; fill it with `unlearnbench eval --method "
            f"grpo --seeds 10 --split {split.path} --out {split.path / 'null_control' / '1x'}`"
        )
    total = len(control.seeds)
    if total < 2 * seeds:
        raise RunError(
            f"the null control of split {split.name} has {total} seeds, too few for {seeds} against at least "
            f"as many; give a smaller --seeds, or add null seeds"
        )
    items = [item for item in split.items if item.group == "unlearnable"]
    if not items:
        raise RunError(f"split {split.name} has no unlearnable items, so there is nothing to convert")
    outcomes = control_outcomes(control, items, probes_of(split), split.config.protocol.tau, "null control")
    if not outcomes.has_probe.any():
        raise RunError(
            f"the null control of split {split.name} has no counts of probes, so none of it converts; make it again"
        )
    hits = outcomes.converted
    families = [item.family for item in items]

    @cache
    def arm(chosen: Seeds) -> Arm:
        return share_arm(hits[:, list(chosen)])

    everyone = tuple(range(total))
    rest = [(chosen, tuple(i for i in everyone if i not in chosen)) for chosen in combinations(everyone, seeds)]
    equal = list(_disjoint(total, seeds)) if seeds > 1 else []
    single = list(_disjoint(total, 1))
    kept = equal[:: -(-len(equal) // MOST_PAIRS)] if equal else []
    ticks = count(1)
    work = len(rest) + len(kept) + len(single)

    def repeats(pairs: Sequence[tuple[Seeds, Seeds]], of: int) -> Repeats:
        compared = []
        for one, other in pairs:
            compared.append(_compared(arm(one), arm(other), families, len(one) == len(other)))
            if progress:
                progress(next(ticks) / work)
        return _repeats(compared, [[[control.seeds[i] for i in side] for side in pair] for pair in pairs], of)

    return NullAgainstNull(
        split=split.name,
        split_hash=split.hash,
        null_hash=control.hash,
        null_seeds=control.seeds,
        seeds=seeds,
        items=len(items),
        families=len(set(families)),
        rate=float(hits.mean()),
        method_against_rest=repeats(rest, len(rest)),
        disjoint=repeats(kept, len(equal)) if kept else None,
        single=repeats(single, len(single)),
    )


def null_gains(split: Split, seeds: int) -> list[float]:
    """Gains of GRPO over itself: every subset of `seeds` of the null control as the method, the rest as null.

    The comparisons of `null_against_null` (`method_against_rest`), one by one. They share seeds, so they are not
    independent trials. Empty where there are too few seeds, or no counts of probes.
    """
    control = split.control("null_control", "1x")
    if control is None or len(control.seeds) < 2 * seeds:
        return []
    items = [item for item in split.items if item.group == "unlearnable"]
    outcomes = control_outcomes(control, items, probes_of(split), split.config.protocol.tau, "null control")
    if not outcomes.has_probe.any():
        return []
    hits = outcomes.converted

    def rate(places: list[int]) -> float:
        return float(hits[:, places].mean())

    everyone = range(len(control.seeds))
    pairs = ((list(chosen), [k for k in everyone if k not in chosen]) for chosen in combinations(everyone, seeds))
    return [rate(chosen) - rate(rest) for chosen, rest in pairs]


def _compared(first: Arm, second: Arm, families: Sequence[str], alike: bool) -> Compared:
    """The gain and both intervals; arms of as many seeds have no order, and neither is the null of the other."""
    intervals = (paired_intervals if alike else gain_intervals)(first, second, families)
    return float(first.values.mean() - second.values.mean()), *intervals


def _repeats(compared: Sequence[Compared], seeds: Sequence[Sequence[Sequence[int]]], of: int) -> Repeats:
    gains = np.array([gain for gain, _, _ in compared])
    return Repeats(
        comparisons=len(compared),
        of=of,
        intervals=sum(interval is not None for _, interval, _ in compared),
        interval_holds_zero=sum(interval is not None and _holds_zero(interval) for _, interval, _ in compared),
        interval_families_holds_zero=sum(beyond is not None and _holds_zero(beyond) for _, _, beyond in compared),
        mean_gain=float(gains.mean()),
        mean_absolute_gain=float(np.abs(gains).mean()),
        gain_sd=float(gains.std()),
        smallest_gain=float(gains.min()),
        largest_gain=float(gains.max()),
        misses=[
            Miss(first=first, second=second, gain=gain, interval=interval, interval_families=beyond)
            for (gain, interval, beyond), (first, second) in zip(compared, seeds, strict=True)
            if any(limits is not None and not _holds_zero(limits) for limits in (interval, beyond))
        ],
    )


def _disjoint(total: int, size: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All unordered pairs of disjoint sets of `size` out of `total` places."""
    for one in combinations(range(total), size):
        later = [place for place in range(one[0] + 1, total) if place not in one]
        for other in combinations(later, size):
            yield one, other


def _holds_zero(interval: Interval) -> bool:
    return interval[0] <= 0 <= interval[1]
