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
from unlearnbench.harness.rollouts.score import score_rollouts
from unlearnbench.io import streams
from unlearnbench.io.rollout_reader import read_rollouts
from unlearnbench.splits import Split

Row = Mapping[str, Any]
GOOD = {"item_id": "ID", "completion": "x", "seed": 1}
WHOLE = "field 'seed': a whole number from 0 was expected, but it is"
BAD: list[tuple[Row | str, str, str]] = [
    ({**GOOD, "item_id": "zz"}, "row 3", "field 'item_id': split small has no item, twin or canary 'zz'"),
    ({**GOOD, "item_id": None}, "row 3", "field 'item_id': it is missing"),
    ({**GOOD, "item_id": " "}, "row 3", "field 'item_id': it is empty"),
    ({**GOOD, "item_id": True}, "row 3", "field 'item_id': text was expected, but it is True"),
    ({**GOOD, "item_id": 5.5}, "row 3", "field 'item_id': text was expected, but it is 5.5"),
    ({**GOOD, "completion": None}, "row 3", "field 'completion': it is missing"),
    ({**GOOD, "seed": float("nan")}, "row 3", f"{WHOLE} nan"),
    ({**GOOD, "seed": -1}, "row 3", f"{WHOLE} -1"),
    ({**GOOD, "seed": 1.5}, "row 3", f"{WHOLE} 1.5"),
    ({**GOOD, "seed": "one"}, "row 3", f"{WHOLE} 'one'"),
    ({**GOOD, "seed": True}, "row 3", f"{WHOLE} True"),
    ({**GOOD, "seed": 2**63}, "row 3", f"{WHOLE} 9223372036854775808"),
    ({**GOOD, "completion": 5}, "row 3", "field 'completion': text, a chat or a list of them was expected, but it is"),
    ({**GOOD, "completion": []}, "row 3", "field 'completion': text, a chat or a list of them was expected, but it is"),
    ({**GOOD, "completion": [{"role": "user", "content": "x"}]}, "row 3", "a chat with a message of the assistant"),
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
    ("item_id", pa.array(["ID", ""]), "row 2, field 'item_id': it is empty"),
    ("completion", pa.array(["x", None]), "row 2, field 'completion': it is missing"),
    ("completion", pa.array([b"x", b"\xff"]).view(pa.string()), "row 2, field 'completion': it is not UTF-8"),
    ("completion", pa.array([1, 2]), "row 1, field 'completion': text, a chat or a list of them was expected"),
    ("completion", pa.array([[{"role": "user"}]] * 2), "row 1, field 'completion': a chat with a message of the"),
    ("seed", pa.array([1.0, float("nan")]), f"row 2, {WHOLE} nan"),
    ("seed", pa.array([1, -2]), f"row 2, {WHOLE} -2"),
    ("seed", pa.array(["1", "two"]), f"row 2, {WHOLE} 'two'"),
    ("seed", pa.array([2**64 - 1, 1], pa.uint64()), f"row 1, {WHOLE} 18446744073709551615"),
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
    (tmp_path / "mac.csv").write_bytes(b"item_id,completion\ra,x\r")
    (tmp_path / "one.jsonl").write_text(json.dumps({**GOOD, "item_id": small_split.items[0].item_id}) + "\n")
    for files, message in (
        (["no.parquet"], "column 'completion' is missing; the file has item_id, text: say which"),
        (["torn.parquet"], "torn.parquet is not a readable parquet file"),
        (["empty.jsonl"], "no rollout"),
        (["none.jsonl"], "there is no file"),
        (["one.jsonl"] * 2, "has the same content as"),
        (["mac.csv"], r"mac.csv: the header cannot be read \(.*\); end lines with a newline"),
        (["rows.txt"], "must end in .jsonl, .json, .csv, .tsv"),
    ):
        (tmp_path / "rows.txt").touch()
        with pytest.raises(DataError, match=message):
            score_rollouts([tmp_path / name for name in files], small_split, tmp_path / "run")
    assert not (tmp_path / "run/result.json").exists()


def test_an_id_two_levels_down_is_found(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"task": {"data": {"item_id": "a"}}, "response": "x"}) + "\n")
    (batch,) = read_rollouts(path)
    assert batch.rows["item_id"].to_pylist() == ["a"]


def test_lines_across_blocks_blank_lines_and_defaults_are_read_as_json_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK", 200)
    rng = random.Random(1)
    lines = []
    for number in range(400):
        row: dict[str, Any] = {"item_id": f"i{number}", "completion": "é\n\u2028\\boxed{7}" * rng.choice([0, 1, 40])}
        row |= rng.choice([{}, {"seed": number}, {"seed": float(number)}, {"seed": None}, {"finish_reason": "stop"}])
        row["other"] = rng.choice([1, "a", [1], None, {"seed": "x"}, float("nan")])
        lines.append(json.dumps(row, ensure_ascii=rng.random() < 0.5) if rng.random() < 0.9 else " ")
    path = tmp_path / "rows.jsonl"
    path.write_bytes("\n".join(lines).encode())
    found = []
    for batch in read_rollouts(path):
        for index, row in enumerate(batch.rows.to_pylist()):
            number = int(batch.where(index).rpartition(" ")[2])
            found.append((number, row["item_id"], row["completion"], row["seed"], row["finish"]))
    expected = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = json.loads(line)
            expected.append(
                (number, row["item_id"], row["completion"], int(row.get("seed") or 0), row.get("finish_reason"))
            )
    assert found == expected


def test_parquet_is_read_in_small_batches_however_it_was_written(tmp_path: Path) -> None:
    text = "x" * 10_000
    rows = {"item_id": pa.array(["a"] * 3000).dictionary_encode(), "completion": pa.array([text] * 3000)}
    large = pa.table(rows).set_column(
        1, "completion", pa.array([text + str(i) for i in range(3000)], pa.large_string())
    )
    pq.write_table(large, tmp_path / "rows.parquet", row_group_size=3000)
    batches = list(read_rollouts(tmp_path / "rows.parquet"))
    assert max(batch.rows.nbytes for batch in batches) < 2 * streams.BLOCK
    joined = pa.concat_tables([batch.rows for batch in batches])
    assert joined["completion"].to_pylist() == [text + str(i) for i in range(3000)]
    assert set(joined["item_id"].to_pylist()) == {"a"}
    assert batches[1].numbers[0] == batches[0].rows.num_rows + 1
    assert batches[-1].done == 1


# --- as trainers write them -----------------------------------------------------------------------------------


def read(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [row for batch in read_rollouts(path, **options) for row in batch.rows.to_pylist()]


CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "sum 1 2="}]
SAID = [{"role": "assistant", "content": "hm", "tool_calls": ["{}"]}, {"role": "tool", "content": "3"}]
LAST = {"role": "assistant", "content": "\\boxed{3}"}
VERL = {"input": "user\nsum 1 2=\nassistant\n", "output": "t", "gts": "3", "score": 0.0, "step": 4}
PARTS = [{"role": "assistant", "content": [{"type": "text", "text": "t"}]}]
TRAINERS: dict[str, tuple[Row, Row]] = {
    "TRL": ({"step": 4, "prompt": "sum 1 2=", "completion": "t", "reward": 1.0, "item_id": "a", "advantage": 0.5}, {}),
    "TRL, no ids": ({"step": 4, "prompt": "sum 1 2=", "completion": "t", "reward": 1.0}, {"prompt": "sum 1 2="}),
    "verl": (VERL, {"prompt": VERL["input"]}),
    "verl, our reward": ({**VERL, "item_id": "a", "acc": 1.0}, {}),
    "verifiers": (
        {"example_id": 9, "prompt": CHAT, "completion": [*SAID, LAST], "step": 4},
        {"prompt": "sum 1 2=", "completion": "\\boxed{3}"},
    ),
    "verifiers, info": (
        {"prompt": CHAT, "completion": [LAST], "info": {"item_id": "a"}, "step": 4},
        {"completion": "\\boxed{3}"},
    ),
    "OpenRLHF": ({"input": "sum 1 2=", "output": "t", "reward": 0.3, "step": 4}, {"prompt": "sum 1 2="}),
    "SkyRL": (
        {"input_prompt": "sum 1 2=", "output_response": "t", "stop_reason": "length", "step": 4},
        {"prompt": "sum 1 2=", "finish": "length"},
    ),
    "verl's data": (
        {"extra_info": {"index": 3, "item_id": 7}, "responses": ["t"], "prompt": CHAT, "step": 4},
        {"item_id": "7"},
    ),
    "a message": ({"item_id": "a", "completion": LAST, "global_step": 4}, {"completion": "\\boxed{3}"}),
    "parts": ({"item_id": "a", "completion": PARTS, "step": 4}, {}),
    "nothing said": (
        {"item_id": "a", "completion": [{"role": "assistant", "content": None}], "step": 4},
        {"completion": ""},
    ),
}


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize(("row", "expected"), TRAINERS.values(), ids=TRAINERS)
def test_rows_of_trainers_are_read_as_they_write_them(row: Row, expected: Row, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([dict(row)]), path)
    else:
        path.write_text(json.dumps(row) + "\n" if suffix == "jsonl" else json.dumps([row], indent=1))
    named = "item_id" in row or "info" in row or "extra_info" in row
    wanted = {
        "item_id": "a" if named else None,
        "prompt": None,
        "completion": "t",
        "seed": 0,
        "step": 4,
        "finish": None,
    }
    assert read(path) == [wanted | dict(expected)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_list_of_completions_is_as_many_rollouts_of_one_row(suffix: str, tmp_path: Path) -> None:
    rows = [
        {"item_id": "a", "completions": ["x", "y"], "step": 1},
        {"item_id": "b", "completions": ["z"], "step": 2},
    ]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (batch,) = read_rollouts(path)
    assert batch.rows.select(["item_id", "completion", "step"]).to_pylist() == [
        {"item_id": "a", "completion": "x", "step": 1},
        {"item_id": "a", "completion": "y", "step": 1},
        {"item_id": "b", "completion": "z", "step": 2},
    ]
    assert [batch.where(place).rpartition(" ")[2] for place in range(3)] == ["1", "1", "2"]


def test_a_column_is_chosen_by_name_and_a_wrong_choice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"uid": 3, "meta": {"key": "k"}, "gen": "t", "output": "the reference"}) + "\n")
    chosen = {"completion": "gen", "item_id": "uid"}
    assert [(row["item_id"], row["completion"]) for row in read(path, columns=chosen)] == [("3", "t")]
    assert read(path, columns={"item_id": "meta.key"})[0]["item_id"] == "k"
    with pytest.raises(DataError, match=r"column 'gone' is missing; the file has uid, meta, gen, output"):
        read(path, columns={"completion": "gone"})
    with pytest.raises(DataError, match=r"there is no column 'text' to choose; choose one of item_id, prompt"):
        read(path, columns={"text": "gen"})


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "1", "1.0", "True"])
def test_a_verdict_is_a_flag_in_any_form(value: object, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"item_id": "a", "completion": "t", "reward": value}) + "\n")
    assert read(path, extra=("correct",))[0]["correct"] is True


def test_a_reward_that_is_no_verdict_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"item_id": "a", "completion": "t", "reward": 0.5}) + "\n")
    with pytest.raises(
        DataError, match=r"row 1, field 'reward': true or false \(or 1 or 0\) was expected, but it is 0.5"
    ):
        read(path, extra=("correct",))
