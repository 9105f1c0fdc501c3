"""Whether counts are whole: those of a split's controls, and the fresh base rollouts that a score starts from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.records import Canary, Item, Result, Twin
from unlearnbench.splits import Split


def control_problems(
    split: Path, items: Sequence[Item], twins: Sequence[Twin], canaries: Sequence[Canary]
) -> Iterator[str]:
    """A sentence for whatever is wrong with the controls in a split's folder.

    Each must be of this version of the split, with counts of its items, twins and canaries alone, and of every item
    and every probe in every run.
    """
    known = {"twin": {twin.twin_id for twin in twins}, "canary": {canary.item_id for canary in canaries}}
    names = {item.item_id for item in items}
    folders = [path for kind in ("null_control", "tuned_null") for path in sorted((split / kind).glob("*/"))]
    for folder in [*folders, split / "positive_control"]:
        result_file, counts_file = folder / "result.json", folder / "counts.parquet"
        if not (result_file.is_file() or counts_file.is_file()):
            continue
        try:
            result = tables.read_json_record(result_file, Result)
            counts = tables.read_counts(counts_file)
        except DataError as error:
            yield str(error)
            continue
        for phase in pc.unique(counts["phase"]).to_pylist():
            of_phase = counts.filter(pc.equal(counts["phase"], phase))
            yield from unknown_ids(counts_file, "item_id", of_phase, known.get(phase, names))
        if set(pc.unique(counts["run"]).to_pylist()) != {str(seed) for seed in result.seeds}:
            yield f"{counts_file}, field 'run': its runs are not the seeds in {result_file}"
        if result.split_hash != Split(split).hash:
            yield f"{result_file}, field 'split_hash': a control of another version of this split; run it again"
        yield from _gaps(counts_file, counts, "eval", "item", names)
        yield from _gaps(counts_file, counts, "twin", "probe", {twin.twin_id for twin in twins if twin.probe})


def _gaps(file: Path, counts: pa.Table, phase: str, noun: str, wanted: set[str]) -> Iterator[str]:
    """A sentence for the first run in which not all wanted problems have rollouts."""
    of_phase = counts.filter(pc.equal(counts["phase"], phase))
    for run in sorted(pc.unique(counts["run"]).to_pylist()):
        if lacking := wanted - _measured(of_phase.filter(pc.equal(of_phase["run"], run))):
            place = f"{file}, phase {phase}, run {run!r}"
            yield f"{place}: {_first_of(lacking, noun)} no rollouts; run this control again"
            return  # the other runs would mostly repeat it


def fresh_problems(file: Path, items: Sequence[Item], counts: pa.Table) -> Iterator[str]:
    """A sentence where some items have fresh base rollouts and others do not.

    The rate before training of their groups is then undefined (PROTOCOL 3.2). A split without any is one of labels
    alone.
    """
    of_phase = counts.filter(pc.equal(counts["phase"], "base_fresh"))
    lacking = {item.item_id for item in items} - _measured(of_phase)
    if of_phase.num_rows and lacking:
        yield (
            f"{file}, phase base_fresh: {_first_of(lacking, 'item')} no rollouts, though other items have; curate the "
            "split again"
        )


def unknown_ids(file: Path, key: str, counts: pa.Table, known: set[str]) -> Iterator[str]:
    """A sentence for each id in counts that is none of the known ones."""
    for identity in pc.unique(counts[key]).to_pylist():
        if identity not in known:
            row = pc.index(counts[key], identity).as_py() + 1
            yield f"{file}, row {row}, field {key!r}: there is no {key.removesuffix('_id')} {identity!r} here"


def _measured(counts: pa.Table) -> set[str]:
    """Ids that have rollouts in these counts."""
    return set(pc.unique(counts.filter(pc.greater(counts["n"], 0))["item_id"]).to_pylist())


def _first_of(lacking: Collection[str], noun: str) -> str:
    """The first of some ids that lack something, as the subject of a sentence."""
    more = f" and {len(lacking) - 1:,} more have" if len(lacking) > 1 else " has"
    return f"{noun} {min(lacking)!r}{more}"
