"""Sides that take turns (A B C A B C ...), so that a busy moment of the machine falls on all of them alike.

What comes out is a markdown table of medians and, for each figure that was promised, a line that says whether it was
reached. Nothing here fails when it was not: a benchmark measures, and people judge.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Side:
    """One of the things compared. `once(turn)` does its work and returns what is measured: seconds, or a rate."""

    name: str
    once: Callable[[int], float]
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Target:
    """A figure that was promised. `limit` is a lower one, or with `at_most` an upper one."""

    what: str
    reached: float
    limit: float
    at_most: bool = False
    digits: int = 2

    @property
    def met(self) -> bool:
        return self.reached <= self.limit if self.at_most else self.reached >= self.limit

    def row(self) -> list[str]:
        word = "at most" if self.at_most else "at least"
        return [self.what, f"{self.reached:.{self.digits}f}", f"{word} {self.limit:g}", "yes" if self.met else "NO"]


def take_turns(sides: Sequence[Side], repeats: int) -> None:
    """Every side once a turn, `repeats` turns."""
    for turn in range(repeats):
        for side in sides:
            progress(f"turn {turn + 1} of {repeats}: {side.name}")
            side.values.append(side.once(turn))
    progress("")


def progress(words: str) -> None:
    """One line that replaces itself, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *(line(row) for row in rows)])


def judged(targets: Sequence[Target]) -> str:
    """The table of what was promised and what was reached."""
    return table(["promised", "reached", "target", "met"], [target.row() for target in targets])
