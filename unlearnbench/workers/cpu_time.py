"""Processor seconds of a process and all its descendants, as the operating system counts them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def cpu_seconds(root: int) -> float | None:
    """User and system time of a process, its living descendants, and those that they waited for; None if unknown."""
    if sys.platform != "linux":
        return None
    ticks, parents = dict[int, int](), dict[int, int]()
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it may end while it is looked at
            fields = file.read_text().rpartition(")")[2].split()
            number = int(file.parent.name)
            parents[number] = int(fields[1])
            ticks[number] = sum(map(int, fields[11:15]))
    if root not in ticks:
        return None
    found, total = [root], 0
    while found:
        number = found.pop()
        total += ticks[number]
        found += [child for child, parent in parents.items() if parent == number]
    return total / os.sysconf("SC_CLK_TCK")
