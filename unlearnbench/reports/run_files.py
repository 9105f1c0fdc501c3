"""A run as its files record it: counts before and after training, fates, controls, completions. No torch.

Everything is read when first asked for. Files that a kind of run does not have are None or empty; a malformed one
is a DataError naming it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.records import GROUPS, Result
from unlearnbench.scoring.counts import Cells, Grid, read_phase
from unlearnbench.scoring.fates import Watched, read_fates
from unlearnbench.scoring.outcomes import Outcomes, outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Reals
from unlearnbench.splits import Control, Split

MAX_ROWS = 200  # converted items whose completions are looked up


class Run:
    """The folder of a run (all seeds of one method on one split) with the split and the result that it belongs to."""

    def __init__(self, folder: Path, split: Split, result: Result) -> None:
        self.folder, self.split, self.result = Path(folder), split, result
        self.items = [item for item in split.items if item.group == "unlearnable"]
        self.ids = [item.item_id for item in self.items]
        self.seeds = [str(seed) for seed in result.seeds]

    @cached_property
    def counts(self) -> pa.Table | None:
        path = self.folder / "counts.parquet"
        return tables.read_counts(path) if path.is_file() else None

    @cached_property
    def after(self) -> Grid | None:
        """Counts of the unlearnable items after training."""
        if self.counts is None or not self.ids:
            return None
        return read_phase(self.counts, "eval", self.ids, runs=self.seeds)

    @cached_property
    def everything(self) -> Cells | None:
        """Counts of all the split's items after training."""
        if self.counts is None:
            return None
        return Cells.of(read_phase(self.counts, "eval", [item.item_id for item in self.split.items], runs=self.seeds))

    @cached_property
    def before(self) -> tuple[Reals, str] | None:
        """Rates of the unlearnable items before training, and what of."""
        return self.rates_before(self.ids) if self.ids else None

    def rates_before(self, ids: Sequence[str]) -> tuple[Reals, str] | None:
        """Rates of items in the policy that the runs start from, else in the split's base, and what of.

        None where no phase has samples of all of them.
        """
        sources = [] if self.counts is None else [(self.counts, "start", "start of the runs")]
        if "counts.parquet" in self.split.config.files:
            shipped = self.split.counts()
            sources += [
                (shipped, "base_fresh", "base, fresh samples"),
                (shipped, "base", "base, labelling samples"),
            ]
        for counts, phase, label in sources:
            correct, n = read_phase(counts, phase, ids).pooled
            if len(n) and n.all():
                return correct / n, f"{label} (n = {n.min()} an item)"
        return None

    @cached_property
    def null(self) -> Control | None:
        """The null control that the result was scored against, if the split still has it."""
        multiple = self.result.budget.multiple
        control = self.split.control("null_control", f"{1.0 if multiple is None else multiple:g}x")
        return control if control and control.hash == self.result.conversion.null_hash else None

    @cached_property
    def null_rates(self) -> tuple[Reals, str] | None:
        """Rates under as many seeds of the null control as the run has: more would be less spread by chance."""
        if self.null is None or len(self.null.seeds) < len(self.seeds):
            return None
        seeds = [str(seed) for seed in self.null.seeds[: len(self.seeds)]]
        correct, n = read_phase(self.null.counts, "eval", self.ids, runs=seeds).pooled
        return (correct / n, f"null control, {len(seeds)} seeds, sorted by itself") if n.all() else None

    @cached_property
    def converted(self) -> list[int]:
        """Places of the items that any seed solved, those that most seeds converted first; none where undefined."""
        if (found := self.outcomes) is None:
            return []
        order = np.lexsort((-found.cells.rates, -found.solved.sum(axis=1), -found.converted.sum(axis=1)))
        return [int(place) for place in order if found.solved[place].any()]

    @cached_property
    def outcomes(self) -> Outcomes | None:
        """Solved, converted, memorised of the unlearnable items in every seed; None where there are too few samples."""
        if self.counts is None or self.after is None or not Cells.of(self.after).enough:
            return None
        tau, source = self.split.config.protocol.tau, str(self.folder / "counts.parquet")
        return outcomes_of(self.counts, self.items, probes_of(self.split), self.seeds, tau, source)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Places in the split's items of each group that has any, the unlearnable first, thin ones once more apart."""
        found = {name: [i for i, item in enumerate(self.split.items) if item.group == name] for name in GROUPS}
        core = found.pop("unlearnable")
        thin = [i for i in core if self.split.items[i].thin]
        return {name: rows for name, rows in ({"unlearnable": core, "thin": thin} | found).items() if rows}

    @cached_property
    def watched(self) -> Watched | None:
        """What training saw of all the split's items; None for a run that nobody watched."""
        path = self.folder / "fates.parquet"
        if not path.is_file():
            return None
        return read_fates(path, [item.item_id for item in self.split.items], self.result.seeds)

    @cached_property
    def fates(self) -> Watched | None:
        """The same of the unlearnable items alone."""
        return None if self.watched is None else self.watched[self.places.get("unlearnable", [])]

    @cached_property
    def completions(self) -> dict[str, str]:
        """One correct completion after training of each converted item that is shown."""
        missing = {self.ids[place] for place in self.converted[:MAX_ROWS]}
        found: dict[str, str] = {}
        for seed in self.seeds:
            path = self.folder / seed / "evaluation" / "items.parquet"
            if not missing or not path.is_file():
                continue
            try:
                with pq.ParquetFile(path) as file:  # in pieces: a long-answer split holds gigabytes of them
                    for piece in file.iter_batches(8192, columns=["item_id", "completion", "correct"]):
                        wanted = pc.is_in(piece["item_id"], pa.array(sorted(missing), pa.string()))
                        rows = piece.filter(pc.and_(wanted, pc.fill_null(piece["correct"], False)))
                        for row in rows.to_pylist():
                            found.setdefault(row["item_id"], row["completion"])
                        missing -= found.keys()
            except (OSError, KeyError, pa.ArrowException) as error:
                raise DataError(f"{path} is not a readable table of rollouts: {error}") from error
        return found

    @cached_property
    def environment(self) -> dict[str, Any]:
        """environment.json of the first seed that has one, flattened."""
        for seed in self.seeds:
            path = self.folder / seed / "environment.json"
            if path.is_file():
                try:
                    found = dict(json.loads(path.read_bytes()))
                    return found | dict(found.pop("packages", {}))
                except (TypeError, ValueError) as error:
                    raise DataError(f"{path} is not a JSON object ({error})") from error
        return {}
