"""The leaderboard's entries: `leaderboard/entries/<id>/`, made from verified bundles, ranked, and scored again.

An entry holds entry.json (`Entry`), result.json as computed here, counts.parquet, fates.parquet, answers.parquet
(kept_answers.py), the method's source, and bundle.zip, from which all of it follows. A re-trained entry (retrained.py)
lies beside the one that it was trained from, in `<id>-<edition>/`, and keeps no bundle. The split of a closed edition
lies in `leaderboard/editions/<name>/` (closing.py), so that the board can be made again without having made it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
from pydantic import Field

from unlearnbench import conversion, tables
from unlearnbench.errors import RunError, SplitError
from unlearnbench.kept_answers import answers_of, counts_of_answers
from unlearnbench.records import Record, Result
from unlearnbench.splits import Split, load_split, shipped_splits
from unlearnbench.standings import Contender, Standing, standings
from unlearnbench.verification import Checked, examine

Tier = Literal["self-reported", "re-scored", "re-trained"]
TIERS: tuple[Tier, ...] = get_args(Tier)
ENTRIES = Path("leaderboard/entries")
EDITIONS = "editions.json"
EDITION_SPLITS = "editions"
BUNDLE = "bundle.zip"
_ID = r"[a-z0-9][a-z0-9_.-]{0,79}"


class Edition(Record):
    """One round of the board: the split on which its re-trained entries are trained."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,39}$")
    split: str
    split_hash: str
    variant: int | None = None
    """Seed of the sealed variant of micro, drawn after the commits of all entries; None: the shipped split itself."""
    drawn_from: str | None = None
    """What the seed was drawn from, so that anybody can draw it again: the commit that closed the edition."""


class Entry(Record):
    """entry.json: what is known of an entry beside its result."""

    schema_version: Literal[1] = 1
    id: str = Field(pattern=f"^{_ID}$")
    name: str = Field(min_length=1, max_length=100)
    authors: Sequence[str] = ()
    url: str | None = None
    tier: Tier
    edition: str
    tried: int | None = Field(default=None, ge=1)
    source: str
    """The method's file, in the entry's folder."""
    bundle: str | None = None
    """SHA-256 of bundle.zip's manifest; None for an entry without one."""
    trained_from: str | None = None
    """Of a re-trained entry: the id of the entry whose source, settings and budget it was trained with."""
    withdrawn: str | None = None
    """Why the entry was withdrawn; it is then shown, and not ranked."""


@dataclass(frozen=True)
class BoardEntry:
    """An entry's folder as it is read."""

    folder: Path
    entry: Entry
    result: Result

    @cached_property
    def counts(self) -> pa.Table:
        return tables.read_counts(self.folder / "counts.parquet")

    @property
    def answers(self) -> Path:
        return self.folder / "answers.parquet"


class Row(Record):
    """A line of the board: an entry and its place among those of its tier, edition, split, track and budget."""

    entry: Entry
    standing: Standing


class Moved(Record):
    """What a scorer change did to an entry."""

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


# --- entering -------------------------------------------------------------------------------------------------


def enter(
    bundle: Path,
    entries: Path = ENTRIES,
    *,
    id: str | None = None,
    tier: Tier = "re-scored",
    edition: str | None = None,
    split: Split | None = None,
    workers: int | None = None,
) -> BoardEntry:
    """Verify a bundle and write the entry that it makes. Raises RunError with the reasons where it is refused.

    `id` defaults to `<method>-<budget>`, or the folder's name where the bundle already lies in an entry.
    """
    found, checked = examine(bundle, split, workers=workers)
    if found or checked is None:
        told = "; ".join(f"{reason.check}: {reason.reason}" for reason in found[:3])
        raise RunError(f"{bundle} is refused, so it makes no entry: {told}")
    statement, result = checked.bundle.statement, checked.result
    home = bundle.resolve().parent
    chosen = id or (home.name if home.parent == entries.resolve() else default_id(result))
    if not re.fullmatch(_ID, chosen):
        raise RunError(f"{chosen!r} is no id of an entry; take small letters, digits, '-', '_' and '.', at most 80")
    folder = entries / chosen
    entry = Entry(
        id=chosen,
        name=statement.name,
        authors=statement.authors,
        url=statement.url,
        tier=tier,
        edition=current_edition(entries, result) if edition is None else edition,
        tried=statement.tried,
        source=Path(checked.bundle.source_name).name,
        bundle=checked.bundle.sha256,
    )
    content = bundle.read_bytes()
    if not (folder / BUNDLE).is_file() or (folder / BUNDLE).read_bytes() != content:
        tables.write_bytes(folder / BUNDLE, content)
    return write_entry(folder, entry, checked)


def write_entry(folder: Path, entry: Entry, checked: Checked) -> BoardEntry:
    """Write what follows from a verified bundle; entry.json comes last, so that a half-written folder is none."""
    tables.write_json(folder / "result.json", checked.result)
    tables.write_parquet(folder / "counts.parquet", checked.judged.counts)
    tables.write_bytes(folder / "fates.parquet", checked.bundle.members["fates.parquet"])
    tables.write_parquet(folder / "answers.parquet", answers_of(checked.judged, checked.split))
    tables.write_bytes(folder / entry.source, checked.bundle.source)
    tables.write_json(folder / "entry.json", entry)
    return BoardEntry(folder, entry, checked.result)


def default_id(result: Result) -> str:
    """<method>-<budget>, in the characters that an id may have."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", result.method.name.lower()).strip("-.") or "method"
    budget = "quick" if result.budget.multiple is None else f"{result.budget.multiple:g}x"
    return f"{name}-{budget}"


def editions(entries: Path = ENTRIES) -> tuple[Edition, ...]:
    """All editions, the oldest first, as editions.json beside the entries' folder lists them."""
    path = entries.parent / EDITIONS
    return tables.read_records(path, Edition) if path.is_file() else ()


def current_edition(entries: Path, result: Result) -> str:
    """The newest edition of a result's split. Raises RunError where there is none."""
    of_split = [edition.name for edition in editions(entries) if edition.split_hash == result.split_hash]
    if not of_split and not (entries.parent / EDITIONS).is_file():
        raise RunError(
            f"there is no {entries.parent / EDITIONS} here; go to the root of a checkout, or name its entries with "
            "--entries"
        )
    if not of_split:
        raise RunError(
            f"{entries.parent / EDITIONS} has no edition of split {result.split} ({result.split_hash[:12]}); add one, "
            "or name one with --edition"
        )
    return of_split[-1]


# --- the board ------------------------------------------------------------------------------------------------


def read_entries(entries: Path = ENTRIES) -> list[BoardEntry]:
    """All entries, by id. One that was trained again from a withdrawn entry is withdrawn with it.

    Raises RunError where the folder is missing, DataError where an entry is malformed.
    """
    if not entries.is_dir():
        raise RunError(f"there is no folder {entries}; name the entries' folder with --entries")
    found = []
    for path in sorted(entries.glob("*/entry.json")):
        entry = tables.read_json_record(path, Entry)
        if entry.id != path.parent.name:
            raise RunError(f"{path}, field 'id': {entry.id!r} is not the name of its folder; rename one of them")
        found.append(BoardEntry(path.parent, entry, tables.read_json_record(path.parent / "result.json", Result)))
    gone = {one.entry.id: one.entry.withdrawn for one in found if one.entry.withdrawn is not None}
    return [
        replace(one, entry=one.entry.model_copy(update={"withdrawn": gone[origin]}))
        if (origin := one.entry.trained_from) in gone
        else one
        for one in found
    ]


def edition_places(order: Sequence[str], entries: Sequence[Entry]) -> dict[str, int]:
    """Where the board shows each edition, 0 first: the newest first (`order` has the oldest first).

    One with fewer than half as many re-trained entries as an older one is still being trained, and comes after these.
    """
    trained = Counter(entry.edition for entry in entries if entry.tier == "re-trained")
    most = [max((trained[name] for name in order[:place]), default=0) for place in range(len(order))]
    begun = [name for name, before in zip(order, most, strict=True) if 2 * trained[name] < before]
    shown = [*(name for name in reversed(order) if name not in begun), *reversed(begun)]
    return {name: place for place, name in enumerate(shown)}


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


def find_splits(entries: Path = ENTRIES, folders: Sequence[str | Path] = ()) -> Callable[[Result], Split]:
    """What gives the split of a result: of those in `folders`, those shipped, and those of closed editions.

    Raises SplitError, then and there or when called, where there is none.
    """
    known = {split.hash: split for split in map(load_split, folders)}
    places = {edition.split_hash: edition_folder(entries, edition.name) for edition in editions(entries)}

    def find(result: Result) -> Split:
        wanted = result.split_hash
        if wanted not in known:
            place = places.get(wanted)
            known[wanted] = load_split(place) if place and (place / "split.yaml").is_file() else split_of(result)
        if known[wanted].hash != wanted:
            raise SplitError(
                f"{known[wanted].path} is not the split of its edition (its hash is {known[wanted].hash[:12]}, and "
                f"{EDITIONS} says {wanted[:12]}); restore it (git checkout)"
            )
        return known[wanted]

    return find


def edition_folder(entries: Path, name: str) -> Path:
    """Where the split of a closed edition is kept."""
    return entries.parent / EDITION_SPLITS / name


def split_of(result: Result) -> Split:
    """The shipped split that a result was scored on. Raises SplitError where its labels are of another version."""
    for name in shipped_splits():
        if (split := load_split(name)).hash == result.split_hash:
            return split
    raise SplitError(
        f"split {result.split!r} with the labels {result.split_hash[:12]} is not shipped here: labels of another "
        "version are not compared; name the split's folder with --split"
    )


def rescore(
    entries: Sequence[BoardEntry],
    splits: Callable[[Result], Split] | None = None,
    *,
    workers: int = 1,
) -> tuple[list[Moved], dict[str, tuple[Result, pa.Table]]]:
    """Judge every entry's answers and score them again: what moved, and the new results and counts by id.

    A self-reported entry without answers stays as it is. Raises RunError naming another one without answers.parquet.
    """
    find = splits or split_of
    before = {row.entry.id: row for row in board(entries, find)}
    again: dict[str, tuple[Result, pa.Table]] = {}
    for one in entries:
        if not one.answers.is_file() and one.entry.tier == "self-reported":
            again[one.entry.id] = (one.result, one.counts)  # nothing to judge: its word is all there is
            continue
        if not one.answers.is_file():
            raise RunError(
                f"{one.folder} has no answers.parquet, so it cannot be scored again; enter its bundle with "
                "`unlearnbench leaderboard enter`"
            )
        split = find(one.result)
        counts = counts_of_answers(one.answers, split, workers)
        again[one.entry.id] = (scored_again(one.result, counts, split), counts)
    contenders = {one.entry.id: _contender(one.entry, *again[one.entry.id]) for one in entries}
    after = {row.entry.id: row for row in _board(entries, contenders, find)}
    return [_moved(one, again[one.entry.id][0], before, after) for one in entries], again


def scored_again(result: Result, counts: pa.Table, split: Split) -> Result:
    """A result with everything that follows from counts computed again; what was metered or declared is kept."""
    multiple = result.budget.multiple
    unfair = None if result.comparable else result.why_not_comparable
    return conversion.score(
        split,
        counts,
        method=result.method,
        seeds=result.seeds,
        samples=result.samples,
        sampling=result.sampling,
        budget=result.budget,
        cost=result.cost,
        code_version=result.code_version,
        kind=result.kind,
        fates=result.fates,
        null=split.control("null_control", f"{multiple:g}x") if result.conversion.null_hash else None,
        strong_null=split.control("strong_null") if result.conversion.strong_null_seeds else None,
        why_not_comparable=unfair,
    )


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
