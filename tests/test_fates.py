"""Fates: each of the four by a ledger of a few rows, and against a slow rewriting of the definition."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.fates import count_fates, fates
from unlearnbench.records import Fates

SCHEMA = pa.schema(
    [
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("round", pa.int64()),
        ("item_id", pa.string()),
        ("rollout", pa.int64()),
        ("correct", pa.bool_()),
        ("valid_trace", pa.bool_()),
    ]
)


def ledger(visits: list[tuple[str, int, str]], seed: int = 1, valid: bool | None = None) -> pa.Table:
    """Visits as (item, step, marks): + correct, - wrong, ? without a verdict."""
    rows = [
        dict(
            zip(
                SCHEMA.names,
                (seed, step, 0, item, place, {"+": True, "-": False, "?": None}[mark], valid),
                strict=True,
            )
        )
        for item, step, marks in visits
        for place, mark in enumerate(marks)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


VISITS = [
    ("never", 0, "----"),
    ("never", 3, "-?--"),
    ("flickered", 9, "+---"),
    ("flickered", 2, "+---"),
    ("converted", 5, "+---"),
    ("converted", 1, "++--"),
    ("held", 1, "++++"),
    ("held", 2, "----"),
    ("held", 7, "++-?--"[:4]),
]


def test_each_fate() -> None:
    table = fates(ledger(VISITS), ["never", "flickered", "converted", "held", "unvisited"], [1])
    assert table.column_names == [
        "item_id",
        "seed",
        "fate",
        "first_correct_step",
        "rewarded",
        "rewarded_valid_trace",
    ]
    assert table["fate"].to_pylist() == ["never", "flickered", "converted", "held", "never"]
    assert table["first_correct_step"].to_pylist() == [None, 2, 1, 1, None]
    assert table["rewarded"].to_pylist() == [0, 2, 3, 6, 0]
    assert table["rewarded_valid_trace"].to_pylist() == [0, None, None, None, 0]


def test_rewarded_rollouts_with_valid_traces_are_counted_where_they_can_be_judged() -> None:
    visits = pa.concat_tables([ledger([("a", 0, "+-")], valid=True), ledger([("a", 1, "+-")], valid=False)])
    assert fates(visits)["rewarded_valid_trace"].to_pylist() == [1]


def test_seeds_are_kept_apart_and_counted_together() -> None:
    table = fates(pa.concat_tables([ledger(VISITS, 2), ledger(VISITS[:5], 1)]))
    assert table["seed"].to_pylist() == [1, 2] * 4
    assert count_fates(table, ["held", "converted"]) == Fates(never=1, flickered=1, converted=1, held=1)
    assert count_fates(table, []) == Fates(never=0, flickered=0, converted=0, held=0)


def test_an_empty_ledger_has_every_item_at_never() -> None:
    assert fates(SCHEMA.empty_table(), ["a"], [1, 2])["fate"].to_pylist() == ["never", "never"]


@given(st.dictionaries(st.integers(0, 9), st.text("+-?", min_size=1, max_size=5)))
def test_any_ledger(visits: dict[int, str]) -> None:
    rows = [("a", step, marks) for step, marks in visits.items()]
    judged = [marks.replace("?", "") for _, marks in sorted(visits.items()) if marks.strip("?")]
    solved = [2 * marks.count("+") >= len(marks) for marks in judged]
    if not any("+" in marks for marks in judged):
        expected = "never"
    elif not any(solved):
        expected = "flickered"
    else:
        expected = "held" if solved[-1] else "converted"
    assert fates(ledger(rows), ["a"], [1])["fate"].to_pylist() == [expected]
