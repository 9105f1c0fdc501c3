"""The console of a command: as wide as the terminal; piped, as wide as a page, and tables in full."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

PAGE = 120
_SHOWN = 10
"""Warnings of one kind that are printed in full."""


def console() -> Console:
    """Prints text as it is, without markup, since much of it is foreign."""
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PAGE)


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), whole: Sequence[str] = ()
) -> None:
    """A table of short cells, the columns in `right` aligned to the right. No cell is cut: piped, it is as wide as it
    has to be; on a narrow terminal, words are folded, but numbers and the columns in `whole` are not."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in head:
        words = name not in right
        table.add_column(name, justify="left" if words else "right", no_wrap=name in (*right, *whole), overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    shown = console()
    if not sys.stdout.isatty():
        shown.width = max(PAGE, shown.measure(table, options=shown.options.update(width=10_000)).maximum)
    shown.print(table)


def print_sentence(text: str) -> None:
    """A long line, folded at words on a terminal; piped, it is one line."""
    console().print(text, soft_wrap=not sys.stdout.isatty())


def warn_of_golds(ungradable: Sequence[str]) -> None:
    """Warn, on standard error, of golds that only their own text can match: one sentence for each of the first few."""
    for sentence in ungradable[:_SHOWN]:
        click.echo(f"warning: {sentence}", err=True)
    if len(ungradable) > _SHOWN:
        click.echo(f"warning: and {len(ungradable) - _SHOWN:,} more golds like these", err=True)
