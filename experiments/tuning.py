"""Every method of track `verifier` at its best learning rate, sought as the tuned null's is (PROTOCOL 3.5).

    python -m experiments.tuning --workers 2        # every such method that was run at 1x; resumes
    python -m experiments.tuning pass_at_k dapo

Two seeds at each of the null's six learning rates; of the rates that lose at most 5 % of the easy items, the one with
the largest frontier gain; then five seeds at that rate, with random numbers that no trial has used. Trials are in
build/experiments/tuning/<method>/<factor>, the run that counts in build/experiments/<method>-tuned.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from experiments.sweep import NO_CLAIM, RUNS, TUNED
from recipes.controls import FACTORS
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.harness.evaluate import evaluate, evaluate_run
from unlearnbench.harness.run_config import RunConfig
from unlearnbench.io import tables
from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.records import Result
from unlearnbench.reports.formatting import points
from unlearnbench.splits import Split, load_split
from unlearnbench.workers.jobs import Compute

TRIAL_SEEDS = 2
SEEDS = 5
MOST_LOST = 0.05
"""Share of the easy items that a rate may lose and still be chosen."""


def tune(method: str, folder: Path, split: Split, compute: Compute) -> Result:
    """The trials of a method, and the run at the rate that they choose."""
    rate = split.config.recipe.learning_rate
    trials = {factor: _trial(method, rate * factor, factor, folder, split, compute) for factor in FACTORS}
    factor = best(trials)
    chosen = {"learning_rate": f"{rate * factor:g}"}
    return evaluate(method, split, SEEDS, out=folder / TUNED.format(method), settings=chosen, compute=compute)


def best(trials: Mapping[float, Result]) -> float:
    """The factor with the largest frontier gain among those that lose few easy items; else the one that loses fewest.

    The smaller factor where two are equal.
    """
    kept = [factor for factor in sorted(trials) if _lost(trials[factor]) <= MOST_LOST]
    if not kept:
        return min(sorted(trials), key=lambda factor: _lost(trials[factor]))
    return max(kept, key=lambda factor: _gain(trials[factor]))


def _trial(method: str, rate: float, factor: float, folder: Path, split: Split, compute: Compute) -> Result:
    config = RunConfig(
        split,
        locate(method),
        tuple(range(1, TRIAL_SEEDS + 1)),
        settings={"learning_rate": rate},
        purpose=f"tuning-{factor:g}",
    )
    return evaluate_run(config, folder / "tuning" / method / f"{factor:g}", compute)


def _lost(result: Result) -> float:
    lost, items = result.retention.easy_lost, result.retention.easy_items
    return lost / items if lost is not None and items else 0.0


def _gain(result: Result) -> float:
    frontier = result.frontier
    return float("-inf") if frontier is None or frontier.gain is None else frontier.gain


def _methods(folder: Path) -> list[str]:
    """The methods of track `verifier` that were run at 1x; the null's own and the controls claim nothing."""
    found = []
    for name in BUILT_IN:
        path = folder / name / "result.json"
        if name not in NO_CLAIM and path.is_file():
            track = tables.read_json_record(path, Result).method.track
            found += [name] if track == "verifier" else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="names of methods [default: all of track verifier run at 1x]")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs [default: build/experiments]")
    parser.add_argument("--split", default="micro", help="name or folder of the split [default: micro]")
    parser.add_argument("--workers", type=int, default=2, help="seeds at once [default: 2]")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if unknown := [name for name in given.methods if name not in BUILT_IN]:
        parser.error(f"there is no built-in method {unknown[0]!r}; `unlearnbench methods` lists them")
    try:
        split, folder = load_split(given.split), given.runs.resolve()
        for name in given.methods or _methods(folder):
            result = tune(name, folder, split, Compute(workers=given.workers))
            gain = None if result.frontier is None else result.frontier.gain
            told = "-" if gain is None else points(gain)
            print(f"{name}: learning rate {result.method.settings['learning_rate']}, frontier {told}", flush=True)
    except UnlearnBenchError as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command resumes")


if __name__ == "__main__":
    main()
