"""A run as its files record it: counts before and after training, fates, curves, controls, completions. No torch.

Everything is read when first asked for. Files that a kind of run does not have are None or empty; a malformed one
is a DataError naming it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.records import GROUPS, Result
from unlearnbench.scoring.counts import Cells, Grid, read_phase
from unlearnbench.scoring.curves import read_curves, training_curves
from unlearnbench.scoring.fates import Watched, read_fates
from unlearnbench.scoring.outcomes import Outcomes, outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Reals
from unlearnbench.splits import Control, Split
from unlearnbench.training.ledger import drawn_items, read_visits


class Run:
    """The folder of a run (all seeds of one method on one split) with the split and the result that it belongs to."""

    def __init__(self, folder: Path, split: Split, result: Result) -> None:
        self.folder, self.split, self.result = Path(folder), split, result
        self.items = [item for item in split.items if item.group == "unlearnable"]
        self.ids = [item.item_id for item in self.items]
        self.seeds = [str(seed) for seed in result.seeds]

    # --- counts ---------------------------------------------------------------------------------------------------

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
    def outcomes(self) -> Outcomes | None:
        """Solved, converted, memorised of the unlearnable items in every seed; None with too few samples."""
        if self.counts is None or self.after is None or not Cells.of(self.after).enough:
            return None
        tau, source = self.split.config.protocol.tau, str(self.folder / "counts.parquet")
        return outcomes_of(self.counts, self.items, probes_of(self.split), self.seeds, tau, source, gaps=True)

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
                return correct / n, f"{label} (n = {n.min()} per item)"
        return None

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Places in the split's items of each group that has any, the unlearnable first, thin ones once more apart."""
        found = {name: [i for i, item in enumerate(self.split.items) if item.group == name] for name in GROUPS}
        core = found.pop("unlearnable")
        thin = [i for i in core if self.split.items[i].thin]
        return {name: rows for name, rows in ({"unlearnable": core, "thin": thin} | found).items() if rows}

    # --- the null control -----------------------------------------------------------------------------------------

    @cached_property
    def null(self) -> Control | None:
        """The null control that the result was scored against, if the split still has it."""
        control = self.split.control("null_control", self._multiple)
        return control if control and control.hash == self.result.conversion.null_hash else None

    @cached_property
    def null_rates(self) -> Reals | None:
        """Rate of every item of the split under the null control, over all its seeds; NaN where it has no samples."""
        if self.null is None:
            return None
        ids, seeds = [item.item_id for item in self.split.items], [str(seed) for seed in self.null.seeds]
        return Cells.of(read_phase(self.null.counts, "eval", ids, runs=seeds)).rates

    @cached_property
    def null_curves(self) -> pa.Table | None:
        """curves.parquet of the null control; None in splits that were made before it was kept."""
        return None if self.null is None else read_curves(self._null_folder / "curves.parquet")

    @property
    def _null_folder(self) -> Path:
        return self.split.path / "null_control" / self._multiple

    @property
    def _multiple(self) -> str:
        multiple = self.result.budget.multiple
        return f"{1.0 if multiple is None else multiple:g}x"

    # --- training -------------------------------------------------------------------------------------------------

    @cached_property
    def watched(self) -> Watched | None:
        """What training saw of all the split's items; None for a run that nobody watched."""
        path = self.folder / "fates.parquet"
        if not path.is_file():
            return None
        ids = [item.item_id for item in self.split.items]
        found = read_fates(path, ids, self.result.seeds)
        drawn = [drawn_items(self.folder / seed) for seed in self.seeds]
        if not drawn or any(kept is None for kept in drawn):
            return found
        there = np.array([[name in (kept or ()) for kept in drawn] for name in ids], bool).reshape(found.fate.shape)
        # of a ledger that lacks items which were rewarded, some files are missing
        return found if (~there & (found.rewarded > 0)).any() else replace(found, drawn=there)

    @cached_property
    def fates(self) -> Watched | None:
        """The same of the unlearnable items alone."""
        return None if self.watched is None else self.watched[self.places.get("unlearnable", [])]

    @cached_property
    def curves(self) -> pa.Table | None:
        """Correct rollouts by group and step; None for a run that left no rollouts of its training."""
        if (found := read_curves(self.folder / "curves.parquet")) is not None:
            return found
        groups = {item.item_id: item.group for item in self.split.items}
        parts = [read_visits(self.folder / seed, int(seed)) for seed in self.seeds]
        table = pa.concat_tables(parts) if parts else None
        return training_curves(table, groups) if table is not None and table.num_rows else None

    @cached_property
    def finished(self) -> float | None:
        """When the last seed's training ended, in seconds since 1970; None where no file says so."""
        files = [self.folder / seed / "cost.json" for seed in self.seeds]
        times = [file.stat().st_mtime for file in files if file.is_file()]
        return max(times) if times else None

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
