"""The board as its page shows it: a row per method over its editions, a row per entry, and the axis of the gains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from unlearnbench.leaderboard.board import Row, board, edition_places, pooled_board
from unlearnbench.leaderboard.editions import Edition
from unlearnbench.leaderboard.entries import TIERS, BoardEntry, Entry
from unlearnbench.leaderboard.pooling import Score
from unlearnbench.leaderboard.ranking import SCORE_VERSION, Standing
from unlearnbench.leaderboard.site.method_source import MethodSource, read_source
from unlearnbench.records import TRACKS, Result
from unlearnbench.reports.headline import LARGE_LOSS, Tone, Verdict, verdict
from unlearnbench.splits import Split

TONES: Sequence[Tone] = ("more", "same", "less", "open")
POOLED = "pooled"
"""Stands for the edition in a row over all editions."""


@dataclass(frozen=True)
class Line:
    """A row of the board, the `order`-th of all: an entry in its edition, or a method over its editions (`pooled`)."""

    folder: Path
    entry: Entry
    """Of a pooled row, the newest."""
    result: Result
    standing: Standing
    verdict: Verdict
    split: str
    """The name of its split's page."""
    pooled: bool
    order: int
    source: MethodSource
    seeds: int
    """Of a pooled row, of all editions."""
    flops: float | None
    """Of a seed, the mean over seeds; None where the result does not state it."""
    entered: str | None
    """The day of the entry, of a pooled row of the newest; None where neither entry nor edition states it."""

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def has_source(self) -> bool:
        """Whether the method's file lies in the entry's folder, and so beside its page."""
        path = self.folder.parent / self.entry.source
        return Path(self.entry.source).name == self.entry.source and path.is_file() and not path.is_symlink()

    @property
    def telling_id(self) -> bool:
        """Whether the id says more than name and budget."""
        return self.standing.id not in (self.name, f"{self.name}-{self.budget}".lower())

    @property
    def tier(self) -> str:
        return self.entry.tier

    @property
    def edition(self) -> str:
        return POOLED if self.pooled else self.entry.edition

    @property
    def track(self) -> str:
        return self.result.method.track

    @property
    def rank(self) -> str | None:
        """The range of ranks."""
        if self.standing.rank is None:
            return None
        best, worst = self.standing.rank
        return str(best) if best == worst else f"{best}\N{EN DASH}{worst}"

    @property
    def frontier_rank(self) -> str | None:
        if self.standing.frontier_rank is None:
            return None
        best, worst = self.standing.frontier_rank
        return str(best) if best == worst else f"{best}\N{EN DASH}{worst}"

    @property
    def why_no_rank(self) -> str:
        """Without a full stop; empty where there is a rank."""
        if self.rank is not None:
            return ""
        if self.entry.withdrawn is not None:
            return f"withdrawn: {self.entry.withdrawn.rstrip('.')}"
        if self.result.schema_version != SCORE_VERSION:
            return f"score version {self.result.schema_version}, which counted memory as conversion"
        if not self.result.comparable:
            return (self.result.why_not_comparable or "not comparable").rstrip(".")
        if self.entry.tried is None:
            return "it does not state how many configurations were tried"
        return "its null control has another number of samples per item"

    @property
    def multiple(self) -> float:
        return self.result.budget.multiple or 0.0

    @property
    def budget(self) -> str:
        return self.standing.budget_name

    @property
    def gain(self) -> float | None:
        return None if self.standing.conversion is None else self.standing.conversion.gain

    @property
    def interval(self) -> Sequence[float] | None:
        """Beyond the families of its splits, which is the one that the finding rests on."""
        return None if self.standing.conversion is None else self.standing.conversion.interval

    @property
    def converts_nothing(self) -> bool:
        """Whether it converted no item in any seed."""
        return self.standing.method_rate == 0

    @property
    def forgets(self) -> bool:
        """Whether it loses more easy items than a fair comparison allows."""
        return (self.standing.easy_lost or 0.0) > LARGE_LOSS

    @property
    def track_order(self) -> int:
        return TRACKS.index(self.result.method.track)

    @property
    def tier_order(self) -> int:
        """The strongest tier comes first."""
        return -TIERS.index(self.entry.tier)

    @property
    def tone_order(self) -> int:
        return TONES.index(self.verdict.tone)


def lines(
    entries: Sequence[BoardEntry],
    find: Callable[[Result], Split],
    page_of: Callable[[Split], str],
    known: Sequence[Edition] = (),
) -> list[Line]:
    """All methods over their editions, then all entries in theirs: the strongest tier first, of that the pooled rows
    and the editions as in `edition_places` (`known` has the oldest first), then by budget, track, rank and gain."""
    order = [edition.name for edition in known]
    by_id = {one.entry.id: one for one in entries}
    shown = edition_places(order, [one.entry for one in entries])
    found = [_line(row, by_id, find, page_of, pooled=True) for row in pooled_board(entries, find, order)]
    found += [_line(row, by_id, find, page_of, pooled=False) for row in board(entries, find, order)]
    days = {edition.name: edition.entered for edition in known}
    found = [replace(line, entered=line.entry.entered or days.get(line.entry.edition)) for line in found]

    def place(line: Line) -> tuple[str | float, ...]:
        ranks = line.standing.rank or (math.inf, math.inf)
        gains = [line.standing.conversion, line.standing.frontier]
        by_gain = [math.inf if of is None or of.gain is None else -of.gain for of in gains]
        group = (line.tier_order, -1 if line.pooled else shown.get(line.edition, len(order)), line.edition)
        return (*group, line.multiple, line.track_order, *ranks, *by_gain, line.id)

    return [replace(line, order=number) for number, line in enumerate(sorted(found, key=place))]


def _line(
    row: Row,
    by_id: Mapping[str, BoardEntry],
    find: Callable[[Result], Split],
    page_of: Callable[[Split], str],
    *,
    pooled: bool,
) -> Line:
    one = by_id[row.entry.id]
    results = [by_id[name].result for name in row.standing.entries]
    return Line(
        folder=one.folder,
        entry=row.entry,
        result=one.result,
        standing=row.standing,
        verdict=verdict(as_ranked(one.result, row.standing, results)),
        split=page_of(find(one.result)),
        pooled=pooled,
        order=0,
        source=read_source(one.source, row.entry.class_name),
        seeds=sum(len(result.seeds) for result in results),
        flops=mean(used) if (used := [spent for result in results for spent in result.budget.used]) else None,
        entered=row.entry.entered,
    )


def as_ranked(result: Result, at: Standing, results: Sequence[Result]) -> Result:
    """A result with the numbers of its standing: means over editions, and p after Holm's rule.

    What is said of it in words then follows from these by the same rules as of a run.
    """
    if result.schema_version != SCORE_VERSION or at.conversion is None:
        return result
    score, kept, none = result.conversion, result.retention, Score(gain=None, interval=None)
    tuned, solved = at.tuned or none, at.solved or none
    changes: dict[str, object] = {
        "gain": at.conversion.gain,
        "interval_families": at.conversion.interval,
        "p": at.conversion.adjusted if at.rank is not None else at.conversion.p,
        "method_rate": at.method_rate,
        "null_rate": at.null_rate,
        "memorised_rate": at.memorised_rate,
        "solved_gain": solved.gain,
        "solved_interval": solved.interval,
    }
    if score.tuned_null is not None:
        changes["tuned_null"] = score.tuned_null.model_copy(update={"gain": tuned.gain, "interval": tuned.interval})
    lost = None if at.easy_lost is None else at.easy_lost * kept.easy_items
    read = max((of.canaries.converted or 0.0 for of in results), default=0.0)
    return result.model_copy(
        update={
            "conversion": score.model_copy(update=changes),
            "retention": kept.model_copy(update={"easy_lost": lost}),
            "canaries": result.canaries.model_copy(update={"converted": read}),
        }
    )


@dataclass(frozen=True)
class Scale:
    """The axis that all gains are drawn on, as fractions: a root scale, so that small gains are seen beside large ones.

    Places are in percent of its width.
    """

    low: float
    high: float

    @classmethod
    def of(cls, found: Sequence[Line]) -> Scale:
        """Wide enough for every gain and interval, its ends at whole tens of points."""
        values = [0.0, *(end for line in found for end in (line.interval or ())), *(line.gain or 0.0 for line in found)]
        return cls(math.floor(min(values) * 10) / 10, max(math.ceil(max(values) * 10) / 10, 0.1))

    def at(self, value: float) -> str:
        low, here, high = (root(end) for end in (self.low, value, self.high))
        return f"{2.5 + 95 * (here - low) / (high - low):.2f}%"

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Zero, and the ends where they are far enough from it to be told apart."""
        ends = [
            end
            for end in (self.low, 0.0, self.high)
            if end == 0 or 3 * abs(root(end)) > root(self.high) - root(self.low)
        ]
        return [(end, f"{100 * end:+.0f}".replace("-", "\N{MINUS SIGN}") if end else "0") for end in ends]

    def anchor(self, tick: float) -> str:
        if self.low < tick < self.high:
            return "middle"
        return "start" if tick == self.low else "end"


def root(value: float) -> float:
    """The place of a gain on a root scale: the square root, with the sign."""
    return math.copysign(math.sqrt(abs(value)), value)
