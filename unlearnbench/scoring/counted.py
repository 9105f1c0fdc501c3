"""A run with its counts and the labels that it was scored on, from which its result must follow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from unlearnbench.errors import DataError, SplitError
from unlearnbench.records import Item
from unlearnbench.scoring.comparisons.comparability import Finished
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.group_scores import number
from unlearnbench.scoring.outcomes import Outcomes, outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.splits import Split, find_split, load_split


@dataclass(frozen=True)
class Counted:
    """A run with its outcomes on the unlearnable items (`core`), and its counts of the easy ones."""

    label: str
    run: Finished
    core: Outcomes
    easy: Cells


def labels_of(runs: Sequence[Finished], split: Split | None) -> Split:
    """The split with the labels that the runs were scored on: `split`, one whose folder holds a run, or a shipped one.

    Raises SplitError if none of them has the hash that the results name.
    """
    name, wanted = runs[0].result.split, runs[0].result.split_hash
    if split is not None:
        if split.hash != wanted:
            raise SplitError(
                f"{runs[0].folder} was scored on other labels than those in {split.path} (field split_hash of its "
                "result.json); name the split that it was scored on with --split"
            )
        return split
    holding = [parent for run in runs for parent in run.folder.resolve().parents if (parent / "split.yaml").is_file()]
    tried = list(dict.fromkeys(holding))
    with suppress(SplitError):
        tried.append(find_split(name))
    for path in tried:
        if (there := load_split(path)).hash == wanted:
            return there
    raise SplitError(
        f"the split {name!r} with the labels that {runs[0].folder} was scored on is not among the shipped ones; "
        "name its folder with --split"
    )


def counted(label: str, run: Finished, split: Split, core: Sequence[Item], easy: Sequence[Item]) -> Counted:
    """The run with its counts. Raises DataError if they are incomplete, or do not give the folder's result.json."""
    _cells(run, core)
    names, source = [str(seed) for seed in run.result.seeds], str(run.folder / "counts.parquet")
    outcomes = outcomes_of(run.counts, core, probes_of(split), names, split.config.protocol.tau, source)
    if (recorded := run.result.groups.get("unlearnable")) is None:
        raise DataError(
            f"{run.folder / 'result.json'}, field 'groups': the unlearnable group is missing; rerun the same `eval` "
            "command, which scores the run's files again"
        )
    found: dict[str, float | None] = {"solved": number(outcomes.solved)}
    found["converted"] = number(outcomes.converted) if outcomes.has_probe.any() else None  # without probes, unknown
    for word, hits in found.items():
        claimed = getattr(recorded, word)
        same = (hits is None) == (claimed is None) and abs((hits or 0) - (claimed or 0)) <= 1e-9
        if recorded.items != len(core) or not same:
            shown = ["nothing" if value is None else f"{value:g}" for value in (hits, claimed)]
            raise DataError(
                f"{run.folder}: by counts.parquet {shown[0]} of {len(core)} unlearnable items are {word}, and "
                f"result.json says {shown[1]} of {recorded.items}; rerun the same `eval` command, which scores them "
                "again"
            )
    return Counted(label, run, outcomes, _cells(run, easy))


def _cells(run: Finished, items: Sequence[Item]) -> Cells:
    ids, names = [item.item_id for item in items], [str(seed) for seed in run.result.seeds]
    source = run.folder / "counts.parquet"
    cells = Cells.of(read_phase(run.counts, "eval", ids, runs=names, source=str(source)))
    if (wrong := np.argwhere(cells.n != run.result.samples)).size:
        row, seed = wrong[0]
        raise DataError(
            f"{source}: item {ids[row]!r}, phase eval, run {names[seed]!r}: n is {cells.n[row, seed]}, and result.json "
            f"says {run.result.samples} samples; rerun the same `eval` command"
        )
    return cells
