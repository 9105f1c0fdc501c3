"""Ranks of the entries of one edition, split, track, budget and tier: only differences beyond chance count.

An entry's rank is 1 + the number of entries that convert significantly more. Every pair of a group is tested, items
paired, by the interval of a score over families and seeds (`intervals.gain_intervals`): p is 1 minus the highest level
at which that interval still excludes 0, so that p < 0.05 and a 95 % interval agree. Over the pairs of a group p is
adjusted by Holm's rule (1979, Scand. J. Statistics 6:65), which holds for any dependence between the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.records import Interval, Record, Result, Track
from unlearnbench.scoring.conversion_rule import conversion_arm
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.intervals import Arm, gain_intervals
from unlearnbench.splits import Split

LEVEL = 0.05
LEAST_P = 1e-6
"""The smallest p that is computed: with few runs, Student's tails are not known any better."""


@dataclass(frozen=True)
class Contender:
    """An entry as it is ranked."""

    id: str
    result: Result
    counts: pa.Table
    ranked: bool = True
    """False: shown, not ranked (withdrawn, or the number of configurations tried is not stated)."""


class Standing(Record):
    """The rank of one entry in its group."""

    id: str
    split: str
    track: Track
    budget: float | None
    gain: float | None
    interval_families: Interval | None
    claim: bool
    """It beats the null control and, at 1x, the strong null: both intervals over families are above 0."""
    rank: int | None
    """None for a result that is not comparable, or has another number of samples per item than the null control."""
    better: Sequence[str] = ()
    """Entries that convert significantly more."""


def standings(contenders: Sequence[Contender], split: Split) -> list[Standing]:
    """Ranks within each track and budget, the best first. All of one split, edition and tier."""
    groups: dict[tuple[Track, float | None], list[Contender]] = {}
    for contender in contenders:
        result = contender.result
        groups.setdefault((result.method.track, result.budget.multiple), []).append(contender)
    return [standing for _, group in sorted(groups.items(), key=str) for standing in _ranked(group, split)]


def _ranked(group: Sequence[Contender], split: Split) -> list[Standing]:
    ranked = [one for one in group if one.ranked and one.result.comparable and _as_the_null(one.result, split)]
    better: dict[str, list[str]] = {contender.id: [] for contender in ranked}
    families = [item.family for item in split.items if item.group == "unlearnable"]
    pairs = list(combinations(ranked, 2))
    tests = [_test(first, second, split, families) for first, second in pairs]
    for (first, second), (ahead, _), p in zip(pairs, tests, holm([p for _, p in tests]), strict=True):
        if p < LEVEL and ahead:
            winner, loser = (first, second) if ahead > 0 else (second, first)
            better[loser.id].append(winner.id)
    found = [
        Standing(
            id=contender.id,
            split=contender.result.split,
            track=contender.result.method.track,
            budget=contender.result.budget.multiple,
            gain=contender.result.conversion.gain,
            interval_families=contender.result.conversion.interval_families,
            claim=claimed(contender.result),
            rank=1 + len(better[contender.id]) if contender.id in better else None,
            better=sorted(better.get(contender.id, [])),
        )
        for contender in group
    ]
    return sorted(found, key=lambda row: (row.rank is None, row.rank or 0, -(row.gain or 0.0), row.id))


def _as_the_null(result: Result, split: Split) -> bool:
    """Whether a result has as many samples per item as its null control: with fewer, chance converts more."""
    null = split.control("null_control", f"{result.budget.multiple or 1.0:g}x")
    return null is not None and null.result is not None and null.result.samples == result.samples


def claimed(result: Result) -> bool:
    """Whether a result may be called conversion beyond GRPO: it beats the null control and the strong null."""
    score = result.conversion
    over_null = score.interval_families is not None and score.interval_families[0] > 0
    if score.strong_null_seeds == 0:
        return result.comparable and over_null and result.budget.multiple != 1
    return result.comparable and over_null and (score.strong_null_interval or (0.0, 0.0))[0] > 0


def _test(first: Contender, second: Contender, split: Split, families: Sequence[str]) -> tuple[float, float]:
    """(conversion of the first minus that of the second, two-sided p)."""
    seeds = min(len(first.result.seeds), len(second.result.seeds))
    one, other = (_arm(contender, split, seeds) for contender in (first, second))
    ahead = float(one.values.mean() - other.values.mean())
    return ahead, p_value(one, other, families) if ahead >= 0 else p_value(other, one, families)


def _arm(contender: Contender, split: Split, seeds: int) -> Arm:
    runs = [str(seed) for seed in contender.result.seeds]
    grid = read_phase(contender.counts, "eval", split.ids("unlearnable"), runs=runs, source=contender.id)
    cells, samples = Cells.of(grid), contender.result.samples
    if (cells.n != samples).any():
        raise DataError(
            f"{contender.id}: counts.parquet does not have {samples} rollouts of every unlearnable item in every seed, "
            "as result.json says; restore it, or enter its bundle again"
        )
    return conversion_arm(cells, split.config.protocol.tau, seeds)


def p_value(better: Arm, worse: Arm, families: Sequence[str]) -> float:
    """p of `better` converting more: 1 minus the highest level whose interval beyond these families lies above 0.

    At least LEAST_P; 1 where there is no interval (one seed, one family) or no difference.
    """

    def above(p: float) -> bool:
        interval = gain_intervals(better, worse, families, 1 - p)[1]
        return interval is not None and interval[0] > 0

    if above(LEAST_P):
        return LEAST_P
    low, high = LEAST_P, 1.0
    while high / low > 1.001:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if above(middle) else (middle, high)
    return high


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests, in the order given (Holm 1979)."""
    order = np.argsort(values, kind="stable")
    scaled = np.asarray(values, float)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]
