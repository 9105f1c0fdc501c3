"""Text of a page: sections, tables, and paragraphs of one width."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unlearnbench.records import Interval
from unlearnbench.reports.formatting import plain, signed

WIDTH = 118


@dataclass(frozen=True)
class Section:
    """A section of the page. `text` is markdown without its heading."""

    title: str
    text: str


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A markdown table whose first `left` columns are words and the others numbers."""
    lines = [_row(head), "|" + "".join("---|" if place < left else "---:|" for place in range(len(head)))]
    return "\n".join([*lines, *(_row(row) for row in rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(plain(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def paragraph(*sentences: str) -> str:
    """Sentences as one paragraph, broken into lines."""
    text = " ".join(sentence for sentence in sentences if sentence)
    return "\n".join(textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def blocks(*parts: str) -> str:
    """Paragraphs and tables, an empty line between them."""
    return "\n\n".join(part for part in parts if part)


def with_interval(value: float | None, interval: Interval | None) -> str:
    """A gain with its interval, in points without the word."""
    if value is None:
        return "-"
    return signed(value) + ("" if interval is None else f" ({signed(interval[0])} to {signed(interval[1])})")


def or_dash(value: float | None, form: Callable[[float], str]) -> str:
    """A value in some form, or a dash for none."""
    return "-" if value is None else form(value)
