"""The board: entries ranked within their track and budget, by edition or pooled, and scored again by a new scorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from unlearnbench.errors import RunError
from unlearnbench.leaderboard.answer_archive import counts_of_answers
from unlearnbench.leaderboard.editions import split_of
from unlearnbench.leaderboard.entries import TIERS, BoardEntry, Entry, Tier
from unlearnbench.leaderboard.ranking import Contender, Standing, standings
from unlearnbench.leaderboard.verification.scores import facts_of_result, scored
from unlearnbench.records import Record, Result
from unlearnbench.splits import Split


class Row(Record):
    """A row of the board: an entry, and its standing in its tier, track and budget.

    Of a pooled row `entry` is that of the newest edition, and the standing is over all editions that hold one.
    """

    entry: Entry
    standing: Standing


class Moved(Record):
    """The effect of a scorer change on an entry."""

    id: str
    tier: Tier
    score_version_before: int
    rank_before: tuple[int, int] | None
    rank_after: tuple[int, int] | None
    converted_before: float | None
    """Items, the mean over seeds in score version 2."""
    converted_after: float | None
    gain_before: float | None
    gain_after: float | None

    @property
    def moved(self) -> bool:
        return self.rank_before != self.rank_after


def board(
    entries: Sequence[BoardEntry], splits: Callable[[Result], Split] | None = None, order: Sequence[str] = ()
) -> list[Row]:
    """Every entry with its standing in its edition: tiers, editions and splits apart, those without a rank last.

    The re-trained tier comes first, and the editions as in `edition_places`; `order` names them, the oldest first.
    """
    return _board(entries, _contenders(entries, splits), order)


def pooled_board(
    entries: Sequence[BoardEntry], splits: Callable[[Result], Split] | None = None, order: Sequence[str] = ()
) -> list[Row]:
    """Every method with its standing over the editions that hold an entry of it, tiers apart (PROTOCOL 3.11)."""
    contenders = _contenders(entries, splits)
    age = {name: place for place, name in enumerate(order)}
    pools: dict[tuple[int, str], list[BoardEntry]] = {}
    for one in sorted(entries, key=lambda one: (age.get(one.entry.edition, len(age)), one.entry.edition)):
        pools.setdefault((-TIERS.index(one.entry.tier), one.entry.trained_from or one.entry.id), []).append(one)
    rows: list[Row] = []
    for tier in sorted({tier for tier, _ in pools}):
        of_tier = {name: held for (at, name), held in pools.items() if at == tier}
        found = standings(
            [(name, [contenders[one.entry.id] for one in held]) for name, held in of_tier.items()],
            [[one.entry.edition for one in held] for held in of_tier.values()],
        )
        rows += [Row(entry=of_tier[at.id][-1].entry, standing=at) for at in found]
    return rows


def _contenders(
    entries: Sequence[BoardEntry],
    splits: Callable[[Result], Split] | None,
    again: Mapping[str, tuple[Result, pa.Table]] | None = None,
) -> dict[str, Contender]:
    """Every entry as it is ranked, by id; with the results and counts of `again` where it has them."""
    find, found = splits or split_of, {}
    for one in entries:
        result, counts = (again or {}).get(one.entry.id) or (one.result, one.counts)
        ranked = one.entry.withdrawn is None and one.entry.tried is not None
        found[one.entry.id] = Contender(one.entry.id, result, counts, find(result), ranked)
    return found


def _board(entries: Sequence[BoardEntry], contenders: Mapping[str, Contender], order: Sequence[str] = ()) -> list[Row]:
    shown = edition_places(order, [one.entry for one in entries])
    groups: dict[tuple[int, int, str, str], list[BoardEntry]] = {}
    for one in entries:
        edition = one.entry.edition
        key = (-TIERS.index(one.entry.tier), shown.get(edition, len(order)), edition, one.result.split_hash)
        groups.setdefault(key, []).append(one)
    rows: list[Row] = []
    for (_, _, edition, _), group in sorted(groups.items(), key=lambda pair: pair[0]):
        by_id = {one.entry.id: one.entry for one in group}
        found = standings([(name, [contenders[name]]) for name in by_id], [[edition]] * len(by_id))
        rows += [Row(entry=by_id[at.id], standing=at) for at in found]
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
        again[one.entry.id] = (scored(counts, split, facts_of_result(one.result)), counts)
    after = {row.entry.id: row for row in _board(entries, _contenders(entries, find, again))}
    return [_moved(one, again[one.entry.id][0], before, after) for one in entries], again


def _moved(one: BoardEntry, result: Result, before: Mapping[str, Row], after: Mapping[str, Row]) -> Moved:
    name = one.entry.id
    return Moved(
        id=name,
        tier=one.entry.tier,
        score_version_before=one.result.schema_version,
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
