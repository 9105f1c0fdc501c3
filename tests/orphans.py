"""Processes that a command has started, and which of them outlive it. Linux only: read from /proc."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

Started = tuple[int, int]
"""A process: its number, and when it was started, since numbers come again."""


def descendants(root: int) -> set[Started]:
    """Every process that comes from another, whatever its session."""
    found = _processes()
    below, more = set[int](), {root}
    while more:
        below |= more
        more = {number for number, (_, parent, _) in found.items() if parent in below} - below
    return {(number, found[number][2]) for number in below - {root} if number in found}


def still_running(processes: Iterable[Started], patience: float = 0.0) -> list[int]:
    """Those that have not ended after `patience` seconds: a starved one needs its turn to see that it is alone."""
    processes, until = set(processes), time.monotonic() + patience
    while True:
        found = {(number, begun) for number, (state, _, begun) in _processes().items() if state != "Z"}
        left = sorted(number for number, _ in processes & found)
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.1)


def _processes() -> dict[int, tuple[str, int, int]]:
    """State, parent and start of every process."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError, ValueError):  # it ends while it is looked at
            fields = file.read_text().rpartition(")")[2].split()
            found[int(file.parent.name)] = (fields[0], int(fields[1]), int(fields[19]))
    return found
