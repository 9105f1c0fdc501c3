"""The board as board.json and board.csv: the rows of its table as numbers, for those who calculate with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from unlearnbench.io.files import write_json, write_text
from unlearnbench.leaderboard.site.board_page import Line
from unlearnbench.records import Record


class BoardRow(Record):
    """A row. Gains and shares are fractions; unknown is None (empty in the csv)."""

    id: str
    name: str
    does: str
    paper: str | None
    track: str
    budget: str
    tier: str
    edition: str
    split: str
    rank_best: int | None
    rank_worst: int | None
    ranked: int | None
    """Entries that are ranked together."""
    beats_both_nulls: bool
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    converted: float | None
    converted_by_null: float | None
    solved_gain: float | None
    memorised: float | None
    frontier_gain: float | None
    frontier_gain_low: float | None
    frontier_gain_high: float | None
    easy_lost: float | None
    seeds: int
    flops_per_seed: float | None
    entered: str | None
    """The day of the entry, of a pooled row of the newest."""


class BoardFile(Record):
    """board.json: all rows, in the order of the board."""

    schema_version: Literal[1] = 1
    rows: Sequence[BoardRow]


def write_downloads(out: Path, found: Sequence[Line]) -> None:
    """Write board.json and board.csv to the folder `out`."""
    rows = [_row(line) for line in found]
    write_json(out / "board.json", BoardFile(rows=rows))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(BoardRow.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.model_dump().items()} for row in rows)
    write_text(out / "board.csv", text.getvalue())


def _cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front of it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _row(line: Line) -> BoardRow:
    at = line.standing
    best, worst = at.rank or (None, None)
    low, high = line.interval or (None, None)
    front = at.frontier
    front_low, front_high = (front.interval if front and front.interval else None) or (None, None)
    return BoardRow(
        id=at.id,
        name=line.name,
        does=line.source.does,
        paper=line.source.paper,
        track=line.track,
        budget=line.budget,
        tier=line.tier,
        edition=line.edition,
        split=at.split,
        rank_best=best,
        rank_worst=worst,
        ranked=at.ranked if at.rank else None,
        beats_both_nulls=at.claim,
        gain=line.gain,
        gain_low=low,
        gain_high=high,
        converted=at.method_rate,
        converted_by_null=at.null_rate,
        solved_gain=at.solved.gain if at.solved else None,
        memorised=at.memorised_rate,
        frontier_gain=front.gain if front else None,
        frontier_gain_low=front_low,
        frontier_gain_high=front_high,
        easy_lost=at.easy_lost,
        seeds=line.seeds,
        flops_per_seed=line.flops,
        entered=line.entered,
    )
