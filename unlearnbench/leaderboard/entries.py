"""The leaderboard's entries: made from verified bundles, and read.

    leaderboard/entries/<id>/<source>.py                                     the method's source, once
    leaderboard/entries/<id>/<edition>/{entry,result}.json                   `Entry`, and the result as measured here
                                      /{counts,fates,curves,answers}.parquet  what result and page rest on
                                      /bundle.json                           where the bundle lies, of which all follows

A re-trained entry (retrain_edition.py) lies beside the one that it was trained from, in the folder of its edition. The
split of a closed edition lies in `leaderboard/editions/<name>/`, so that the board needs nothing else.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files, tables
from unlearnbench.leaderboard.answer_archive import answers_of
from unlearnbench.leaderboard.bundles.address import BUNDLE, BundleRef, fetched, ref_of
from unlearnbench.leaderboard.editions import DAY, ENTRIES, current_edition
from unlearnbench.leaderboard.verification import Checked, examine
from unlearnbench.records import Record, Result
from unlearnbench.scoring.curves import training_curves
from unlearnbench.splits import Split

Tier = Literal["self-reported", "re-scored", "re-measured", "re-trained"]
"""What stands behind an entry, the strongest last. `re-scored` entries are from before weights were measured again; no
entry gets this tier any more."""
TIERS: tuple[Tier, ...] = get_args(Tier)
_ID = r"[a-z0-9][a-z0-9_.-]{0,79}"


class Entry(Record):
    """entry.json: what is known of an entry beside its result."""

    schema_version: Literal[1] = 1
    id: str = Field(pattern=f"^{_ID}$")
    """The name of its folder; `<name>-<edition>` of a re-trained entry."""
    name: str = Field(min_length=1, max_length=100)
    authors: Sequence[str] = ()
    url: str | None = None
    tier: Tier
    edition: str
    tried: int | None = Field(default=None, ge=1)
    source: str
    """The method's file, in the entry's folder."""
    bundle: str | None = None
    """SHA-256 of the manifest of the bundle that it was made of; None for an entry without one."""
    class_name: str = Field(default="", pattern=r"^[A-Za-z_]?[A-Za-z0-9_]{0,99}$")
    """The method's class in its file, where that has several."""
    sampler: Literal["transformers", "vllm"] = "transformers"
    """Which sampler drew."""
    trained_from: str | None = None
    """Of a re-trained entry: the id of the entry whose source, settings and budget it was trained with."""
    withdrawn: str | None = None
    """Why the entry was withdrawn; it is then shown, and not ranked."""
    entered: str | None = Field(default=None, pattern=DAY)
    """The day (UTC) on which it was first written; None for entries from before it was stated."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Entries that say nothing of class, sampler and day stay as they were written."""
        stated: dict[str, Any] = serialise(self)
        return {
            name: value
            for name, value in stated.items()
            if (name, value) not in (("class_name", ""), ("sampler", "transformers"), ("entered", None))
        }

    @property
    def place(self) -> str:
        """Its folder of one edition, relative to that of all entries."""
        return f"{self.trained_from or self.id}/{self.edition}"


@dataclass(frozen=True)
class BoardEntry:
    """An entry as it is read; `folder` is that of its edition."""

    folder: Path
    entry: Entry
    result: Result

    @cached_property
    def counts(self) -> pa.Table:
        return tables.read_counts(self.folder / "counts.parquet")

    @property
    def answers(self) -> Path:
        return self.folder / "answers.parquet"

    @property
    def source(self) -> Path:
        """The method's file."""
        return self.folder.parent / self.entry.source

    @property
    def place(self) -> str:
        return self.entry.place


# --- entering -------------------------------------------------------------------------------------------------


def enter(
    what: str | Path,
    entries: Path = ENTRIES,
    *,
    id: str | None = None,
    tier: Literal["self-reported", "re-measured"] = "re-measured",
    edition: str | None = None,
    split: Split | None = None,
    workers: int | None = None,
) -> BoardEntry:
    """Verify a bundle and write the entry that it makes. Raises RunError with the reasons where it is refused.

    `what` is the bundle's path, address or bundle.json. `id` defaults to `free_id`, or to the entry's folder where that
    bundle.json lies in one. Weights are measured again unless the tier is `self-reported`.
    """
    with fetched(what) as found:
        reasons, checked = examine(found.path, split, workers=workers, measure=tier == "re-measured")
        if reasons or checked is None:
            told = "; ".join(f"{reason.check}: {reason.reason}" for reason in reasons[:3])
            raise RunError(f"{what} is refused, so it makes no entry: {told}")
        ref = found.ref or ref_of(found.path)
    statement, result = checked.bundle.statement, checked.result
    chosen = id or _home(Path(what), entries) or free_id(result, checked.bundle.sha256, entries)
    if not re.fullmatch(_ID, chosen):
        raise RunError(f"{chosen!r} cannot be an entry's id; use small letters, digits, '-', '_' and '.', at most 80")
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
        class_name=checked.bundle.first.method.class_name,
        sampler=checked.bundle.first.config.engine.name,
    )
    return write_entry(entries, entry, checked, ref)


def _home(what: Path, entries: Path) -> str | None:
    """The entry in whose folder a bundle.json lies."""
    edition = what.parent if what.name == BUNDLE else what
    home = edition.resolve().parent
    return home.name if home.parent == entries.resolve() and (edition / BUNDLE).is_file() else None


def write_entry(entries: Path, entry: Entry, checked: Checked, ref: BundleRef) -> BoardEntry:
    """Write what follows from a verified bundle; entry.json comes last, so that a half-written folder is not an entry.

    Raises RunError where the entry's folder holds another source: it has one for all editions.
    """
    folder = entries / entry.place
    source = folder.parent / entry.source
    others = [path for path in folder.parent.glob("*.py") if path.read_bytes() != checked.bundle.source]
    if others:
        raise RunError(f"{others[0]} is another source than the bundle's; an entry has one: choose another --id")
    files.write_json(folder / "result.json", checked.result)
    tables.write_parquet(folder / "counts.parquet", checked.drawn.counts)
    tables.write_parquet(folder / "fates.parquet", checked.fates)
    tables.write_parquet(folder / "answers.parquet", answers_of(checked.drawn, checked.split))
    groups = {item.item_id: item.group for item in checked.split.items}
    tables.write_parquet(folder / "curves.parquet", training_curves(checked.visits, groups))
    files.write_json(folder / BUNDLE, ref)
    if not source.is_file():
        files.write_bytes(source, checked.bundle.source)
    entry = entry.model_copy(update={"entered": _first_day(folder, entry)})
    files.write_json(folder / "entry.json", entry)
    return BoardEntry(folder, entry, checked.result)


def _first_day(folder: Path, entry: Entry) -> str:
    """Today, or the day on which the same bundle was entered here before."""
    if (folder / "entry.json").is_file():
        before = tables.read_json_record(folder / "entry.json", Entry)
        if before.bundle == entry.bundle and before.entered is not None:
            return before.entered
    return datetime.now(UTC).date().isoformat()


def free_id(result: Result, bundle: str, entries: Path = ENTRIES) -> str:
    """`<method>-<budget>`, with a number where other bundles have this id: the first that is free or this bundle's.

    An id is that of one source and one entry, whatever the edition.
    """
    name = _default_id(result)
    for number in itertools.count(1):
        chosen = name if number == 1 else f"{name}-{number}"
        stated = [tables.read_json_record(path, Entry) for path in (entries / chosen).glob("*/entry.json")]
        if not (entries / chosen).is_dir() or any(entry.bundle == bundle for entry in stated):
            return chosen
    raise AssertionError("there is always another number")


def _default_id(result: Result) -> str:
    """<method>-<budget>, in the characters that an id may have."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", result.method.name.lower()).strip("-.") or "method"
    budget = "quick" if result.budget.multiple is None else f"{result.budget.multiple:g}x"
    return f"{name}-{budget}"


# --- the board ------------------------------------------------------------------------------------------------


def read_entries(entries: Path = ENTRIES) -> list[BoardEntry]:
    """All entries, by id. One that was trained again from a withdrawn entry is withdrawn with it.

    Raises RunError where the folder is missing, DataError where an entry is malformed or does not lie where it belongs.
    """
    if not entries.is_dir():
        raise RunError(f"there is no folder {entries}; name the entries' folder with --entries")
    found: dict[str, BoardEntry] = {}
    for path in entries.glob("*/*/entry.json"):
        one = read_entry(path.parent)
        if one.place != path.parent.relative_to(entries).as_posix():
            raise DataError(f"{path}, fields 'id' and 'edition': the entry belongs into {entries / one.place}; move it")
        if one.entry.id in found:
            raise DataError(
                f"{path}, field 'id': {one.entry.id!r} is the id of {found[one.entry.id].folder}, too; rename one"
            )
        found[one.entry.id] = one
    gone = {one.entry.id: one.entry.withdrawn for one in found.values() if one.entry.withdrawn is not None}
    return [
        replace(one, entry=one.entry.model_copy(update={"withdrawn": gone[origin]}))
        if (origin := one.entry.trained_from) in gone
        else one
        for _, one in sorted(found.items())
    ]


def read_entry(folder: Path) -> BoardEntry:
    """The entry in a folder of one edition. Raises DataError where a file is missing or malformed."""
    entry = tables.read_json_record(folder / "entry.json", Entry)
    return BoardEntry(folder, entry, tables.read_json_record(folder / "result.json", Result))
