"""`make eval` from nothing: a fresh clone, and the share of installing, training, evaluating and reporting.

    python -m benchmarks.whole [--pip-cache]

The clone is of the last commit, in a temporary folder; pip's cache is off unless asked for, so that what is measured
is a fresh machine's download. Stages are read from the files that they leave, ten times a second. Seeds run side by
side: where two stages run at once, the time on the wall is shared out equally between them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.machine import described
from benchmarks.turns import Target, judged, progress, table

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
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time `make eval` from a fresh clone.")
    parser.add_argument("--pip-cache", action="store_true", help="let pip use what it has downloaded before")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = os.environ | ({} if chosen.pip_cache else {"PIP_NO_CACHE_DIR": "1"})
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
    print(f"`make eval` in a fresh clone, pip's cache {'on' if chosen.pip_cache else 'off'}, {os.cpu_count()} cores:\n")
    rows = [[stage, f"{seconds[stage]:.0f}", f"{100 * seconds[stage] / total:.0f} %"] for stage in STAGES]
    print(table(["stage", "s", "share"], [*rows, ["all of it", f"{total:.0f}", "100 %"]]))
    print(f"\n{judged([Target('seconds in all', total, LIMIT, at_most=True, digits=0)])}")
    print(f"\n> {sentence}")


class Watch:
    """When the files that mark the stages of `make eval` were first seen in a clone, in seconds from its beginning."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        self.seen: dict[str, float] = {}
        self.latest = "installing"

    def look(self, second: float) -> None:
        """Note what is there by now and was not before."""
        found = [self.clone / ".venv/.runtime", *self.clone.glob("runs/*/*/*/log.txt")]
        found += [*self.clone.glob("runs/*/*/*/environment.json"), *self.clone.glob("runs/*/*/*/evaluation/*.parquet")]
        for path in found:
            name = path.relative_to(self.clone).as_posix()
            if name not in self.seen and path.is_file():
                self.seen[name] = second
                self.latest = name

    def spans(self, total: float) -> list[Span]:
        """The stages of a `make eval` that ended after `total` seconds. Raises KeyError where a mark is missing."""
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
    """Seconds on the wall by stage; a moment in which several spans run is shared equally between them."""
    seconds = dict.fromkeys(STAGES, 0.0)
    moments = sorted({moment for span in spans for moment in (span.begin, span.end)})
    for begin, end in pairwise(moments):
        running = [span.stage for span in spans if span.begin <= begin and span.end >= end]
        for stage in running:
            seconds[stage] += (end - begin) / len(running)
    return seconds


if __name__ == "__main__":
    main()
