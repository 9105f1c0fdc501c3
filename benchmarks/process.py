"""A command run as users run it, a process of its own: how long it took, and the most memory it held.

On Linux a process's peak starts at the memory of the one that started it, so whoever measures must stay small:
`elsewhere` makes the data.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Ended:
    """Wall seconds from start to end, and the peak resident memory in MiB of the largest of its processes."""

    seconds: float
    mebibytes: float
    processor_seconds: float


def ended(command: Sequence[str]) -> Ended:
    """Run a command to its end. Raises SystemExit, with its last words, if it fails."""
    with tempfile.TemporaryFile() as words:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words)
        _, status, usage = os.wait4(process.pid, 0)  # the usage of this child alone, its own children included
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            words.seek(0)
            last = words.read().decode("utf-8", "replace").strip().splitlines()
            name = " ".join(command[1:5])
            raise SystemExit(f"`{name} ...` ended with status {process.returncode}: {last[-1] if last else 'no words'}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # ru_maxrss is bytes there, KiB elsewhere
    return Ended(seconds, usage.ru_maxrss / unit, usage.ru_utime + usage.ru_stime)


def elsewhere(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What `work` returns in a fresh process, whose memory goes with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments, **named).result()


def median(runs: Sequence[Ended]) -> Ended:
    """Median times, and the largest peak."""
    return Ended(
        statistics.median(run.seconds for run in runs),
        max(run.mebibytes for run in runs),
        statistics.median(run.processor_seconds for run in runs),
    )
