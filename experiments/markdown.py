"""Text of a page: tables, paragraphs of one width, and what an experiment found beside what the paper says."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from unlearnbench.records import Interval
from unlearnbench.reports.formatting import p_value, plain

Verdict = Literal["agrees", "differs", "cannot be said"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
WIDTH = 118


@dataclass(frozen=True)
class Finding:
    """A claim, of the paper unless `of_paper` is False, what was measured here, and whether the two agree."""

    experiment: int
    claim: str
    here: str
    verdict: Verdict
    of_paper: bool = True


@dataclass(frozen=True)
class Section:
    """A section of the page. `text` is markdown without its heading."""

    title: str
    text: str
    findings: Sequence[Finding] = ()


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


def cosine(value: float | None, interval: Interval | None = None) -> str:
    """A cosine with its interval."""
    if value is None:
        return "-"
    ends = "" if interval is None else f" ({_signed(interval[0])} to {_signed(interval[1])})"
    return _signed(value) + ends


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def probability(p: float | None) -> str:
    """A p-value; a dash where there is none."""
    return "-" if p is None else p_value(p)
