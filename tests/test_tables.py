"""Files in and out: what is written comes back, and every malformed file is refused by name, row and field."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files, tables
from unlearnbench.records import GROUPS, Canary, Item, Protocol, Record, SplitConfig, Twin

text = st.text(min_size=1, max_size=30)
items = st.builds(
    Item,
    item_id=text.filter(lambda name: not name.isspace()),
    prompt=text.filter(lambda prompt: not prompt.isspace()),  # a blank one is refused
    answer=text,
    solution=st.text(max_size=30),
    family=text,
    group=st.sampled_from([None, *GROUPS]),
    certified=st.sampled_from([None, True, False]),
    thin=st.booleans(),
    cause=st.none() | text,
)
ITEM = Item(item_id="a", prompt="1+1=", answer="2", family="sums")


class Numbers(Record):
    whole: int
    real: float
    maybe: int | None = None


# --- round trips ----------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(records=st.lists(items, max_size=5), suffix=st.sampled_from([".parquet", ".jsonl", ".json"]))
def test_items_survive_every_format(tmp_path_factory: Any, records: list[Item], suffix: str) -> None:
    path = tmp_path_factory.mktemp("records") / f"items{suffix}"
    tables.write_records(path, records, Item)
    assert tables.read_records(path, Item) == tuple(records)


@settings(max_examples=20)
@given(
    whole=st.integers(-(2**63), 2**63 - 1),
    real=st.floats(allow_nan=False, allow_infinity=False),
    maybe=st.none() | st.integers(0, 9),
    suffix=st.sampled_from([".parquet", ".jsonl"]),
)
@example(whole=-(2**63), real=0.0, maybe=None, suffix=".parquet")
def test_numbers_survive(tmp_path_factory: Any, whole: int, real: float, maybe: int | None, suffix: str) -> None:
    path = tmp_path_factory.mktemp("records") / f"numbers{suffix}"
    record = Numbers(whole=whole, real=real, maybe=maybe)
    tables.write_records(path, [record], Numbers)
    assert tables.read_records(path, Numbers) == (record,)


def test_schema_follows_the_model() -> None:
    schema = tables.record_schema(Item)
    assert schema.names == list(Item.model_fields)
    assert schema.field("group").type == pa.string()
    assert schema.field("certified").type == pa.bool_()
    assert tables.record_schema(Twin).field("kind").type == pa.string()


def test_absent_columns_take_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    tables.write_parquet(path, pa.table({"item_id": ["a"], "prompt": ["1+1="], "answer": ["2"], "family": ["sums"]}))
    assert tables.read_records(path, Item) == (ITEM,)


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    whole = pa.table({"x": list(range(1000))})
    pieces = pa.concat_tables([whole.slice(0, 300), whole.slice(300)])
    tables.write_parquet(tmp_path / "a.parquet", whole)
    tables.write_parquet(tmp_path / "b.parquet", pieces)
    assert files.sha256(tmp_path / "a.parquet") == files.sha256(tmp_path / "b.parquet")


def test_an_empty_table_keeps_its_schema(tmp_path: Path) -> None:
    tables.write_records(tmp_path / "none.parquet", [], Item)
    table = tables.read_parquet(tmp_path / "none.parquet")
    assert table.num_rows == 0
    assert table.schema.equals(tables.record_schema(Item))


def test_json_and_text(tmp_path: Path) -> None:
    files.write_json(tmp_path / "new" / "protocol.json", Protocol())
    assert tables.read_json_record(tmp_path / "new" / "protocol.json", Protocol) == Protocol()
    files.write_json(tmp_path / "x.json", {"b": 1, "a": "é"})
    assert (tmp_path / "x.json").read_text("utf-8") == '{\n  "b": 1,\n  "a": "é"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {"b": 1, "a": "é"}


# --- writing when it goes wrong -------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "x.txt"
    files.write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"no space left to write .*x\.txt; free some and run the same command"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]  # noqa: PTH208


def test_a_real_size_limit_is_one_sentence(tmp_path: Path) -> None:
    script = """
import resource, sys, os
import pyarrow as pa
from pathlib import Path
from unlearnbench import errors
from unlearnbench.io import tables
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[1])
try:
    tables.write_parquet(path, pa.table({"x": [os.urandom(9) for _ in range(10000)]}))
except errors.RunError as error:
    print(error)
print(sorted(os.listdir(path.parent)))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x.parquet")], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == [
        f"cannot write {tmp_path / 'x.parquet'}: File too large; fix that and run the same command again",
        "[]",
    ]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    files.write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), files.atomic(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.bin"]


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        files.write_text(tmp_path / "folder" / "x.txt", "new")


# --- refusals -------------------------------------------------------------------------------------------------


def test_read_parquet_casts_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    tables.write_parquet(path, pa.table({"n": pa.array([1], pa.int8()), "name": ["a"], "other": [1.5]}))
    table = tables.read_parquet(path, {"name": pa.string(), "n": pa.int64()})
    assert table.schema == pa.schema([("name", pa.string()), ("n", pa.int64())])


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"missing": pa.int64()}, r"x\.parquet: column 'missing' is missing; the file has n, name"),
        ({"name": pa.int64()}, r"x\.parquet, row 2: column 'name' must be int64, not 'b'"),
        ({"n": pa.list_(pa.int64())}, r"x\.parquet: column 'n' must be list"),
    ],
)
def test_read_parquet_refuses(tmp_path: Path, columns: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "x.parquet"
    tables.write_parquet(path, pa.table({"n": [1, 2], "name": ["1", "b"]}))
    with pytest.raises(DataError, match=sentence):
        tables.read_parquet(path, columns)


def test_what_is_no_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for read in (tables.read_parquet, tables.read_counts, lambda p: tables.read_records(p, Item)):
        with pytest.raises(DataError, match=r"there is no file .*x\.parquet"):
            read(tmp_path / "x.parquet")
    path.write_text("item_id,n")
    for read in (tables.read_parquet, tables.read_counts, lambda p: tables.read_records(p, Item)):
        with pytest.raises(DataError, match=r"x\.parquet is not a readable parquet file"):
            read(path)
    tables.write_parquet(path, pa.table({"x": [os.urandom(9) for _ in range(1000)]}))
    content = bytearray(path.read_bytes())
    content[100:600] = bytes(500)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.parquet"):
        tables.read_parquet(path)
    with pytest.raises(DataError, match="cannot be read"):
        files.sha256(tmp_path)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"item_id": ["a"]}, "columns 'prompt', 'answer', 'family' are missing; the file has item_id"),
        ({"item_id": ["a", ""]}, r"row 2, field 'item_id'"),
        ({"item_id": ["a", None]}, r"row 2, field 'item_id'"),
        ({"group": ["easy", "hard"]}, r"row 2, field 'group'"),
        ({"item_id": ["a", " "]}, r"row 2, field 'item_id': it is empty"),
        ({"thin": ["true", "perhaps"]}, r"row 2, field 'thin': true or false .* was expected, but it is 'perhaps'"),
        ({"soluton": ["x", "y"]}, r"row 1, field 'soluton': there is no such field; did you mean 'solution'\?"),
    ],
)
def test_read_records_refuses_a_parquet_row(tmp_path: Path, table: dict[str, Any], sentence: str) -> None:
    full = {"item_id": ["a", "b"], "prompt": ["p", "q"], "answer": ["1", "2"], "family": ["f", "f"]}
    if len(table.get("item_id", [1, 2])) == 2:
        table = full | table
    tables.write_parquet(tmp_path / "x.parquet", pa.table(table))
    with pytest.raises(DataError, match=sentence) as caught:
        tables.read_records(tmp_path / "x.parquet", Item)
    assert "x.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "row 2: not valid JSON"),
        ("[" * 100_000, "row 2: not valid JSON"),
        ("[1]", "row 2: a JSON object was expected, not list"),
        ('{"item_id": 1.5}', "row 2, field 'prompt': it is missing"),
        ('{"item_id": true, "prompt": "p", "answer": "1", "family": "f"}', "row 2, field 'item_id': text was expected"),
        ('{"item_id": "b", "prompt": "p", "answer": "1", "famly": "f"}', "row 2, field 'family'"),
        ("\udcff", "row 2: not valid JSON"),
    ],
)
def test_read_records_refuses_a_jsonl_row(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "x.jsonl"
    tables.write_records(path, [ITEM], Item)
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=sentence):
        tables.read_records(path, Item)


def test_a_row_of_somebodys_table_is_taken_as_it_is_meant(tmp_path: Path) -> None:
    """Numbers for texts and texts for numbers, nulls, and the columns that data sets have beside ours."""
    path = tmp_path / "x.jsonl"
    row = {"item_id": 7, "prompt": "1+1=", "answer": 2, "solution": None, "family": "sums", "group": None, "thin": 1}
    extra = {"level": 3, "source": "s", "extra_info": {"index": 1}, "unique_id": "u", "reward_model": {"style": "rule"}}
    path.write_text(json.dumps(row | extra) + "\n" + json.dumps({**row, "item_id": 8.0, "answer": 0.5}) + "\n")
    expected = Item(item_id="7", prompt="1+1=", answer="2", family="sums", thin=True)
    found = tables.read_records(path, Item)
    assert found == (expected, expected.model_copy(update={"item_id": "8", "answer": "0.5"}))
    (tmp_path / "x.csv").write_text('item_id,prompt,answer,family,group,thin,level\r\n7,"1+1=",2,sums,,true,3\r\n')
    assert tables.read_records(tmp_path / "x.csv", Item) == (expected,)
    (tmp_path / "n.jsonl").write_text('{"whole": 32.0, "real": "0.5"}\n{"whole": "32", "real": 1}\n')
    assert tables.read_records(tmp_path / "n.jsonl", Numbers) == (
        Numbers(whole=32, real=0.5),
        Numbers(whole=32, real=1.0),
    )


def test_read_jsonl_streams(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\nnonsense\n')
    rows = tables.read_jsonl(path)
    assert [next(rows), next(rows)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(DataError, match="row 4"):
        next(rows)
    with pytest.raises(DataError, match="there is no file"):
        next(tables.read_jsonl(tmp_path / "none.jsonl"))


def test_json_records_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"tau": 2}')
    with pytest.raises(DataError, match=r"x\.json, field 'tau'"):
        tables.read_json_record(path, Protocol)
    path.write_text("{")
    with pytest.raises(DataError, match=r"x\.json: Invalid JSON"):
        tables.read_json_record(path, Protocol)
    with pytest.raises(DataError, match="a JSON list was expected"):
        path.write_text("{}")
        tables.read_records(path, Canary)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("name: [", r"split\.yaml, line 1: not valid YAML"),
        ("name: !!python/object/apply:os.getcwd []", r"split\.yaml, line 1: not valid YAML"),
        ("name: a", r"split\.yaml, field 'base_policy': it is missing$"),
        ("nmae: b\nbase_policy: {path: p}", r"split\.yaml, field 'name': it is missing; 'nmae' is not a field$"),
        ("name: a\nbase_policy: {path: p}\nnmae: b", r"field 'nmae': there is no such field; did you mean 'name'\?"),
        ("name: a\nbase_policy: {path: p}\nqqq: b", r"field 'qqq': there is no such field$"),
        (
            "name: a\nbase_policy: {path: p}\nprotocol: {sampling: {temprature: 1}}",
            r"field 'protocol\.sampling\.temprature': there is no such field; did you mean 'temperature'\?",
        ),
        ("name: ../a\nbase_policy: {path: p}", r"split\.yaml, field 'name'"),
        ("", r"split\.yaml: "),
        ("\x00", r"split\.yaml"),
    ],
)
def test_yaml_refused(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "split.yaml").write_text(content)
    with pytest.raises(DataError, match=sentence) as caught:
        tables.read_yaml_record(tmp_path / "split.yaml", SplitConfig)
    assert "\n" not in str(caught.value)


# --- counts ---------------------------------------------------------------------------------------------------

HEAD = "item_id,phase,run,n,correct\n"


def test_counts_from_csv_and_parquet_agree(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(HEAD + "007,base,1,32,0\n007,base,2,32,32\nNA,after,1,0,0\n")
    table = tables.read_counts(tmp_path / "c.csv")
    assert table.schema == tables.COUNTS
    assert table["item_id"].to_pylist() == ["007", "007", "NA"]
    tables.write_parquet(tmp_path / "c.parquet", table)
    assert tables.read_counts(tmp_path / "c.parquet") == table


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_best_is_kept_where_a_row_has_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c.{suffix}"
    (tmp_path / "c.csv").write_text(",best,correct,n,run,phase,item_id\n0,,1,2,1,base,a\n1,0.5,1,2,1,train,a\n")
    if suffix == "parquet":
        import pyarrow.csv

        tables.write_parquet(path, pyarrow.csv.read_csv(tmp_path / "c.csv"))
    table = tables.read_counts(path)
    assert table.column_names == [*tables.COUNTS.names, "best"]
    assert table["best"].to_pylist() == [None, 0.5]
    assert table["run"].to_pylist() == ["1", "1"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("a,base,1,2,1\na,base,1,2,1\n", "item 'a', phase 'base', run '1': this row is there more than once"),
        (
            "a,base,1,2,1\nb,after,2,2,3\n",
            "row 2: item 'b', phase 'after', run '2': correct is 3, above n, .* 2",
        ),
        ("a,base,1,-2,-3\n", "item 'a', phase 'base', run '1': n is -2, below 0"),
        ("a,base,1,9000000000000000000,3\n", "n is 9000000000000000000, more rollouts than any run has"),
        ("a,base,1,2,-3\n", "item 'a', phase 'base', run '1': correct is -3, below 0"),
        ("a,base,1,2,1\na,base,2,x,1\n", "row 2, field 'n': a whole number was expected, but it is 'x'"),
        ("a,base,1,2.5,1\n", "row 1, field 'n': a whole number was expected, but it is '2.5'"),
        ("a,base,1,2,\n", "row 1, field 'correct': it is missing"),
        ("a,base,1\n", "row 1: 3 values where the header names 5 columns"),
        (",base,1,2,1\n", "row 1, field 'item_id': it is empty"),
        (
            "a,base,1,2,1\na,certified,1,2,1\n",
            "row 2, field 'phase': there is no phase 'certified' .did you mean 'certify'",
        ),
        ("a,before,1,2,1\n", "row 1, field 'phase': there is no phase 'before'.*; phases are base, base_fresh, train"),
    ],
)
def test_counts_refused(tmp_path: Path, rows: str, sentence: str) -> None:
    (tmp_path / "c.csv").write_text(HEAD + rows)
    with pytest.raises(DataError, match=sentence) as caught:
        tables.read_counts(tmp_path / "c.csv")
    assert "c.csv" in str(caught.value)


def test_counts_refused_for_their_columns(tmp_path: Path) -> None:
    for content, sentence in (
        ("item_id,phase,run,n\na,base,1,2\n", "column 'correct' is missing"),
        ("item_id,phase,run,n,n,correct\na,base,1,2,2,1\n", "column 'n' is there more than once"),
        ("", "not a readable csv file"),
        ("item_id,phase,run,n,correct,bset\na,base,1,2,2,\n", r"there is no column 'bset' .*did you mean 'best'\?"),
        (
            "item_id,phase,run,n,correct,note\na,base,1,2,2,x\n",
            r"there is no column 'note' in counts; they have item_id",
        ),
    ):
        (tmp_path / "c.csv").write_text(content)
        with pytest.raises(DataError, match=sentence):
            tables.read_counts(tmp_path / "c.csv")
    tables.write_parquet(
        tmp_path / "c.parquet",
        pa.table({"item_id": ["a", None], "phase": ["base"] * 2, "run": ["1"] * 2, "n": [1, 1], "correct": [1, 1]}),
    )
    with pytest.raises(DataError, match=r"c\.parquet, row 2, field 'item_id': it is missing"):
        tables.read_counts(tmp_path / "c.parquet")


def test_twin_counts_have_their_own_key(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("twin_id,phase,run,n,correct\nt,base,1,2,1\nt,base,1,2,1\n")
    with pytest.raises(DataError, match="twin 't', phase 'base', run '1'"):
        tables.read_counts(tmp_path / "c.csv", key="twin_id")
    with pytest.raises(DataError, match="column 'item_id' is missing"):
        tables.read_counts(tmp_path / "c.csv")


def test_a_million_rows_take_seconds(tmp_path: Path) -> None:
    rows = 1_000_000
    index = np.arange(rows)
    counts = pa.table(
        {
            "item_id": pa.array(index // 20).cast(pa.string()),
            "phase": pa.array(np.where(index % 2, "train", "after")),
            "run": pa.array(index // 2 % 10).cast(pa.string()),
            "n": pa.array(np.full(rows, 32)),
            "correct": pa.array(index % 33),
        }
    )
    tables.write_parquet(tmp_path / "c.parquet", counts)
    start = time.process_time()  # other work on the machine must not fail this test
    assert tables.read_counts(tmp_path / "c.parquet").num_rows == rows
    assert time.process_time() - start < 5
