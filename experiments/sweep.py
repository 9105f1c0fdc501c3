"""The runs behind docs/results/experiments.md: all built-in methods at 1x, GRPO logged, with --long the best at 4x.

    python -m experiments.sweep --workers 2        # everything; finished runs are not repeated
    python -m experiments.sweep grpo replay-code   # these runs alone
    python -m experiments.sweep --long             # the four best at 4x; needs every method at 1x

It may be stopped at any time (Ctrl-C or SIGTERM): the same command resumes, and `experiments.page` shows what is
finished. Each worker trains one seed of one method. Results are written to build/experiments/<name>.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unlearnbench.errors import UnlearnBenchError
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.io import tables
from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.records import Result
from unlearnbench.reports.formatting import points
from unlearnbench.splits import Split, load_split
from unlearnbench.workers.jobs import Compute

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "build" / "experiments"
SEEDS = 3
BEST = 4
LONG = 4.0
CONTROLS = ("no_training", "random_reward", "format_reward")
NO_CLAIM = ("grpo", *CONTROLS)
"""The null's own method and the controls: nobody claims a gain of them."""


@dataclass(frozen=True)
class Planned:
    """One call of `evaluate`; `name` is its folder and its row on the page."""

    name: str
    method: str
    budget: float = 1.0
    settings: Mapping[str, str] = field(default_factory=dict)

    def run(self, folder: Path, split: Split, workers: int | None) -> Result:
        return evaluate(
            self.method,
            split,
            SEEDS,
            out=folder / self.name,
            budget=self.budget,
            settings=self.settings,
            compute=Compute(workers=workers),
        )

    def is_done(self, folder: Path, split: Split) -> bool:
        """Whether its result is there, of the present source, labels and null control, with at least SEEDS seeds."""
        path = folder / self.name / "result.json"
        if not path.is_file():
            return False
        result = tables.read_json_record(path, Result)
        null = split.control("null_control", f"{self.budget:g}x")
        scored = result.conversion.null_hash == (null and null.hash) or not result.comparable
        same = (result.split_hash, result.method.source_hash) == (split.hash, locate(self.method).hash)
        return scored and same and len(result.seeds) >= SEEDS


_FIRST = (
    *("grpo", "sft_unlearnable", "only_unlearnable", "pass_at_k", "dapo", "maxrl", "dars", "replay", "replay-code"),
    *("clip_higher", "no_kl", "similar_problems", "sub_problems", "curriculum_easy_first", "mid_training"),
    "self_distill",
)
"""In this order, so that a sweep that was stopped early has what the paper's claims are about."""
_VARIANTS = {"replay-code": Planned("replay-code", "replay", settings={"variant": "code"})}
_AT_1X = {name: Planned(name, name) for name in BUILT_IN} | _VARIANTS
METHODS = tuple(_AT_1X[name] for name in dict.fromkeys((*_FIRST, *BUILT_IN)))
"""Every built-in method, and replay as the paper's released code does it."""
LOGGED = Planned("logged_grpo", str(ROOT / "experiments" / "logged_grpo.py"))
"""GRPO whose updates are counted by item; no method of its own, so it has no row among them."""
TUNED = "{}-tuned"
"""The folder of a method at its best learning rate (`experiments.tuning`)."""
LONGER = tuple(Planned(f"{name}-{LONG:g}x", name, budget=LONG) for name in BUILT_IN)


def longer(results: Mapping[str, Result]) -> list[Planned]:
    """The methods with the largest frontier gains at 1x; neither controls nor the positive control's recipe."""

    def gain(name: str) -> float:
        frontier = results[name].frontier
        return -1.0 if frontier is None or frontier.gain is None else frontier.gain

    ranked = sorted((name for name in results if name not in (*NO_CLAIM, "mid_training")), key=gain, reverse=True)
    return [planned for name in ranked[:BEST] for planned in LONGER if planned.method == name]


def sweep(planned: Sequence[Planned], folder: Path, split: Split, workers: int) -> list[str]:
    """Make the runs that are not finished, `workers` at once in a process each; returns the names of those that failed.

    All processes are stopped when this one is.
    """
    began, failed = time.monotonic(), []
    waiting = [one for one in planned if not one.is_done(folder, split)]
    done, running = len(planned) - len(waiting), dict[str, subprocess.Popen[bytes]]()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                one = waiting.pop(0)
                command = [sys.executable, "-m", "experiments.sweep", one.name, "--workers", "1"]
                command += ["--runs", str(folder), "--split", str(split.path)]
                # of its own session, so that Ctrl-C reaches it once, from here
                running[one.name] = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
            time.sleep(0.5)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                done += 1
                if running.pop(name).returncode:
                    failed.append(name)
                print(f"{done} of {len(planned)} runs, {(time.monotonic() - began) / 60:.1f} min", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return failed


def _told(name: str, result: Result) -> str:
    """One line about a finished run."""
    frontier = None if result.frontier is None else result.frontier.gain
    named = (
        ("solved", result.conversion.solved_gain),
        ("converted", result.conversion.gain),
        ("frontier", frontier),
    )
    gains = ", ".join(f"{what} {'-' if value is None else points(value)}" for what, value in named)
    return f"{name}: {gains}; {result.cost.seconds / len(result.seeds):.0f} s per seed"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="names of runs [default: every method at 1x]")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs [default: build/experiments]")
    parser.add_argument("--split", default="micro", help="name or folder of the split [default: micro]")
    parser.add_argument("--workers", type=int, default=2, help="seeds at once [default: 2]")
    parser.add_argument("--long", action="store_true", help=f"the {BEST} best methods at {LONG:g}x")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        split, folder = load_split(given.split), given.runs.resolve()
        chosen = _chosen(parser, given.names, given.long, folder, split)
        if len(chosen) == 1:
            print(_told(chosen[0].name, chosen[0].run(folder, split, given.workers)), flush=True)
        elif failed := sweep(chosen, folder, split, given.workers):
            sys.exit(f"failed: {', '.join(failed)}")
    except UnlearnBenchError as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command resumes")


def _chosen(
    parser: argparse.ArgumentParser, names: Sequence[str], long: bool, folder: Path, split: Split
) -> Sequence[Planned]:
    if long:
        if missing := [one.name for one in METHODS if not one.is_done(folder, split)]:
            parser.error(f"--long needs every method at 1x; not finished: {', '.join(missing)}")
        return longer({name: tables.read_json_record(folder / name / "result.json", Result) for name in BUILT_IN})
    known = {planned.name: planned for planned in (*METHODS, LOGGED, *LONGER)}
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no run {unknown[0]!r}; runs are {', '.join(known)}")
    return [known[name] for name in names] or [*METHODS, LOGGED]


if __name__ == "__main__":
    main()
