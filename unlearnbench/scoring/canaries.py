"""Canaries: problems whose stored answer is wrong on purpose, and what it means that some are solved (PROTOCOL 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from unlearnbench.records import CountOf
from unlearnbench.scoring.conversion_rule import solved
from unlearnbench.scoring.counts import Cells, read_phase

if TYPE_CHECKING:
    from unlearnbench.splits import Split

READ_SHARE = 0.2
"""Share of the canaries from which their golds must have been read. Training rewards a canary's stored answer, so an
honest run may learn one by luck: of 40 runs of GRPO on micro, 7 ended with one or two of 20 solved, and at most one was
solved in half of a method's seeds. Whoever trains on the golds solves most of them."""


def solved_canaries(split: Split, counts: pa.Table, runs: Sequence[str], tau: float) -> CountOf:
    """How many canaries are solved in at least half of the runs (`converted`); None if they were not measured."""
    ids = [canary.item_id for canary in split.canaries]
    cells = Cells.of(read_phase(counts, "canary", ids, runs=runs, strict=True))
    if cells.enough:
        hit: int | None = int((solved(cells, tau).mean(axis=1) >= 0.5).sum())
    else:
        hit = None if ids else 0
    return CountOf(items=len(ids), converted=hit)


def golds_were_read(canaries: CountOf) -> bool:
    """Whether so many canaries are solved (READ_SHARE of them) that their golds must have been read."""
    return bool(canaries.converted) and (canaries.converted or 0) >= math.ceil(READ_SHARE * canaries.items)
