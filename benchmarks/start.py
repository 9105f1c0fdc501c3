"""How long it takes to start: the command line, or `make eval` from a fresh clone.

    python -m benchmarks.start [cli] [--repeats 15]
    python -m benchmarks.start clone [--pip-cache]

`cli`: the start of the command line beside bare Python and lm-eval-harness.

`clone`: `make eval` from nothing, and the share of installing, training, evaluating and reporting. The clone is of the
last commit, in a temporary folder; pip's cache is off unless asked for, to measure a fresh machine's download. Stages
are read from the files that they leave, ten times a second. Seeds run side by side: where two stages run at once, the
wall-clock time is shared equally between them.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.measurement import Side, Target, described, installed, progress, table, take_turns, target_table

LEAST_REPEATS = 5
ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600.0
INTERVAL = 0.1
INSTALLING, STARTING, TRAINING, EVALUATING, REPORTING = STAGES = (
    "installing",
    "starting up, sealing the split",
    "training",
    "evaluating",
    "scoring and reporting",
)
EVALUATION = ("items", "twins", "canaries")


@dataclass(frozen=True)
class Span:
    """A stage from one second to another."""

    stage: str
    begin: float
    end: float


def main() -> None:
    """Measure and print. What is not installed is not measured, and the output says so."""
    parser = argparse.ArgumentParser(description="Time the start of the command line, or `make eval` in a fresh clone.")
    parser.add_argument("what", nargs="?", default="cli", choices=("cli", "clone"))
    parser.add_argument("--repeats", type=int, default=15, help=f"starts of each command (at least {LEAST_REPEATS})")
    parser.add_argument("--pip-cache", action="store_true", help="let pip use what it has downloaded before")
    chosen = parser.parse_args()
    if chosen.repeats < LEAST_REPEATS:
        parser.error(f"--repeats {chosen.repeats} is too few for a median; give {LEAST_REPEATS} or more")
    if chosen.what == "clone":
        time_clone(chosen.pip_cache)
    else:
        time_command_line(chosen.repeats)


# --- the command line -------------------------------------------------------------------------------------------------


def time_command_line(repeats: int) -> None:
    """Start each command in turn and print the table."""
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
    print(f"\n{target_table(targets)}")
    if len(sides) < 3:
        print("\nlm_eval is not installed here, so it is not compared; `make bench` compares it")


def _start(command: Sequence[str]) -> Callable[[int], float]:
    """Seconds of one run of a command to its end. Raises SystemExit, with the last line it printed, if it fails."""

    def once(_: int) -> float:
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip() or "it printed nothing").splitlines()
            raise SystemExit(f"`{Path(command[0]).name}` exited with status {done.returncode}: {words[-1]}")
        return seconds

    return once


def _script(name: str) -> str:
    """The console script beside this interpreter, as a user of the same environment starts it."""
    return str(Path(sys.executable).with_name(name))


# --- a fresh clone ----------------------------------------------------------------------------------------------------


def time_clone(pip_cache: bool) -> None:
    """Clone, run `make eval`, and print the seconds of its stages."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = os.environ | ({} if pip_cache else {"PIP_NO_CACHE_DIR": "1"})
        with (Path(folder) / "make.txt").open("w+") as words:
            began = time.monotonic()
            command = subprocess.Popen(["make", "eval"], cwd=clone, stdout=words, stderr=words, env=environment)
            watch = Watch(clone)
            while command.poll() is None:
                watch.look(time.monotonic() - began)
                progress(f"{time.monotonic() - began:.0f} s: {watch.latest}")
                time.sleep(INTERVAL)
            total = time.monotonic() - began
            watch.look(total)
            progress("")
            words.seek(0)
            if command.returncode != 0:
                raise SystemExit(f"make eval failed: {words.read().strip()[-500:]}")
            paragraphs = [" ".join(part.split()) for part in words.read().split("\n\n")]
            sentence = next((part for part in paragraphs if " converted " in part), "")
    seconds = shares(watch.spans(total))
    print(f"{described('torch', 'transformers')}\n")
    print(f"`make eval` in a fresh clone, pip's cache {'on' if pip_cache else 'off'}, {os.cpu_count()} cores:\n")
    rows = [[stage, f"{seconds[stage]:.0f}", f"{100 * seconds[stage] / total:.0f} %"] for stage in STAGES]
    print(table(["stage", "s", "share"], [*rows, ["all of it", f"{total:.0f}", "100 %"]]))
    print(f"\n{target_table([Target('seconds in all', total, LIMIT, at_most=True, digits=0)])}")
    print(f"\n> {sentence}")


class Watch:
    """When the files that mark the stages of `make eval` were first seen in a clone, in seconds from its beginning."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.seen: dict[str, float] = {}
        self.latest = "installing"

    def look(self, second: float) -> None:
        """Record the files that appeared since the last look."""
        found = [self.clone / ".venv/.runtime", *self.clone.glob("runs/*/*/*/log.txt")]
        found += [*self.clone.glob("runs/*/*/*/environment.json"), *self.clone.glob("runs/*/*/*/evaluation/*.parquet")]
        for path in found:
            name = path.relative_to(self.clone).as_posix()
            if name not in self.seen and path.is_file():
                self.seen[name] = second
                self.latest = name

    def spans(self, total: float) -> list[Span]:
        """The stages of a `make eval` that ended after `total` seconds. Raises KeyError if a file is missing."""
        installed = self.seen[".venv/.runtime"]
        runs = sorted(name.removesuffix("/log.txt") for name in self.seen if name.endswith("/log.txt"))
        spans = [Span(INSTALLING, 0.0, installed)]
        spans.append(Span(STARTING, installed, min(self.seen[f"{run}/log.txt"] for run in runs)))
        ends = []
        for run in runs:
            trained = self.seen[f"{run}/environment.json"]
            ends.append(max(self.seen[f"{run}/evaluation/{name}.parquet"] for name in EVALUATION))
            spans += [Span(TRAINING, self.seen[f"{run}/log.txt"], trained), Span(EVALUATING, trained, ends[-1])]
        return [*spans, Span(REPORTING, max(ends), total)]


def shares(spans: Sequence[Span]) -> dict[str, float]:
    """Wall-clock seconds by stage; time in which several spans run is shared equally between them."""
    seconds = dict.fromkeys(STAGES, 0.0)
    moments = sorted({moment for span in spans for moment in (span.begin, span.end)})
    for begin, end in pairwise(moments):
        running = [span.stage for span in spans if span.begin <= begin and span.end >= end]
        for stage in running:
            seconds[stage] += (end - begin) / len(running)
    return seconds


if __name__ == "__main__":
    main()
