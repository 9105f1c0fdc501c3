"""Files of rollouts: read as JSON and parquet are, in small batches, and what is wrong named by file, row and field."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unlearnbench.errors import DataError
from unlearnbench.harness.score_rollouts import score_rollouts
from unlearnbench.io import rollout_reader
from unlearnbench.io.rollout_reader import read_rollouts
from unlearnbench.splits import Split

Row = Mapping[str, Any]
GOOD = {"item_id": "ID", "completion": "x", "seed": 1}
BAD: list[tuple[Row | str, str, str]] = [
    ({**GOOD, "item_id": "zz"}, "row 3", "field 'item_id': split small has no item, twin or canary 'zz'"),
    ({**GOOD, "item_id": None}, "row 3", "field 'item_id': text was expected, but it is null"),
    ({**GOOD, "completion": None}, "row 3", "field 'completion': text was expected, but it is null"),
    ({**GOOD, "seed": float("nan")}, "row 3", "field 'seed': a whole number from 0 was expected"),
    ({**GOOD, "seed": -1}, "row 3", "field 'seed': a whole number from 0 was expected"),
    ({**GOOD, "seed": 1.5}, "row 3", "field 'seed': a whole number from 0 was expected"),
    ({**GOOD, "seed": None}, "row 3", "field 'seed': a whole number from 0 was expected"),
    ({**GOOD, "seed": "1"}, "row 3", "field 'seed': a whole number from 0 was expected"),
    ({**GOOD, "seed": True}, "row 3", "field 'seed': a whole number from 0 was expected"),
    ({**GOOD, "seed": 2**63}, "row 3", "field 'seed': a whole number from 0 was expected"),
    ({**GOOD, "completion": [{"role": "assistant"}]}, "row 3", "field 'completion': text was expected, but it is [{"),
    ({**GOOD, "item_id": 5}, "row 3", "field 'item_id': text was expected, but it is 5"),
    ({"item_id": "ID", "seed": 1}, "row 3", "field 'completion': it is missing"),
    ({**GOOD, "completion": "\ud83d"}, "row 3", "field 'completion': half of a surrogate pair"),
    ('{"item_id": "ID", "completion": "x"', "row 3", "not valid JSON"),
    ('{"item_id": "ID", "completion": "x"} {}', "row 3", "not valid JSON"),
    ('["ID", "x"]', "row 3", "a JSON object was expected, not list"),
    ("\udcff", "row 3", "not valid JSON"),
]


@pytest.mark.parametrize(("bad", "row", "message"), BAD)
def test_a_bad_line_is_named_by_file_row_and_field(
    bad: Row | str, row: str, message: str, small_split: Split, tmp_path: Path
) -> None:
    lines = [json.dumps(line) if isinstance(line, dict) else str(line) for line in (GOOD, "", bad, GOOD)]
    text = "\n".join(lines).replace('"ID"', json.dumps(small_split.items[0].item_id))
    (tmp_path / "bad.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        score_rollouts([tmp_path / "bad.jsonl"], small_split, tmp_path / "run")
    assert f"bad.jsonl, {row}" in str(caught.value)
    assert "\n" not in str(caught.value)


PARQUET: list[tuple[str, pa.Array, str]] = [
    ("item_id", pa.array(["ID", "zz"]), "row 2, field 'item_id': split small has no item"),
    ("completion", pa.array(["x", None]), "row 2, field 'completion': text was expected, but it is null"),
    ("completion", pa.array([b"x", b"\xff"]).view(pa.string()), "row 2, field 'completion': it is not UTF-8"),
    ("completion", pa.array([1, 2]), "row 1, field 'completion': text was expected, but it is 1"),
    ("completion", pa.array([[{"role": "user"}]] * 2), "row 1, field 'completion': text was expected, but it is [{"),
    ("seed", pa.array([1.0, float("nan")]), "row 2, field 'seed': a whole number from 0 was expected"),
    ("seed", pa.array([1, -2]), "row 2, field 'seed': a whole number from 0 was expected (the training run), but it"),
    ("seed", pa.array([1, None]), "row 2, field 'seed': a whole number from 0 was expected"),
    ("seed", pa.array(["1", "2"]), "row 1, field 'seed': a whole number from 0 was expected"),
    ("seed", pa.array([2**64 - 1, 1], pa.uint64()), "row 1, field 'seed': a whole number from 0 was expected"),
]


@pytest.mark.parametrize(("name", "column", "message"), PARQUET)
def test_a_bad_cell_is_named_by_file_row_and_field(
    name: str, column: pa.Array, message: str, small_split: Split, tmp_path: Path
) -> None:
    columns = {"item_id": ["ID"] * 2, "completion": ["x"] * 2, name: column}
    table = pa.table(columns)
    ids = [small_split.items[0].item_id if cell == "ID" else cell for cell in table["item_id"].to_pylist()]
    pq.write_table(table.set_column(0, "item_id", pa.array(ids)), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        score_rollouts([tmp_path / "bad.parquet"], small_split, tmp_path / "run")
    assert "bad.parquet, row" in str(caught.value)


def test_a_file_that_is_no_table_of_rollouts_is_named(small_split: Split, tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": ["a"], "text": ["x"]}), tmp_path / "no.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and so on")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "one.jsonl").write_text(json.dumps({**GOOD, "item_id": small_split.items[0].item_id}) + "\n")
    for files, message in (
        (["no.parquet"], "column 'completion' is missing; the file has item_id, text"),
        (["torn.parquet"], "torn.parquet is not a readable parquet file"),
        (["empty.jsonl"], "no rollout"),
        (["none.jsonl"], "there is no file"),
        (["one.jsonl"] * 2, "the same rollouts"),
        (["rows.csv"], "must end in .jsonl or .parquet"),
    ):
        (tmp_path / "rows.csv").touch()
        with pytest.raises(DataError, match=message):
            score_rollouts([tmp_path / name for name in files], small_split, tmp_path / "run")
    assert not (tmp_path / "run/result.json").exists()


def test_lines_across_blocks_blank_lines_and_defaults_are_read_as_json_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_reader, "BLOCK", 200)
    rng = random.Random(1)
    lines = []
    for number in range(400):
        row: dict[str, Any] = {"item_id": f"i{number}", "completion": "é\n\u2028\\boxed{7}" * rng.choice([0, 1, 40])}
        row |= rng.choice([{}, {"seed": number}, {"seed": float(number)}, {"finish": "stop"}, {"finish": 3}])
        row["other"] = rng.choice([1, "a", [1], None, {"seed": "x"}])
        lines.append(json.dumps(row, ensure_ascii=rng.random() < 0.5) if rng.random() < 0.9 else " ")
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join(lines).encode())
    found = []
    for batch in read_rollouts(path):
        for index, row in enumerate(batch.rows.to_pylist()):
            found.append((int(batch.where(index).rpartition(" ")[2]), *row.values()))
    expected = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = json.loads(line)
            finish = row.get("finish")
            finish = finish if isinstance(finish, str) else None
            expected.append((number, row["item_id"], row["completion"], int(row.get("seed", 0)), finish))
    assert found == expected


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_row(end: str, tmp_path: Path) -> None:
    lines = [json.dumps({"item_id": name, "completion": "x\r\ny", "seed": 1}) for name in "ab"]
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + "".join(line + end for line in lines).encode())
    found = [row for batch in read_rollouts(tmp_path / "rows.jsonl") for row in batch.rows.to_pylist()]
    assert found == [{"item_id": name, "completion": "x\r\ny", "seed": 1, "finish": None} for name in "ab"]


def test_parquet_is_read_in_small_batches_however_it_was_written(tmp_path: Path) -> None:
    text = "x" * 10_000
    rows = {"item_id": pa.array(["a"] * 3000).dictionary_encode(), "completion": pa.array([text] * 3000)}
    large = pa.table(rows).set_column(
        1, "completion", pa.array([text + str(i) for i in range(3000)], pa.large_string())
    )
    pq.write_table(large, tmp_path / "rows.parquet", row_group_size=3000)
    batches = list(read_rollouts(tmp_path / "rows.parquet"))
    assert max(batch.rows.nbytes for batch in batches) < 2 * rollout_reader.BLOCK
    joined = pa.concat_tables([batch.rows for batch in batches])
    assert joined["completion"].to_pylist() == [text + str(i) for i in range(3000)]
    assert set(joined["item_id"].to_pylist()) == {"a"}
    assert [batch.first for batch in batches][1] == batches[0].rows.num_rows + 1
    assert batches[-1].done == 1
