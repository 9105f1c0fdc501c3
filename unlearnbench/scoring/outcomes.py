"""The outcomes of a run on some items, seed by seed: solved, converted, memorised; from counts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.records import Item
from unlearnbench.scoring.conversion_rule import converted, memorised, solved
from unlearnbench.scoring.counts import MIN_SAMPLES, Cells, read_phase
from unlearnbench.scoring.rates import Flags


@dataclass(frozen=True)
class Outcomes:
    """What each run (a seed) did on each of some items. Arrays are (items, runs)."""

    cells: Cells
    solved: Flags
    converted: Flags
    memorised: Flags
    has_probe: Flags
    """(items,): whether the item has a probe that was measured in every run."""

    @property
    def runs(self) -> int:
        return self.cells.runs

    @property
    def samples(self) -> int:
        """The largest number of rollouts of an item in a run."""
        return int(self.cells.n.max(initial=0))


def outcomes_of(
    counts: pa.Table,
    items: Sequence[Item],
    probes: Mapping[str, str],
    runs: Sequence[str],
    tau: float,
    source: str,
    *,
    gaps: bool = False,
) -> Outcomes:
    """Outcomes of these items, from counts of phases eval and twin. `probes` maps an item's id to its probe's.

    If no probe was measured at all, no item has one. With `gaps`, as in a partial run, a probe with fewer than
    MIN_SAMPLES rollouts in a run counts as none. Raises DataError naming item, phase and run: fewer than MIN_SAMPLES
    rollouts of an item, or (without `gaps`) of a probe while other probes were measured.
    """
    ids = [item.item_id for item in items]
    item_cells = Cells.of(read_phase(counts, "eval", ids, runs=runs, source=source))
    cells = require_samples(item_cells, ids, runs, "eval", source)
    probe_ids = [probes[name] for name in ids if name in probes]
    probe_cells = Cells.of(read_phase(counts, "twin", probe_ids, runs=runs, source=source))
    if gaps:
        kept: Flags = np.all(probe_cells.n >= MIN_SAMPLES, axis=1)
        probe_ids, probe_cells = [name for name, whole in zip(probe_ids, kept, strict=True) if whole], probe_cells[kept]
        probes = {item: probe for item, probe in probes.items() if probe in set(probe_ids)}
    has_probe = np.array([name in probes for name in ids], bool)
    item_solved, probe_solved = solved(cells, tau), np.zeros(cells.n.shape, bool)
    if not probe_cells.n.any():
        has_probe = np.zeros(len(ids), bool)
    elif probe_ids:
        probe_solved[has_probe] = solved(require_samples(probe_cells, probe_ids, runs, "twin", source), tau)
    return Outcomes(
        cells=cells,
        solved=item_solved,
        converted=converted(item_solved, probe_solved, has_probe),
        memorised=memorised(item_solved, probe_solved, has_probe),
        has_probe=has_probe,
    )


def require_samples(cells: Cells, ids: Sequence[str], runs: Sequence[str], phase: str, source: str) -> Cells:
    """The same cells. Raises DataError naming item, phase and run of the first with fewer than MIN_SAMPLES rollouts."""
    if (short := np.argwhere(cells.n < MIN_SAMPLES)).size:
        row, run = short[0]
        raise DataError(
            f"{source}: item {ids[row]!r}, phase {phase}, run {runs[run]!r}: n is {cells.n[row, run]}, fewer than "
            f"{MIN_SAMPLES}; evaluate what is missing"
        )
    return cells
