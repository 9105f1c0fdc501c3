"""How figures are measured: the machine and its clock, sides that take turns, tables, processes and their memory.

Sides take turns (A B C A B C ...), so that a busy moment of the machine affects all of them alike. A missed target is
no failure: a benchmark measures, and people decide what to make of it.

On Linux a process's peak memory starts at that of the process that started it, so the measuring process must stay
small: data are made in a fresh process (`in_fresh_process`).
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

CLOCK = os.environ.get("BENCHMARKS_CLOCK", "wall")
"""`cpu` counts this process's processor time instead of wall-clock time: for a busy machine."""

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""The environment variable that binds a process to one thread; it is read when torch and numpy are imported."""

K = TypeVar("K")
P = ParamSpec("P")
T = TypeVar("T")


# --- the machine ------------------------------------------------------------------------------------------------------


def now() -> float:
    """Seconds on the chosen clock, when all that was handed to a GPU is done."""
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.process_time() if CLOCK == "cpu" else time.perf_counter()


def one_thread() -> None:
    """Bind this process, and those it starts, to one thread. Call it before importing anything that computes."""
    os.environ.update(ONE_THREAD)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is read from folders; no telemetry thread of a library starts
    import torch

    torch.set_num_threads(1)


def installed(package: str) -> str | None:
    """The version of a package in this environment, None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def require(*packages: str) -> None:
    """Raises SystemExit with one sentence if a package to compare with is missing."""
    missing = [package for package in packages if installed(package) is None]
    if missing:
        raise SystemExit(
            f"no comparison with {' and '.join(missing)}: not installed in this environment; run `make bench`, which "
            "makes an environment of its own"
        )


def described(*packages: str) -> str:
    """One line: processor, Python, and the versions of unlearnbench and these packages."""
    names = ["unlearnbench", *packages]
    parts = [f"Python {platform.python_version()}", *(f"{name} {installed(name) or '(missing)'}" for name in names)]
    clock = "; PROCESSOR TIME, not wall time" if CLOCK == "cpu" else ""
    return f"{_processor()}; " + ", ".join(parts) + clock


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores, {platform.system()}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def peak_flops() -> float:
    """FLOP/s that one core reaches in a large float32 matrix product: the best of many, so that noise cannot raise it.

    A product of two n x n matrices takes 2 n^3 FLOPs.
    """
    import torch

    best = 0.0
    for n, products in ((512, 40), (1024, 10)):
        one, other = torch.randn(n, n), torch.randn(n, n)
        for _ in range(products):
            began = now()
            one @ other
            best = max(best, 2 * n**3 / (now() - began))
    return best


# --- sides and tables -------------------------------------------------------------------------------------------------


@dataclass
class Side:
    """One of the things compared. `once(turn)` does its work and returns what is measured: seconds, or a rate."""

    name: str
    once: Callable[[int], float]
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def cells(self, form: str) -> list[str]:
        """Median, least and most, each in this format (as `format` takes it)."""
        return [format(value, form) for value in (self.median, min(self.values), max(self.values))]


@dataclass(frozen=True)
class Target:
    """A figure that was promised. `limit` is a lower bound, or with `at_most` an upper bound."""

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


def in_turn(work: Mapping[K, Callable[[int], T]], repeats: int) -> dict[K, list[T]]:
    """Call each function once per turn, with the number of the turn (from 0); returns their results by key.

    A key that is no string is shown as its parts, separated by commas.
    """
    results: dict[K, list[T]] = {key: [] for key in work}
    for turn in range(repeats):
        for key, once in work.items():
            shown = key if isinstance(key, str) else ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)
            progress(f"turn {turn + 1} of {repeats}: {shown}")
            results[key].append(once(turn))
    progress("")
    return results


def take_turns(sides: Sequence[Side], repeats: int) -> None:
    """Every side once per turn, `repeats` turns; the results are appended to each side's values."""
    for name, values in in_turn({side.name: side.once for side in sides}, repeats).items():
        next(side for side in sides if side.name == name).values += values


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


def target_table(targets: Sequence[Target]) -> str:
    """The table of what was promised and what was reached."""
    return table(["promised", "reached", "target", "met"], [target.row() for target in targets])


# --- processes and memory ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a command used: wall seconds, the peak resident MiB of the largest of its processes, processor seconds."""

    seconds: float
    mebibytes: float
    processor_seconds: float


def run_command(command: Sequence[str]) -> Usage:
    """Run a command to its end. Raises SystemExit, with the last line it printed, if it fails."""
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
            reason = last[-1] if last else "it printed nothing"
            raise SystemExit(f"`{name} ...` exited with status {process.returncode}: {reason}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # ru_maxrss is bytes there, KiB elsewhere
    return Usage(seconds, usage.ru_maxrss / unit, usage.ru_utime + usage.ru_stime)


def median_usage(runs: Sequence[Usage]) -> Usage:
    """Median times, and the largest peak."""
    return Usage(
        statistics.median(run.seconds for run in runs),
        max(run.mebibytes for run in runs),
        statistics.median(run.processor_seconds for run in runs),
    )


def in_fresh_process(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What `work` returns in a new process, whose memory is freed when it ends."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments, **named).result()


def high_water(pid: int) -> int:
    """Peak resident KiB of a process so far (VmHWM in /proc, so Linux only), 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


@dataclass(frozen=True)
class Peak:
    """Resident MiB of this process before some work, and at most during it."""

    before: float
    most: float


@contextmanager
def watched() -> Iterator[Callable[[], Peak]]:
    """Yields a function that returns, after the block, the peak memory of the work in it.

    Earlier peaks are reset if the system allows it.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = high_water(os.getpid()) / 1024
    after = before

    yield lambda: Peak(before, after)
    after = high_water(os.getpid()) / 1024
