"""A split and runs on it whose counts are typed in, so that a result can be counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from unlearnbench.io import tables
from unlearnbench.records import (
    Canary,
    Cost,
    Item,
    MethodRecord,
    PolicyRef,
    Result,
    Sampling,
    SpentBudget,
    SplitConfig,
    Twin,
)
from unlearnbench.scoring.score import RunFacts, score

Row = tuple[str, str, str, int, int]
TAU = 0.1


def table(rows: list[Row], key: str = "item_id") -> pa.Table:
    schema = tables.COUNTS if key == "item_id" else tables.TWIN_COUNTS
    columns = zip(*rows, strict=True) if rows else [[]] * 5
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


FAMILIES = ("a", "b", "c", "d")
SEEDS = (1, 2, 3)
NULL_SEEDS = (11, 12, 13, 14, 15)
ITEMS = tuple(
    Item(
        item_id=f"{group}-{i}",
        prompt="p",
        answer="1",
        family=FAMILIES[i % 4],
        group=group,
        thin=(group, i) == ("unlearnable", 0),
    )
    for group, size in {"easy": 4, "learnable": 4, "unlearnable": 8, "unstable": 2}.items()
    for i in range(size)
)
TWINS = tuple(
    Twin(
        twin_id=f"{item.item_id}-{kind}-{i}",
        item_id=item.item_id,
        kind=kind,
        prompt="p",
        answer="1",
        probe=(kind, i) == ("changed_numbers", 1),
    )
    for item in ITEMS
    if item.group == "unlearnable"
    for kind in ("changed_numbers", "other_wording")
    for i in range(2)
)
CANARIES = (Canary(item_id="canary", prompt="p", answer="1", true_answer="2", family="a"),)
LABELLING = ("101", "102", "103", "104")


def counted(ids: Any, phase: str, runs: Any, n: int, correct: Any) -> list[Row]:
    return [(name, phase, str(run), n, correct(name)) for name in ids for run in runs]


def base_rate(name: str) -> int:
    return 100 if name.startswith("easy") else 4


def split(**changes: Any) -> Any:
    """A split in memory: what `score` reads of a `Split`. Of two unstable items one and three of four runs learned."""
    ids = [item.item_id for item in ITEMS]
    twins = [twin.twin_id for twin in TWINS]
    twin_rows = counted(twins, "base", "0", 32, lambda _: 0) + counted(
        twins, "after", ["12"], 32, lambda name: 20 if name.startswith("unlearnable-1-other") else 0
    )
    labelled = [
        (name, "after", run, 512, 400 if learned(name, place) else 0)
        for name in ids
        for place, run in enumerate(LABELLING)
    ]
    parts: dict[str, Any] = {
        "config": SplitConfig(name="toy", base_policy=PolicyRef(path="policy")),
        "name": "toy",
        "hash": "f00",
        "items": ITEMS,
        "twins": TWINS,
        "canaries": CANARIES,
        "counts": lambda: table(counted(ids, "base_fresh", "0", 128, base_rate) + labelled),
        "twin_counts": lambda: table(twin_rows, "twin_id"),
        "control": lambda kind, multiple="1x": None,
        "tuned_nulls": dict,
        "ids": lambda group: tuple(item.item_id for item in ITEMS if item.group == group),
    }
    return SimpleNamespace(**parts | changes)


def learned(name: str, place: int) -> bool:
    """Whether a labelling run learned the item."""
    if name.startswith("unstable"):
        return place < {"unstable-0": 1, "unstable-1": 3}[name]
    return name.startswith(("easy", "learnable"))


def counts(
    runs: Any,
    solved: Any,
    n: int = 32,
    *,
    probes: Any = None,
    canary: int = 0,
    easy: int = 30,
    wordings: int = 0,
) -> pa.Table:
    """Counts of all items: those in `solved` have half of n correct, others none.

    A name with /seed counts in that seed alone. `probes` are the items whose probe is half right too (default: all
    that are solved); `wordings` is how many rollouts of each twin in other words are right.
    """
    held = solved if probes is None else probes

    def in_run(names: Any, name: str, run: Any) -> bool:
        return bool({name, f"{name}/{run}"} & set(names))

    def correct(name: str, run: Any) -> int:
        if name.startswith("easy"):
            return min(easy, n)
        return n // 2 if in_run(solved, name, run) or name.startswith("learnable") else 0

    def of_twin(twin: Twin, run: Any) -> int:
        if twin.kind == "other_wording":
            return wordings
        return n // 2 if in_run(held, twin.item_id, run) else 0

    rows = [(item.item_id, "eval", str(run), n, correct(item.item_id, run)) for item in ITEMS for run in runs]
    rows += [(twin.twin_id, "twin", str(run), n, of_twin(twin, run)) for twin in TWINS for run in runs]
    return table(rows + counted(["canary"], "canary", runs, 32, lambda _: canary))


def control(solved: Any = (), runs: Any = NULL_SEEDS, n: int = 32, **how: Any) -> Any:
    return SimpleNamespace(counts=counts(runs, solved, n, **how), seeds=tuple(runs), hash="beef", result=None)


def scored(measured: pa.Table, of: Any = None, null: Any = "shipped", **how: Any) -> Result:
    facts: dict[str, Any] = {
        "method": MethodRecord(name="m", source_hash="s", track="verifier"),
        "seeds": SEEDS,
        "samples": 32,
        "sampling": Sampling(),
        "budget": SpentBudget(multiple=1.0, limit=10, used=[9, 9, 9]),
        "cost": Cost(),
        "code_version": "0",
    }
    return score(of or split(), measured, RunFacts(**facts | how), control() if null == "shipped" else null)


SOLVED = {f"unlearnable-{i}" for i in (0, 1, 2, 4)}  # families a, b, c, a
