"""The finished runs that the page is made of, and the names of those that are not there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.sweep import LONG, LONGER, METHODS, SINGLE, Planned, longer
from unlearnbench.errors import RunError
from unlearnbench.records import Item
from unlearnbench.scoring.comparability import Finished, read_run
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.splits import Control, Split


@dataclass(frozen=True)
class Runs:
    """By the name of its folder: what was run on this split. `methods` are at 1x, `long` the best of them at more."""

    folder: Path
    split: Split
    methods: Mapping[str, Finished]
    long: Mapping[str, Finished]
    single: Mapping[str, Finished]
    missing: Sequence[str]

    def get(self, name: str) -> Finished | None:
        """A run by its name, whatever it is for."""
        return self.methods.get(name) or self.long.get(name) or self.single.get(name)

    def seed_policies(self, name: str) -> list[Path]:
        """Folders of the policies that a run ended with, one a seed; none if there is no such run."""
        run = self.get(name)
        return [] if run is None else [run.folder / str(seed) / "checkpoint" for seed in run.result.seeds]


def collect(folder: Path, split: Split) -> Runs:
    """Every planned run in `folder` that was scored. Raises RunError for one of another method or split."""
    methods = {planned.name: run for planned in METHODS if (run := _read(folder, planned, split))}
    single = {planned.name: run for planned in SINGLE if (run := _read(folder, planned, split))}
    long = {planned.name: run for planned in LONGER if (run := _read(folder, planned, split))}
    there = {*methods, *single, *long}
    missing = [planned.name for planned in (*METHODS, *SINGLE) if planned.name not in there]
    if len(methods) < len(METHODS):  # which are the best is known once all are there
        missing.append(f"the best methods at {LONG:g}x")
    else:
        best = longer({name: run.result for name, run in methods.items()})
        missing += [planned.name for planned in best if planned.name not in there]
    return Runs(folder, split, methods, long, single, missing)


def _read(folder: Path, planned: Planned, split: Split) -> Finished | None:
    place = folder / planned.name
    if not (place / "result.json").is_file():
        return None
    run = read_run(place)
    told, method = run.result, Path(planned.method).stem
    remedy = "remove it, and run `make experiments` again"
    if told.split_hash != split.hash:
        raise RunError(f"{place} was scored on other labels than those in {split.path}; {remedy}")
    if told.method.name != method or len(told.seeds) != planned.seeds:
        raise RunError(
            f"{place} is a run of {told.method.name} with {len(told.seeds)} seeds, and {method} with {planned.seeds} "
            f"was planned there; {remedy}"
        )
    return run


def cells_of(run: Finished, items: Sequence[Item]) -> Cells:
    """Counts of these items after training, shape (items, seeds). Raises DataError for a row that cannot be."""
    return _cells(run.counts, items, run.result.seeds, str(run.folder / "counts.parquet"))


def control_cells(control: Control, items: Sequence[Item]) -> Cells:
    """The same of a control's seeds."""
    return _cells(control.counts, items, control.seeds, "the control")


def _cells(counts: object, items: Sequence[Item], seeds: Sequence[int], source: str) -> Cells:
    ids = [item.item_id for item in items]
    return Cells.of(read_phase(counts, "eval", ids, runs=[str(seed) for seed in seeds], source=source))


def of_group(split: Split, group: str) -> list[Item]:
    """A group's items, in the order of the split."""
    return [item for item in split.items if item.group == group]
