"""`make bench`: how long the command line takes to start, side by side with bare Python and with lm-eval-harness.

    python -m benchmarks.run [--repeats 15]

The commands take turns, so that a busy moment of the machine falls on all of them alike. What is not installed is
not measured, and the table says so.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LEAST_REPEATS = 5


@dataclass
class Start:
    """One command that is started again and again, and how long that took."""

    name: str
    command: Sequence[str]
    seconds: list[float] = field(default_factory=list)

    def time_once(self) -> None:
        """Run it to its end. Raises SystemExit, with what it printed, if it fails."""
        began = time.perf_counter()
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        self.seconds.append(time.perf_counter() - began)
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise SystemExit(f"`{self.name}` ended with status {done.returncode}: {words[-1] if words else 'no words'}")

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the start of the command line.")
    parser.add_argument("--repeats", type=int, default=15, help=f"starts of each command (at least {LEAST_REPEATS})")
    repeats = parser.parse_args().repeats
    if repeats < LEAST_REPEATS:
        parser.error(f"--repeats {repeats} is too few for a median; give {LEAST_REPEATS} or more")

    bare = Start(f"python {platform.python_version()}", [sys.executable, "-c", "pass"])
    ours = Start(f"unlearnbench {_version('unlearnbench')} --help", [_script("unlearnbench"), "--help"])
    starts = [bare, ours]
    if _version("lm_eval"):
        starts.append(Start(f"lm_eval {_version('lm_eval')} --help", [_script("lm_eval"), "--help"]))
    for start in starts:  # the first start of each fills the caches and is not counted
        start.time_once()
        start.seconds.clear()
    for _ in range(repeats):
        for start in starts:
            start.time_once()

    print(f"{platform.system()} {platform.machine()}; medians of {repeats} starts in turn\n")
    print(f"| {'command':<30} | {'median':>8} | {'least':>8} | {'most':>8} | {'bare starts':>11} |")
    print(f"|{'-' * 32}|{'-' * 10}|{'-' * 10}|{'-' * 10}|{'-' * 13}|")
    for start in starts:
        times = " | ".join(
            f"{1000 * value:5.0f} ms" for value in (start.median, min(start.seconds), max(start.seconds))
        )
        print(f"| {start.name:<30} | {times} | {start.median / bare.median:>11.1f} |")
    print(f"\nat most 4 bare starts: {'yes' if ours.median <= 4 * bare.median else 'NO'}")
    if len(starts) > 2:
        ratio = starts[2].median / ours.median
        print(f"at least 2 times quicker than lm_eval: {'yes' if ratio >= 2 else 'NO'} ({ratio:.1f} times)")
    else:
        print("lm_eval is not installed here, so it is not compared (pip install lm-eval)")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _script(name: str) -> str:
    """The console script beside this interpreter, as a user of the same environment starts it."""
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    main()
