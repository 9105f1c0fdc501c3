"""What the runs leave in the repository: the gains that `unlearnbench methods` lists, and entries of the leaderboard.

    python -m experiments.entries                  # an entry of every finished run in leaderboard/entries

A run's bundle is made in build/experiments/bundles and verified like any other, and its entry follows from it. The
bundle is not kept elsewhere: `make experiments` makes the run again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from experiments.runs import Runs, collect
from experiments.sweep import ROOT, RUNS
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.leaderboard.bundles.bundle import Statement
from unlearnbench.leaderboard.bundles.writing import write_bundle
from unlearnbench.leaderboard.editions import current_edition
from unlearnbench.leaderboard.entries import enter, read_entry
from unlearnbench.methods import BUILT_IN
from unlearnbench.methods.gains import Measured, write_measured
from unlearnbench.records import Result
from unlearnbench.scoring.comparisons.comparability import Finished
from unlearnbench.splits import load_split

AUTHORS = ("UnlearnBench",)


def write_entries(runs: Runs, entries: Path, work: Path) -> list[str]:
    """An entry of every built-in method's run at 1x and of the longer ones; returns ids. Those that are there stay.

    Raises RunError with the reasons where a bundle is refused.
    """
    at_1x = [runs.methods[name] for name in BUILT_IN if name in runs.methods]
    tried = len(at_1x)
    done = []
    for found, number in ((at_1x, 1), (runs.long.values(), tried)):  # the longer ones were chosen among all at 1x
        done += [_entry(run, runs, entries, work, number) for run in found]
    return done


def _entry(run: Finished, runs: Runs, entries: Path, work: Path, tried: int) -> str:
    for folder in sorted(entries.glob(f"*/{current_edition(entries, run.result)}")):
        if _is_of(folder, run.result, tried):
            return folder.parent.name
    bundle = work / f"{run.folder.name}.zip"
    write_bundle(run.folder, bundle, Statement(name=run.result.method.name, authors=AUTHORS, tried=tried))
    return enter(bundle, entries, split=runs.split, workers=1).entry.id


def _is_of(folder: Path, result: Result, tried: int) -> bool:
    """Whether a finished entry of this very run is there."""
    if not (folder / "entry.json").is_file():
        return False
    one = read_entry(folder)
    kept = one.result
    same = (kept.method, kept.cost, kept.groups) == (result.method, result.cost, result.groups)
    return one.entry.tried == tried and same


def measured(methods: Mapping[str, Finished]) -> dict[str, Measured]:
    """Of each built-in method that has a gain."""
    found = {}
    for name in BUILT_IN:
        if name not in methods:
            continue
        result = methods[name].result
        score = result.conversion
        if score.gain is not None and result.budget.multiple is not None:
            found[name] = Measured(
                split=result.split,
                split_hash=result.split_hash,
                source_hash=result.method.source_hash,
                budget=result.budget.multiple,
                seeds=len(result.seeds),
                gain=score.gain,
                interval_families=score.interval_families,
            )
    return found


def write_gains(runs: Runs, path: Path) -> None:
    """methods/measured.json. A method whose run is missing has no gain there."""
    write_measured(measured(runs.methods), path)


def main() -> None:
    parser = argparse.ArgumentParser(description="An entry of the leaderboard for every finished run.")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs [default: build/experiments]")
    given = parser.parse_args()
    try:
        runs = collect(given.runs, load_split("micro"))
        print("\n".join(write_entries(runs, ROOT / "leaderboard" / "entries", runs.folder / "bundles")))
    except UnlearnBenchError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
