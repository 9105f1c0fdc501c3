"""How long the command line takes to start, side by side with bare Python and with lm-eval-harness.

python -m benchmarks.start [--repeats 15]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.machine import described, installed
from benchmarks.turns import Side, Target, judged, table, take_turns

LEAST_REPEATS = 5


def main() -> None:
    """Measure and print. What is not installed is not measured, and the output says so."""
    parser = argparse.ArgumentParser(description="Time the start of the command line.")
    parser.add_argument("--repeats", type=int, default=15, help=f"starts of each command (at least {LEAST_REPEATS})")
    repeats = parser.parse_args().repeats
    if repeats < LEAST_REPEATS:
        parser.error(f"--repeats {repeats} is too few for a median; give {LEAST_REPEATS} or more")

    bare = Side(f"python {platform.python_version()}", _start([sys.executable, "-c", "pass"]))
    ours = Side(f"unlearnbench {installed('unlearnbench')} --help", _start([_script("unlearnbench"), "--help"]))
    sides = [bare, ours]
    if installed("lm_eval"):
        sides.append(Side(f"lm_eval {installed('lm_eval')} --help", _start([_script("lm_eval"), "--help"])))
    for side in sides:  # the first start of each fills the caches and is not counted
        side.once(0)
    take_turns(sides, repeats)

    print(f"{described('lm-eval')}\n\nMedians of {repeats} starts in turn:\n")
    rows = [
        [
            side.name,
            *(f"{1000 * value:.0f} ms" for value in (side.median, min(side.values), max(side.values))),
            f"{side.median / bare.median:.1f}",
        ]
        for side in sides
    ]
    print(table(["command", "median", "least", "most", "bare starts"], rows))
    targets = [Target("our starts in bare starts", ours.median / bare.median, 4, at_most=True, digits=1)]
    if len(sides) > 2:
        targets.append(Target("lm_eval's time over ours", sides[2].median / ours.median, 2, digits=1))
    print(f"\n{judged(targets)}")
    if len(sides) < 3:
        print("\nlm_eval is not installed here, so it is not compared; `make bench` compares it")


def _start(command: Sequence[str]) -> Callable[[int], float]:
    """Seconds of one run of a command to its end. Raises SystemExit, with what it printed, if it fails."""

    def once(_: int) -> float:
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            name = Path(command[0]).name
            raise SystemExit(f"`{name}` ended with status {done.returncode}: {words[-1] if words else 'no words'}")
        return seconds

    return once


def _script(name: str) -> str:
    """The console script beside this interpreter, as a user of the same environment starts it."""
    return str(Path(sys.executable).with_name(name))


if __name__ == "__main__":
    main()
