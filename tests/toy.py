"""A split of 48 unlearnable items, small enough to count by hand, and counts of runs on it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from unlearnbench.io import tables
from unlearnbench.records import Item, PolicyRef, SplitConfig, Twin
from unlearnbench.splits import Split, write_split

FAMILIES = tuple("abcdefghijkl")
HARD = tuple(f"hard-{i:02d}" for i in range(48))
EASY = tuple(f"easy-{i}" for i in range(6))
NULL_SEEDS = (1, 2, 3, 4, 5, 6)


def counts(runs: Sequence[int], solved: Collection[str], n: int = 32, memorised: Collection[str] = ()) -> pa.Table:
    """Everything is either half right or wrong; items in `solved` that end in /seed only in that seed.

    The probe of an item in `memorised` stays wrong.
    """

    def correct(name: str, run: int) -> int:
        return n // 2 if {name, f"{name}/{run}"} & set(solved) else 1

    rows = [(name, "eval", str(run), n, correct(name, run)) for name in HARD for run in runs]
    rows += [(name, "eval", str(run), n, n) for name in EASY for run in runs]
    rows += [
        (probe(name), "twin", str(run), n, 1 if name in memorised else correct(name, run))
        for name in HARD
        for run in runs
    ]
    return table(rows)


def probe(name: str) -> str:
    """The id of an item's probe."""
    return f"{name}-probe"


def table(rows: Sequence[tuple[str, str, str, int, int]], schema: pa.Schema = tables.COUNTS) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def make(folder: Path) -> Split:
    """48 unlearnable items in 12 families and 6 easy ones, with a null control that converts next to nothing."""
    items = [
        Item(item_id=name, prompt="p", answer="1", family=FAMILIES[i % 12], group="unlearnable")
        for i, name in enumerate(HARD)
    ] + [Item(item_id=name, prompt="p", answer="1", family=FAMILIES[i], group="easy") for i, name in enumerate(EASY)]
    fresh = table([(name, "base_fresh", "0", 128, 120 if name in EASY else 4) for name in HARD + EASY])
    twins = [
        Twin(twin_id=probe(name), item_id=name, kind="changed_numbers", prompt="p", answer="1", probe=True)
        for name in HARD
    ]
    config = SplitConfig(name="toy", base_policy=PolicyRef(path="policy"))
    failed = [(probe(name), phase, "0", 32, 1) for name in HARD for phase in ("base", "after")]
    made = write_split(folder, config, items, counts=fresh, twins=twins, twin_counts=table(failed, tables.TWIN_COUNTS))
    tables.write_parquet(folder / "null_control/1x/counts.parquet", counts(NULL_SEEDS, {"hard-00/1", "hard-00/2"}))
    return made
