"""curves.parquet: correct rollouts by group and step, and the curves that a page draws of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.scoring.curves import SCHEMA, group_curve, read_curves, training_curves
from unlearnbench.scoring.fates import visits_of

ROW = st.tuples(
    st.integers(1, 3),
    st.integers(0, 60),
    st.sampled_from(["a", "b", "c", "unknown"]),
    st.sampled_from([True, False, None]),
)
GROUPS = {"a": "easy", "b": "unlearnable", "c": None}


def visits(rows: list[tuple[int, int, str, bool | None]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    seed, step, item, correct = (list(column) for column in columns)
    return visits_of(
        pa.table(
            {
                "seed": pa.array(seed, pa.int64()),
                "step": pa.array(step, pa.int32()),
                "item_id": pa.chunked_array([pa.array(item, pa.string())]),
                "correct": pa.array(correct, pa.bool_()),
                "valid_trace": pa.nulls(len(rows), pa.bool_()),
            }
        )
    )


@settings(max_examples=60)
@given(st.lists(ROW, max_size=60))
def test_counts_by_brute_force(rows: list[tuple[int, int, str, bool | None]]) -> None:
    found = training_curves(visits(rows), GROUPS)
    assert found.schema == pa.schema(list(SCHEMA.items()))
    expected: dict[tuple[int, int, str], list[bool]] = {}
    for seed, step, item, correct in rows:
        group = GROUPS.get(item)
        if group is not None and correct is not None:
            expected.setdefault((seed, step, group), []).append(correct)
    told = {(r["seed"], r["step"], r["group"]): (r["rollouts"], r["correct"]) for r in found.to_pylist()}
    assert told == {key: (len(values), sum(values)) for key, values in expected.items()}
    assert list(told) == sorted(told)


def test_a_curve_is_the_rate_of_each_window_by_seed() -> None:
    rows = [(1, step, "a", step >= 25) for step in range(60)] + [(2, step, "a", True) for step in range(30)]
    curve = group_curve(training_curves(visits(rows), GROUPS), "easy")
    assert curve is not None
    assert curve.steps.tolist() == [12.5, 37.5, 55.0]
    np.testing.assert_allclose(curve.rates, [[0, 1, 1], [1, 1, np.nan]])
    np.testing.assert_allclose(curve.mean, [0.5, 1, 1])
    low, high = curve.band
    assert low.tolist() == [0, 1, 1] and high.tolist() == [1, 1, 1]
    assert group_curve(training_curves(visits(rows), GROUPS), "unlearnable") is None


def test_a_wrong_row_is_named_and_no_file_is_none(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "curves.parquet") is None
    table = training_curves(visits([(1, 0, "a", True), (1, 1, "a", True)]), GROUPS)
    tables.write_parquet(tmp_path / "curves.parquet", table)
    assert read_curves(tmp_path / "curves.parquet") == table
    for column, value in (("correct", 2), ("correct", -1), ("step", -1), ("rollouts", None)):
        rows = table.to_pylist()
        rows[1][column] = value
        tables.write_parquet(tmp_path / "curves.parquet", pa.Table.from_pylist(rows, schema=table.schema))
        with pytest.raises(DataError, match=r"curves\.parquet, row 2"):
            read_curves(tmp_path / "curves.parquet")
