"""The finished runs that the page is made of, and the names of those that are not there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.sweep import LOGGED, LONGER, METHODS, TUNED, Planned
from unlearnbench.errors import RunError
from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.records import Item
from unlearnbench.scoring.comparisons.comparability import Finished, read_run
from unlearnbench.splits import Split

CAUSE = "entangled_skill"
"""The cause nearest to the paper's account of unlearnable items: shown apart where the split has it."""


@dataclass(frozen=True)
class Runs:
    """Runs on one split by the names of their folders: `methods` at 1x, `long` at more, and GRPO logged by item.

    `tuned` by the names of the methods: at 1x, at the learning rate that `experiments.tuning` chose.
    """

    folder: Path
    split: Split
    methods: Mapping[str, Finished]
    long: Mapping[str, Finished]
    tuned: Mapping[str, Finished]
    logged: Finished | None
    missing: Sequence[str]

    @property
    def built_in(self) -> int:
        """How many built-in methods were run."""
        return sum(name in self.methods for name in BUILT_IN)

    def unlearnable(self, cause: str | None = None) -> list[Item]:
        """The unlearnable items, or those of one cause, in the order of the split."""
        return [item for item in of_group(self.split, "unlearnable") if cause in (None, item.cause)]


def collect(folder: Path, split: Split) -> Runs:
    """Every planned run in `folder` that was scored. Raises RunError for one of another method or split."""
    methods = {planned.name: run for planned in METHODS if (run := read(folder, planned, split))}
    long = {planned.name: run for planned in LONGER if (run := read(folder, planned, split))}
    planned_tuned = {name: Planned(TUNED.format(name), name) for name in BUILT_IN}
    tuned = {name: run for name, planned in planned_tuned.items() if (run := read(folder, planned, split))}
    logged = read(folder, LOGGED, split)
    missing = [planned.name for planned in METHODS if planned.name not in methods]
    return Runs(folder, split, methods, long, tuned, logged, missing + ([] if logged else [LOGGED.name]))


def read(folder: Path, planned: Planned, split: Split) -> Finished | None:
    """The run in a folder, None where there is none. Raises RunError for one of another method or split."""
    place = folder / planned.name
    if not (place / "result.json").is_file():
        return None
    run = read_run(place)
    result, remedy = run.result, "remove it, and run `python -m experiments.sweep` again"
    if result.split_hash != split.hash:
        raise RunError(f"{place} was scored on other labels than those in {split.path}; {remedy}")
    settings = {name: result.method.settings.get(name) for name in planned.settings}
    if result.method.name != locate(planned.method).name or settings != planned.settings:
        raise RunError(f"{place} is a run of {result.method.name}, and {planned.name} was planned there; {remedy}")
    return run


def of_group(split: Split, group: str) -> list[Item]:
    """A group's items, in the order of the split."""
    return [item for item in split.items if item.group == group]
