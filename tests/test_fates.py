"""Fates: each of the four by a ledger of a few rows, and against a slow rewriting of the definition."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.records import FATES, Fates
from unlearnbench.scoring.fates import QUANTILES, Watched, count_fates, fates_of, read_fates, summary, visits_of

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


def fates(rollouts: pa.Table, *of: Any) -> pa.Table:
    return fates_of(visits_of(rollouts), *of)


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
    ("lost", 5, "+---"),
    ("lost", 1, "++--"),
    ("held", 1, "++++"),
    ("held", 2, "----"),
    ("held", 7, "++-?--"[:4]),
]


def test_each_fate() -> None:
    table = fates(ledger(VISITS), ["never", "flickered", "lost", "held", "unvisited"], [1])
    assert table.column_names == [
        "item_id",
        "seed",
        "fate",
        "first_correct_step",
        "rewarded",
        "rewarded_valid_trace",
    ]
    assert table["fate"].to_pylist() == ["never", "flickered", "lost", "held", "never"]
    assert table["first_correct_step"].to_pylist() == [None, 2, 1, 1, None]
    assert table["rewarded"].to_pylist() == [0, 2, 3, 6, 0]
    assert table["rewarded_valid_trace"].to_pylist() == [0, None, None, None, 0]


def test_rewarded_rollouts_with_valid_traces_are_counted_where_they_can_be_judged() -> None:
    visits = pa.concat_tables([ledger([("a", 0, "+-")], valid=True), ledger([("a", 1, "+-")], valid=False)])
    assert fates(visits)["rewarded_valid_trace"].to_pylist() == [1]


def test_seeds_are_kept_apart_and_counted_together() -> None:
    table = fates(pa.concat_tables([ledger(VISITS, 2), ledger(VISITS[:5], 1)]))
    assert table["seed"].to_pylist() == [1, 2] * 4
    assert count_fates(table, ["held", "lost"]) == Fates(never=1, flickered=1, lost=1, held=1)
    assert count_fates(table, []) == Fates(never=0, flickered=0, lost=0, held=0)


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
        expected = "held" if solved[-1] else "lost"
    assert fates(ledger(rows), ["a"], [1])["fate"].to_pylist() == [expected]


# --- reading them again ---------------------------------------------------------------------------------------

IDS = ["held", "never", "lost", "flickered", "absent"]


def written(folder: Path) -> Path:
    """fates.parquet of two seeds; the second saw only some items, and no trace in it could be judged."""
    first = pa.concat_tables([ledger(VISITS[:6], 1, valid=True), ledger(VISITS[6:], 1, valid=False)])
    path = folder / "fates.parquet"
    tables.write_parquet(path, fates(pa.concat_tables([first, ledger(VISITS[:6], 2)]), IDS[:4], [1, 2]))
    return path


def test_a_summary_counts_what_the_file_says(tmp_path: Path) -> None:
    path = written(tmp_path)
    rows = tables.read_parquet(path).to_pylist()
    watched = read_fates(path, IDS, [2, 1])
    found = summary(watched)
    assert found.pairs == len(rows) == 8  # an item that the file lacks is in no count
    assert found.met == {name: [row["fate"] for row in rows].count(name) for name in FATES}
    assert found.rewarded == sum(row["rewarded"] for row in rows) == 16
    judged = [row for row in rows if row["rewarded_valid_trace"] is not None]
    assert found.judged == sum(row["rewarded"] for row in judged) == 11
    assert found.valid == sum(row["rewarded_valid_trace"] for row in judged) == 5
    steps = sorted(row["first_correct_step"] for row in rows if row["first_correct_step"] is not None)
    assert found.first_steps is not None and found.first_steps.tolist() == steps
    second = [row for row in rows if row["seed"] == 2]
    assert summary(watched.seed(0)).rewarded == sum(row["rewarded"] for row in second)
    assert summary(watched[[1]]).met["never"] == 2 and summary(watched[[4]]).pairs == 0
    assert summary(watched[[1]]).valid is None and summary(watched[[1]]).first_quantiles == [None] * len(QUANTILES)


@given(st.lists(st.integers(0, 99), min_size=1, max_size=30))
def test_a_quantile_is_the_first_step_by_which_that_share_had_come(steps: list[int]) -> None:
    first = np.array(steps)[:, None]
    found = summary(Watched(np.ones_like(first), first, np.ones_like(first), first - first)).first_quantiles
    by_hand = [min(s for s in steps if mean(other <= s for other in steps) >= share) for share in QUANTILES]
    assert found == by_hand


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("fate", "<b>held</b>", "row 3, field 'fate': '<b>held</b>' is none of never, flickered, lost, held"),
        ("fate", None, "row 3, field 'fate': None is none of"),
        ("rewarded", -1, "row 3, field 'rewarded': -1 is not a number from 0"),
        ("rewarded", None, "row 3, field 'rewarded': None is not a number from 0"),
        ("first_correct_step", -5, "row 3, field 'first_correct_step': -5 is not a number"),
        ("seed", 2, "row 4: a second row of item 'never' and seed 2"),
    ],
)
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, column: str, value: object, says: str) -> None:
    path = written(tmp_path)
    rows = tables.read_parquet(path).to_pylist()
    rows[2][column] = value
    schema = tables.read_parquet(path).schema
    tables.write_parquet(path, pa.Table.from_pylist(rows, schema=schema))
    with pytest.raises(DataError, match=says) as refused:
        read_fates(path, IDS, [1, 2])
    assert str(path) in str(refused.value)
