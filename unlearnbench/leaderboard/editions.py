"""Editions of the board: the open split and the sealed variants that entries are trained on again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from unlearnbench.errors import RunError, SplitError
from unlearnbench.io import tables
from unlearnbench.records import Record, Result
from unlearnbench.splits import Split, load_split, shipped_splits

ENTRIES = Path("leaderboard/entries")
EDITIONS = "editions.json"
EDITION_SPLITS = "editions"

CHAIN = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
"""The chain of drand's public beacon `quicknet`: a value every PERIOD seconds, which nobody can know or choose."""
GENESIS, PERIOD = 1_692_803_367, 3
"""When its first round was published, in seconds since 1970, and seconds from one round to the next."""
DAY = r"^\d{4}-\d{2}-\d{2}$"
DELAY = 3600
"""Seconds from the closing commit to the round that is drawn from, at least."""


class Beacon(Record):
    """A value of the public beacon: of round `round`, its randomness in hexadecimal."""

    round: int = Field(ge=1)
    value: str = Field(pattern=r"^[0-9a-f]{64}$")


class Edition(Record):
    """One round of the board: the split on which its re-trained entries are trained."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,39}$")
    split: str
    split_hash: str
    variant: int | None = None
    """Seed of the sealed variant of micro, drawn after the commits of all entries; None: the shipped split itself."""
    drawn_from: str | None = None
    """The commit that closed the edition, which its seed was drawn from."""
    beacon: Beacon | None = None
    """The beacon's value that its seed was drawn from, too; None for editions that were drawn from the commit alone."""
    entered: str | None = Field(default=None, pattern=DAY)
    """The day of its entries that do not state their own: they are from before an entry did."""


def round_after(time: int) -> int:
    """The first round of the beacon that is published DELAY seconds after a time (in seconds since 1970), or later."""
    return 1 + math.ceil(max(0, time + DELAY - GENESIS) / PERIOD)


def published(round: int) -> int:
    """When a round is published, in seconds since 1970."""
    return GENESIS + (round - 1) * PERIOD


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


def find_splits(entries: Path = ENTRIES, folders: Sequence[str | Path] = ()) -> Callable[[Result], Split]:
    """A function that gives the split of a result: one in `folders`, a shipped one, or that of a closed edition.

    Raises SplitError, here or in that function, where there is none.
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
        f"split {result.split!r} with the labels {result.split_hash[:12]} is not shipped here, and results of "
        "different labels are not compared; name the split's folder with --split"
    )
