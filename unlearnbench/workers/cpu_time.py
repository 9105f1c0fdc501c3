"""Processor seconds of a process and all its descendants, as the operating system counts them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

LOOK = 1.0
"""Seconds between two looks at what the processes of a run have used."""


class CpuClock:
    """What a process and all that it starts have used, looked at now and then.

    The system passes what an ended process used on to whoever waited for it, but not to one that ignores the ends of
    its children. So each process that was seen is also counted by itself.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._own: dict[tuple[int, int], int] = {}
        """Ticks of each process, which its number and its start name, when it was last seen."""

    def look(self) -> float | None:
        """User and system time up to now, in seconds; None where the system does not say."""
        if sys.platform != "linux":
            return None
        parents, used = dict[int, int](), dict[int, list[int]]()
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, ValueError, IndexError):  # it may end while it is looked at
                fields = file.read_text().rpartition(")")[2].split()
                number = int(file.parent.name)
                parents[number] = int(fields[1])
                used[number] = [int(fields[place]) for place in (11, 12, 13, 14, 19)]
        if self._root not in used:
            return None
        found, total = [self._root], 0
        while found:
            number = found.pop()
            *ticks, start = used[number]
            total += sum(ticks)
            self._own[number, start] = ticks[0] + ticks[1]
            found += [child for child, parent in parents.items() if parent == number]
        return max(total / os.sysconf("SC_CLK_TCK"), self.seen)

    @property
    def seen(self) -> float:
        """CPU seconds of each process that was ever seen."""
        return sum(tuple(self._own.values())) / os.sysconf("SC_CLK_TCK")
