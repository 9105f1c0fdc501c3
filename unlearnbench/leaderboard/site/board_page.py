"""The board as its page shows it: a row per entry, and the axis that all gains are drawn on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unlearnbench.leaderboard.board import Row, board, edition_places
from unlearnbench.leaderboard.entries import TIERS, BoardEntry, Entry
from unlearnbench.leaderboard.ranking import Standing
from unlearnbench.records import TRACKS, Result
from unlearnbench.reports.headline import Tone, Verdict, verdict
from unlearnbench.splits import Split

TONES: Sequence[Tone] = ("more", "same", "less", "open")


@dataclass(frozen=True)
class Line:
    """An entry as the board lists it, the `order`-th of all: among `ranked` entries, `tied` of which have its rank."""

    folder: Path
    entry: Entry
    result: Result
    standing: Standing
    verdict: Verdict
    split: str
    """The name of its split's page."""
    ranked: int
    tied: int
    order: int

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def telling_id(self) -> bool:
        """Whether the id says more than name and budget."""
        return self.id not in (self.name, f"{self.name}-{self.budget}".lower())

    @property
    def tier(self) -> str:
        return self.entry.tier

    @property
    def edition(self) -> str:
        return self.entry.edition

    @property
    def track(self) -> str:
        return self.result.method.track

    @property
    def rank(self) -> int | None:
        return self.standing.rank

    @property
    def why_no_rank(self) -> str:
        """Without a full stop; empty where there is a rank."""
        if self.rank is not None:
            return ""
        if self.entry.withdrawn is not None:
            return f"withdrawn: {self.entry.withdrawn.rstrip('.')}"
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
        return "unknown" if self.result.budget.multiple is None else f"{self.multiple:g}x"

    @property
    def gain(self) -> float | None:
        return self.result.conversion.gain

    @property
    def interval(self) -> Sequence[float] | None:
        """Over families and seeds, which is the one that the finding rests on."""
        return self.result.conversion.interval_families

    @property
    def finding(self) -> str:
        """The verdict in a few words; whatever is not distinguishable from GRPO re-run is called the same."""
        score, tone = self.result.conversion, self.verdict.tone
        if tone == "same" and score.interval_families is not None and score.interval_families[0] <= 0:
            return "not distinguishable from null"
        if tone == "more" and score.strong_null_interval is not None:
            return "more than both nulls" + ("" if score.scope in (None, "families") else f", {score.scope}")
        return self.verdict.label

    @property
    def conversion(self) -> float | None:
        return self.result.groups["unlearnable"].conversion

    @property
    def easy_lost(self) -> int | None:
        return self.result.retention.easy_lost

    @property
    def easy_items(self) -> int:
        return self.result.retention.easy_items

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
    order: Sequence[str] = (),
) -> list[Line]:
    """All entries with their standings: the strongest tier first, of that the editions as in `edition_places`
    (`order` has the oldest first), then by split, budget and track, then by rank and gain."""
    by_id = {one.entry.id: one for one in entries}
    rows = board(entries, find, order)
    shown = edition_places(order, [one.entry for one in entries])

    def rivals(row: Row) -> tuple[object, ...]:
        at, of = row.standing, by_id[row.entry.id].result
        return (row.entry.tier, row.entry.edition, of.split_hash, at.track, at.budget)

    ranked = Counter(rivals(row) for row in rows if row.standing.rank is not None)
    at_rank = Counter((rivals(row), row.standing.rank) for row in rows)
    found = [
        Line(
            folder=by_id[row.entry.id].folder,
            entry=row.entry,
            result=(result := by_id[row.entry.id].result),
            standing=row.standing,
            verdict=verdict(result),
            split=page_of(find(result)),
            ranked=ranked[rivals(row)],
            tied=0 if row.standing.rank is None else at_rank[rivals(row), row.standing.rank] - 1,
            order=0,
        )
        for row in rows
    ]

    def place(line: Line) -> tuple[str | float, ...]:
        rank = math.inf if line.rank is None else line.rank
        gain = math.inf if line.gain is None else -line.gain
        group = (line.tier_order, shown.get(line.edition, len(order)), line.edition, line.split)
        return (*group, line.multiple, line.track_order, rank, gain, line.id)

    return [replace(line, order=number) for number, line in enumerate(sorted(found, key=place))]


@dataclass(frozen=True)
class Scale:
    """The axis that the gains of all entries are drawn on, as fractions. Places are in percent of its width."""

    low: float
    high: float

    @classmethod
    def of(cls, found: Sequence[Line]) -> Scale:
        """Wide enough for every gain and interval, its ends at whole tens of points."""
        values = [0.0, *(end for line in found for end in (line.interval or ())), *(line.gain or 0.0 for line in found)]
        return cls(math.floor(min(values) * 10) / 10, max(math.ceil(max(values) * 10) / 10, 0.1))

    def at(self, value: float) -> str:
        return f"{2.5 + 95 * (value - self.low) / (self.high - self.low):.2f}%"

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Zero, and the ends where they are far enough from it to be told apart."""
        ends = [end for end in (self.low, 0.0, self.high) if end == 0 or abs(end) * 4 > self.high - self.low]
        return [(end, f"{100 * end:+.0f}".replace("-", "\N{MINUS SIGN}") if end else "0") for end in ends]

    def anchor(self, tick: float) -> str:
        if self.low < tick < self.high:
            return "middle"
        return "start" if tick == self.low else "end"
