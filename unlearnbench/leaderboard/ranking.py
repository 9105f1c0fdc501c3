"""Ranks of the entries of one tier, track and budget, in one edition or pooled over editions; and what they may claim.

A rank is a range: from 1 + the number of entries that are significantly better to the number of entries minus those
that are significantly worse. Every pair is tested twice, by conversion and by the frontier score, with the p-value of
`compare` (the larger of a permutation of runs and a resampling of families). Where entries share several editions, the
p-values of each direction are combined by Fisher's method and gains are means over editions (PROTOCOL 3.11). Over the
pairs of a group p is adjusted by Holm's rule (1979, Scand. J. Statistics 6:65), which holds for any dependence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.leaderboard.pooling import Score, fisher, pooled
from unlearnbench.records import TRACKS, Record, Result, Track
from unlearnbench.scoring.conversion_rule import solved
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.frontier import frontier_items
from unlearnbench.scoring.inference.permutation import MOST_P, p_gain
from unlearnbench.scoring.outcomes import outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Flags, Reals
from unlearnbench.splits import Split

SCORE_VERSION = 2
"""Results of earlier versions counted something else: they are shown, and never ranked."""


@dataclass(frozen=True)
class Contender:
    """An entry as it is ranked."""

    id: str
    result: Result
    counts: pa.Table
    split: Split
    ranked: bool = True
    """False: shown, not ranked (withdrawn, or the number of configurations tried is not stated)."""

    @property
    def eligible(self) -> bool:
        """Whether it takes part: scored by this version, comparable, with as many samples as its null control."""
        result = self.result
        return self.ranked and result.schema_version == SCORE_VERSION and result.comparable and self._as_the_null

    @property
    def _as_the_null(self) -> bool:
        """With fewer samples per item than the null control, chance converts more."""
        null = self.split.control("null_control", f"{self.result.budget.multiple or 1.0:g}x")
        return null is not None and null.result is not None and null.result.samples == self.result.samples

    @cached_property
    def converted(self) -> Measured:
        """What it converted of the unlearnable items. Raises DataError where counts.parquet is not the result's."""
        items = [item for item in self.split.items if item.group == "unlearnable"]
        self._require_complete([item.item_id for item in items])
        tau = self.split.config.protocol.tau
        found = outcomes_of(self.counts, items, probes_of(self.split), self._runs, tau, self.id)
        return Measured(found.converted, np.ones(len(items)), [item.family for item in items])

    @cached_property
    def frontier(self) -> Measured:
        """What it solved of the items that the frontier score weighs."""
        items, weights = frontier_items(self.split)
        ids = [item.item_id for item in items]
        self._require_complete(ids)
        cells = Cells.of(read_phase(self.counts, "eval", ids, runs=self._runs, source=self.id))
        return Measured(solved(cells, self.split.config.protocol.tau), weights, [item.family for item in items])

    @property
    def _runs(self) -> list[str]:
        return [str(seed) for seed in self.result.seeds]

    def _require_complete(self, ids: Sequence[str]) -> None:
        cells = Cells.of(read_phase(self.counts, "eval", ids, runs=self._runs, source=self.id))
        if (cells.n != self.result.samples).any():
            raise DataError(
                f"{self.id}: counts.parquet does not have {self.result.samples} rollouts of every item in every seed, "
                "as result.json says; restore it, or enter its bundle again"
            )


@dataclass(frozen=True)
class Measured:
    """Items x runs, the items' weights (mean 1) and families."""

    hits: Flags
    weights: Reals
    families: Sequence[str]


class Standing(Record):
    """The rank of a method in its group, and its scores: of one edition, or means over the editions that it pools."""

    id: str
    """Of the entry; of a pooled one, that whose source was trained."""
    entries: Sequence[str]
    editions: Sequence[str]
    split: str
    track: Track
    budget: float | None
    conversion: Score | None
    """Gain over the null control; `p` by Fisher's method over editions, `adjusted` by Holm's over the entries."""
    tuned: Score | None
    """Gain over the tuned null, over the editions that ship one."""
    solved: Score | None
    frontier: Score | None
    method_rate: float | None
    null_rate: float | None
    memorised_rate: float | None
    easy_lost: float | None
    """Share of the easy items."""
    claim: bool
    """It converts more than GRPO: see `claimed`."""
    ranked: int = 0
    """Entries of its group that have a rank."""
    rank: tuple[int, int] | None = None
    """Best and worst rank that the tests of conversion allow; None for what is not ranked."""
    frontier_rank: tuple[int, int] | None = None
    better: Sequence[str] = ()
    """Entries that convert significantly more."""
    worse: Sequence[str] = ()

    @property
    def budget_name(self) -> str:
        return "unknown" if self.budget is None else f"{self.budget:g}x"


def standings(pools: Sequence[tuple[str, Sequence[Contender]]], editions: Sequence[Sequence[str]]) -> list[Standing]:
    """Ranks within each track and budget. A pool is a method's id and its entries, one an edition, all of one tier.

    `editions` names the edition of every entry. Sorted by track, from the least privileged, and budget, then rank and
    gain.
    """
    groups: dict[tuple[Track, float | None], list[_Pool]] = {}
    for (name, contenders), names in zip(pools, editions, strict=True):
        pool = _Pool(name, contenders, names)
        groups.setdefault((pool.track, pool.budget), []).append(pool)

    def place(key: tuple[Track, float | None]) -> tuple[int, float]:
        return TRACKS.index(key[0]), math.inf if key[1] is None else key[1]

    return [standing for key in sorted(groups, key=place) for standing in _ranked(groups[key])]


@dataclass(frozen=True)
class _Pool:
    """A method with its entries."""

    id: str
    contenders: Sequence[Contender]
    editions: Sequence[str]

    @property
    def track(self) -> Track:
        return self.contenders[0].result.method.track

    @property
    def budget(self) -> float | None:
        return self.contenders[0].result.budget.multiple

    @property
    def eligible(self) -> list[Contender]:
        return [one for one in self.contenders if one.eligible]


def _ranked(group: Sequence[_Pool]) -> list[Standing]:
    ranked = [pool for pool in group if pool.eligible]
    better = _better(ranked, lambda one: one.converted)
    of_frontier = _better(ranked, lambda one: one.frontier)
    found = [_standing(pool, len(ranked)) for pool in group]
    told = {at.id: at.conversion for at in found if any(at.id == pool.id for pool in ranked)}
    names = [name for name, score in told.items() if score is not None and score.p is not None]
    adjusted = dict(zip(names, holm([_p(told[name]) for name in names]), strict=True))
    standings = []
    for at in found:
        changes: dict[str, object] = {}
        if at.conversion is not None and at.id in adjusted:
            changes["conversion"] = at.conversion.model_copy(update={"adjusted": adjusted[at.id]})
        if at.id in told:
            changes |= {
                "rank": _range(at.id, better),
                "frontier_rank": _range(at.id, of_frontier),
                "better": sorted(better[at.id]),
                "worse": sorted(name for name, above in better.items() if at.id in above),
            }
        at = at.model_copy(update=changes)
        standings.append(at.model_copy(update={"claim": at.id in told and claimed(at)}))
    return sorted(standings, key=_order)


def _order(at: Standing) -> tuple[float | str, ...]:
    gains = [-math.inf if score is None or score.gain is None else score.gain for score in (at.conversion, at.frontier)]
    best, worst = at.rank or (math.inf, math.inf)
    return (best, worst, -gains[0], -gains[1], at.id)


def _p(score: Score | None) -> float:
    return 1.0 if score is None or score.p is None else score.p


def _standing(pool: _Pool, ranked: int) -> Standing:
    """Scores of a method: those of the results that take part; where none does, of all of this score version."""
    results = [one.result for one in pool.eligible or pool.contenders if one.result.schema_version == SCORE_VERSION]
    scores = [result.conversion for result in results]
    tuned = [score.tuned_null for score in scores if score.tuned_null is not None]
    fronts = [result.frontier for result in results if result.frontier is not None]
    kept = [result.retention for result in results]
    return Standing(
        id=pool.id,
        entries=[one.id for one in pool.contenders],
        editions=list(pool.editions),
        split=", ".join(dict.fromkeys(one.result.split for one in pool.contenders)),
        track=pool.track,
        budget=pool.budget,
        conversion=pooled([(score.gain, score.interval_families, score.p) for score in scores]),
        tuned=pooled([(of.gain, of.interval, None) for of in tuned]),
        solved=pooled([(score.solved_gain, score.solved_interval, None) for score in scores]),
        frontier=pooled([(of.gain, of.interval_families, of.p) for of in fronts]),
        method_rate=_mean([score.method_rate for score in scores]),
        null_rate=_mean([score.null_rate for score in scores]),
        memorised_rate=_mean([score.memorised_rate for score in scores]),
        easy_lost=_mean([of.easy_lost / of.easy_items for of in kept if of.easy_lost is not None and of.easy_items]),
        claim=False,
        ranked=ranked,
    )


def claimed(at: Standing) -> bool:
    """Whether a standing may be called conversion beyond GRPO.

    The interval beyond these families lies above 0, so does that over the tuned null where one is shipped, and p is
    at most MOST_P after Holm's rule over the entries of its track and budget.
    """
    score = at.conversion
    if score is None or score.interval is None or score.interval[0] <= 0:
        return False
    beats_tuned = at.tuned is None or (at.tuned.interval is not None and at.tuned.interval[0] > 0)
    return beats_tuned and score.adjusted is not None and score.adjusted <= MOST_P


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# --- pairs ----------------------------------------------------------------------------------------------------


def _better(group: Sequence[_Pool], of: Callable[[Contender], Measured]) -> dict[str, set[str]]:
    """Of each entry, those that score significantly more."""
    found: dict[str, set[str]] = {pool.id: set() for pool in group}
    pairs = list(combinations(group, 2))
    tests = [_test(first, second, of) for first, second in pairs]
    for (first, second), (ahead, _), p in zip(pairs, tests, holm([p for _, p in tests]), strict=True):
        if p <= MOST_P and ahead:
            winner, loser = (first, second) if ahead > 0 else (second, first)
            found[loser.id].add(winner.id)
    return found


def _range(name: str, better: dict[str, set[str]]) -> tuple[int, int]:
    return 1 + len(better[name]), len(better) - sum(name in above for above in better.values())


def _test(first: _Pool, second: _Pool, of: Callable[[Contender], Measured]) -> tuple[float, float]:
    """(mean gain of the first over the second, two-sided p) over the splits on which both were scored."""
    others = {one.split.hash: one for one in second.eligible}
    shared = [(of(one), of(others[one.split.hash])) for one in first.eligible if one.split.hash in others]
    shared = [pair for pair in shared if len(pair[0].hits)]
    if not shared:
        return 0.0, 1.0
    gains = [float((_values(one).mean(axis=1) - _values(other).mean(axis=1)).mean()) for one, other in shared]
    sides = [
        fisher(
            [p_gain(one.hits.astype(float), other.hits.astype(float), one.families, one.weights) for one, other in way]
        )
        for way in (shared, [(other, one) for one, other in shared])
    ]
    return sum(gains) / len(gains), min(1.0, 2 * min(sides))


def _values(of: Measured) -> Reals:
    return of.hits * of.weights[:, None]


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests, in the order given (Holm 1979)."""
    order = np.argsort(values, kind="stable")
    scaled = np.asarray(values, float)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]
