"""What the runs leave in the repository: an entry of the leaderboard each, and what `unlearnbench methods` shows.

A run's bundle is made in the work folder and verified like any other, and its entry follows from it. The bundle stays
there: `make experiments` makes the run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.runs import Runs
from unlearnbench.leaderboard.bundles.bundle import Statement
from unlearnbench.leaderboard.bundles.writing import write_bundle
from unlearnbench.leaderboard.editions import current_edition
from unlearnbench.leaderboard.entries import default_id, enter, read_entry
from unlearnbench.methods.gains import Measured, write_measured
from unlearnbench.records import Result
from unlearnbench.scoring.comparability import Finished

AUTHORS = ("UnlearnBench",)


def write_entries(runs: Runs, entries: Path, work: Path) -> list[str]:
    """An entry of every method's run at 1x and of the longer ones; returns ids. Those that are there stay.

    Raises RunError with the reasons where a bundle is refused.
    """
    tried = len(runs.methods)
    done = []
    for found, number in ((runs.methods, 1), (runs.long, tried)):  # the longer ones were chosen among all at 1x
        done += [_entry(run, runs, entries, work, number) for run in found.values()]
    return done


def _entry(run: Finished, runs: Runs, entries: Path, work: Path, tried: int) -> str:
    name = default_id(run.result)
    if not _is_of(entries / name / current_edition(entries, run.result), run.result, tried):
        bundle = work / f"{name}.zip"
        write_bundle(run.folder, bundle, Statement(name=run.result.method.name, authors=AUTHORS, tried=tried))
        enter(bundle, entries, id=name, split=runs.split, workers=1)
    return name


def _is_of(folder: Path, result: Result, tried: int) -> bool:
    """Whether a finished entry of this very run is there."""
    if not (folder / "entry.json").is_file():
        return False
    one = read_entry(folder)
    kept = one.result
    same = (kept.method, kept.cost, kept.groups) == (result.method, result.cost, result.groups)
    return one.entry.tried == tried and same


def measured(methods: Mapping[str, Finished]) -> dict[str, Measured]:
    """Of each method that has a gain."""
    found = {}
    for name, run in methods.items():
        result, score = run.result, run.result.conversion
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
