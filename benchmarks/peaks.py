"""How much memory a process holds before its work, and at most in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import high_water


@dataclass(frozen=True)
class Peak:
    """Resident MiB of a process that holds model and items, and the most it held in its work."""

    before: float
    most: float


@contextmanager
def watched() -> Iterator[Callable[[], Peak]]:
    """The peak of what is done inside, known after it. Peaks before it are forgotten where the system can do so."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = high_water(os.getpid()) / 1024
    after = before

    yield lambda: Peak(before, after)
    after = high_water(os.getpid()) / 1024
