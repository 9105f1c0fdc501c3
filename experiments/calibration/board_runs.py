"""The runs that a checkout holds: entries and null controls of the board's editions, with the split of each edition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from unlearnbench.leaderboard.editions import editions, find_splits
from unlearnbench.leaderboard.entries import read_entries
from unlearnbench.records import Item
from unlearnbench.splits import Control, Split

ENTRIES = Path(__file__).resolve().parents[2] / "leaderboard" / "entries"

FEWEST = 5
"""Entries from which an edition says something about how methods differ."""


@dataclass(frozen=True)
class BoardRun:
    """The counts of one entry: a method's runs on one edition."""

    method: str
    counts: pa.Table
    runs: tuple[str, ...]
    """Its seeds, as the counts name them."""


@dataclass(frozen=True)
class Board:
    """One edition: its split and its entries of one track at the budget of the reference runs."""

    name: str
    split: Split
    entries: tuple[BoardRun, ...]

    @cached_property
    def unlearnable(self) -> list[Item]:
        return [item for item in self.split.items if item.group == "unlearnable"]

    @cached_property
    def null(self) -> Control:
        """The null control at 1x. Raises ValueError where the edition has none."""
        found = self.split.control("null_control", "1x")
        if found is None:
            raise ValueError(f"edition {self.name} has no null control")
        return found


def boards(track: str | None = "verifier", entries: Path = ENTRIES) -> list[Board]:
    """Every edition with at least FEWEST entries of a track (None: of all tracks), the oldest edition first."""
    find, every = find_splits(entries), read_entries(entries)
    found = []
    for edition in editions(entries):
        held = [
            one
            for one in every
            if one.entry.edition == edition.name
            and one.entry.withdrawn is None
            and one.result.budget.multiple == 1.0
            and track in (None, one.result.method.track)
        ]
        runs = tuple(
            BoardRun(one.result.method.name, one.counts, tuple(str(seed) for seed in one.result.seeds)) for one in held
        )
        if len(held) >= FEWEST:
            found.append(Board(edition.name, find(held[0].result), runs))
    return found
