"""The board: entries ranked within their track and budget, and scored again after a change of the scorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from unlearnbench.errors import RunError
from unlearnbench.leaderboard.answer_archive import counts_of_answers
from unlearnbench.leaderboard.editions import split_of
from unlearnbench.leaderboard.entries import TIERS, BoardEntry, Entry, Tier
from unlearnbench.leaderboard.ranking import Contender, Standing, standings
from unlearnbench.leaderboard.verification.scores import Facts, scored
from unlearnbench.records import Record, Result
from unlearnbench.splits import Split


class Row(Record):
    """A row of the board: an entry and its standing in its tier, edition, split, track and budget."""

    entry: Entry
    standing: Standing


class Moved(Record):
    """The effect of a scorer change on an entry."""

    id: str
    tier: Tier
    rank_before: int | None
    rank_after: int | None
    converted_before: int | None
    converted_after: int | None
    gain_before: float | None
    gain_after: float | None

    @property
    def moved(self) -> bool:
        return self.rank_before != self.rank_after


def board(
    entries: Sequence[BoardEntry], splits: Callable[[Result], Split] | None = None, order: Sequence[str] = ()
) -> list[Row]:
    """Every entry with its standing: tiers, editions and splits apart, those without a rank last.

    The re-trained tier comes first, and the editions as in `edition_places`; `order` names them, the oldest first.
    """
    find = splits or split_of
    contenders = {one.entry.id: _contender(one.entry, one.result, one.counts) for one in entries}
    return _board(entries, contenders, find, order)


def _contender(entry: Entry, result: Result, counts: pa.Table) -> Contender:
    return Contender(entry.id, result, counts, ranked=entry.withdrawn is None and entry.tried is not None)


def _board(
    entries: Sequence[BoardEntry],
    contenders: Mapping[str, Contender],
    find: Callable[[Result], Split],
    order: Sequence[str] = (),
) -> list[Row]:
    shown = edition_places(order, [one.entry for one in entries])
    groups: dict[tuple[int, int, str, str], list[BoardEntry]] = {}
    for one in entries:
        edition = one.entry.edition
        key = (-TIERS.index(one.entry.tier), shown.get(edition, len(order)), edition, one.result.split_hash)
        groups.setdefault(key, []).append(one)
    rows: list[Row] = []
    for _, group in sorted(groups.items(), key=lambda pair: pair[0]):
        by_id = {one.entry.id: one.entry for one in group}
        split = find(group[0].result)
        rows += [Row(entry=by_id[at.id], standing=at) for at in standings([contenders[name] for name in by_id], split)]
    return rows


def rescore(
    entries: Sequence[BoardEntry],
    splits: Callable[[Result], Split] | None = None,
    *,
    workers: int = 1,
) -> tuple[list[Moved], dict[str, tuple[Result, pa.Table]]]:
    """Judge every entry's answers and score them again: what changed, and the new results and counts by id.

    A self-reported entry without answers stays as it is. Raises RunError naming another one without answers.parquet.
    """
    find = splits or split_of
    before = {row.entry.id: row for row in board(entries, find)}
    again: dict[str, tuple[Result, pa.Table]] = {}
    for one in entries:
        if not one.answers.is_file() and one.entry.tier == "self-reported":
            again[one.entry.id] = (one.result, one.counts)  # there is nothing to judge
            continue
        if not one.answers.is_file():
            raise RunError(
                f"{one.folder} has no answers.parquet, so it cannot be scored again; enter its bundle with "
                "`unlearnbench leaderboard enter`"
            )
        split = find(one.result)
        counts = counts_of_answers(one.answers, split, workers)
        again[one.entry.id] = (scored(counts, split, Facts.of_result(one.result)), counts)
    contenders = {one.entry.id: _contender(one.entry, *again[one.entry.id]) for one in entries}
    after = {row.entry.id: row for row in _board(entries, contenders, find)}
    return [_moved(one, again[one.entry.id][0], before, after) for one in entries], again


def _moved(one: BoardEntry, result: Result, before: Mapping[str, Row], after: Mapping[str, Row]) -> Moved:
    name = one.entry.id
    return Moved(
        id=name,
        tier=one.entry.tier,
        rank_before=before[name].standing.rank,
        rank_after=after[name].standing.rank,
        converted_before=one.result.groups["unlearnable"].converted,
        converted_after=result.groups["unlearnable"].converted,
        gain_before=one.result.conversion.gain,
        gain_after=result.conversion.gain,
    )


def edition_places(order: Sequence[str], entries: Sequence[Entry]) -> dict[str, int]:
    """The position of each edition on the board, from 0: the newest first (`order` has the oldest first).

    One with fewer than half as many re-trained entries as an older one is still being trained, and comes after these.
    """
    trained = Counter(entry.edition for entry in entries if entry.tier == "re-trained")
    most = [max((trained[name] for name in order[:place]), default=0) for place in range(len(order))]
    begun = [name for name, before in zip(order, most, strict=True) if 2 * trained[name] < before]
    shown = [*(name for name in reversed(order) if name not in begun), *reversed(begun)]
    return {name: place for place, name in enumerate(shown)}
