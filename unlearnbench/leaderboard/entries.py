"""The leaderboard's entries: `leaderboard/entries/<id>/`, made from verified bundles, ranked, and scored again.

An entry holds entry.json (`Entry`), result.json as computed here, counts.parquet, fates.parquet, answers.parquet
(kept_answers.py), the method's source, and bundle.zip, from which all of it follows. A re-trained entry (retrained.py)
lies beside the one that it was trained from, in `<id>-<edition>/`, and keeps no bundle. The split of a closed edition
lies in `leaderboard/editions/<name>/` (closing.py), so that the board can be made again without having made it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
from pydantic import Field

from unlearnbench.errors import RunError
from unlearnbench.io import files, tables
from unlearnbench.leaderboard.answer_archive import answers_of
from unlearnbench.leaderboard.editions import ENTRIES, current_edition
from unlearnbench.leaderboard.verification import Checked, examine
from unlearnbench.records import Record, Result
from unlearnbench.splits import Split

Tier = Literal["self-reported", "re-scored", "re-trained"]
TIERS: tuple[Tier, ...] = get_args(Tier)
BUNDLE = "bundle.zip"
_ID = r"[a-z0-9][a-z0-9_.-]{0,79}"


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
        files.write_bytes(folder / BUNDLE, content)
    return write_entry(folder, entry, checked)


def write_entry(folder: Path, entry: Entry, checked: Checked) -> BoardEntry:
    """Write what follows from a verified bundle; entry.json comes last, so that a half-written folder is none."""
    files.write_json(folder / "result.json", checked.result)
    tables.write_parquet(folder / "counts.parquet", checked.judged.counts)
    files.write_bytes(folder / "fates.parquet", checked.bundle.members["fates.parquet"])
    tables.write_parquet(folder / "answers.parquet", answers_of(checked.judged, checked.split))
    files.write_bytes(folder / entry.source, checked.bundle.source)
    files.write_json(folder / "entry.json", entry)
    return BoardEntry(folder, entry, checked.result)


def default_id(result: Result) -> str:
    """<method>-<budget>, in the characters that an id may have."""
    name = re.sub(r"[^a-z0-9_.-]+", "-", result.method.name.lower()).strip("-.") or "method"
    budget = "quick" if result.budget.multiple is None else f"{result.budget.multiple:g}x"
    return f"{name}-{budget}"


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
