"""Rows of every format: the same content read the same, whatever wrote it; what is wrong named by file and row."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnbench.errors import DataError
from unlearnbench.io import streams, values
from unlearnbench.io.rows import Rows, column_names, read_dicts, read_rows

Row = dict[str, Any]
FORMATS = ("jsonl", "json", "csv", "tsv", "jsonl.gz", "json.gz", "csv.gz", "jsonl.zst", "parquet")
HABITS = ("plain", "bom", "crlf", "list in .jsonl", "lines in .json", "indented", "semicolons", "large", "dictionary")


def write(path: Path, rows: Sequence[Row], habit: str = "plain") -> Path:
    """Rows in the format of the file's ending; of csv every value is text."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    kind = name.rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(_table(rows, habit), path)
        return path
    if kind in ("csv", "tsv"):
        text = io.StringIO()
        delimiter = "\t" if kind == "tsv" else ";" if habit == "semicolons" else ","
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n" if habit == "crlf" else "\n")
        writer.writerow(rows[0])
        writer.writerows(["" if row[name] is None else row[name] for name in rows[0]] for row in rows)
        content = text.getvalue()
    elif (kind == "jsonl" and habit != "list in .jsonl") or habit == "lines in .json":
        content = "".join(json.dumps(row) + ("\r\n" if habit == "crlf" else "\n") for row in rows)
    else:
        content = json.dumps(list(rows), indent=2 if habit == "indented" else None)
    data = (b"\xef\xbb\xbf" if habit == "bom" else b"") + content.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        data = sink.getvalue().to_pybytes()
    path.write_bytes(data)
    return path


def _table(rows: Sequence[Row], habit: str) -> pa.Table:
    table = pa.Table.from_pylist(list(rows))
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(place)
            column = column.cast(pa.large_string()) if habit == "large" else column
            column = column.dictionary_encode() if habit == "dictionary" else column
            table = table.set_column(place, field.name, column)
    return table


def read(path: Path) -> list[Row]:
    """The four kinds of values, as the readers of pools, counts and rollouts take them."""
    kinds = {"id": values.NAME, "text": values.TEXT, "n": values.WHOLE, "rate": values.NUMBER, "right": values.FLAG}
    found: list[Row] = []
    for rows in read_rows(path, list(kinds)):
        columns = {name: values.column(rows, name, kind).to_pylist() for name, kind in kinds.items()}
        found += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return found


ROWS: list[Row] = [
    {"id": 7, "text": "é\n\u2028\"a\", 'b'; }, {\t]", "n": 32, "rate": 0.5, "right": True},
    {"id": 8, "text": "", "n": 0, "rate": 1.0, "right": False},
    {"id": 9, "text": "x" * 400, "n": 5, "rate": None, "right": True},
]
EXPECTED = [{**row, "id": str(row["id"])} for row in ROWS]


@pytest.mark.parametrize("block", [60, 4 << 20])
@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_gives_the_same_values(
    ending: str, habit: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BLOCK", block)
    path = write(tmp_path / f"rows.{ending}", ROWS, habit)
    assert read(path) == EXPECTED
    assert column_names(path) == list(ROWS[0])
    last = list(read_rows(path, ["id"]))[-1]
    assert last.done == 1
    assert last.where(len(last) - 1) == f"{path}, row 3"


def test_a_number_may_be_written_in_any_way(tmp_path: Path) -> None:
    numbers = ((32, 1, True), (32.0, 1.0, 1), ("32", "1", 1.0), ("32.0", "1.0", "true"), (" 32 ", "1e0", "TRUE"))
    written = [{"id": "7", "text": "t", "n": n, "rate": rate, "right": right} for n, rate, right in numbers]
    assert read(write(tmp_path / "rows.jsonl", written)) == [
        {"id": "7", "text": "t", "n": 32, "rate": 1.0, "right": True}
    ] * len(written)
    floats = pa.table({"id": pa.array([7.0]), "n": pa.array([32.0]), "rate": pa.array([float("nan")])})
    pq.write_table(floats, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet") == [{"id": "7", "text": None, "n": 32, "rate": None, "right": None}]


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "id": st.integers(0, 99) | st.text("ab c", min_size=1, max_size=3).filter(str.strip),
                "text": st.text(max_size=12).filter(lambda text: "\x00" not in text and "\r" not in text),
                "n": st.none() | st.integers(0, 9),
                "rate": st.none() | st.floats(0, 1),
                "right": st.none() | st.booleans(),
            }
        ),
        min_size=1,
        max_size=6,
    ),
    ending=st.sampled_from(["jsonl", "json", "csv", "tsv", "jsonl.gz"]),
    block=st.sampled_from([40, 4 << 20]),
)
def test_any_rows_survive_every_text_format(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], ending: str, block: int
) -> None:
    path = write(tmp_path_factory.mktemp("rows") / f"rows.{ending}", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        assert read(path) == [{**row, "id": str(row["id"])} for row in rows]
        assert [where.rpartition(" ")[2] for where, _ in read_dicts(path)] == [str(k + 1) for k in range(len(rows))]


def test_a_column_that_only_later_rows_have_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": "a"} | ({"n": 3} if k > 200 else {})) + "\n" for k in range(300)))
    assert [row["n"] for row in read(path)] == [None] * 201 + [3] * 99


def test_fields_inside_of_columns_are_read_by_their_path(tmp_path: Path) -> None:
    rows: list[Row] = [{"extra_info": {"item_id": "a", "index": 1}}, {"extra_info": {"item_id": "b", "index": 2}}]
    name = "extra_info.item_id"
    for ending in ("jsonl", "json", "parquet"):
        path = write(tmp_path / f"rows.{ending}", rows)
        assert name in column_names(path)
        found = [values.column(part, name, values.NAME).to_pylist() for part in read_rows(path, [name])]
        assert [value for part in found for value in part] == ["a", "b"]


WRONG: list[tuple[str, bytes, str]] = [
    ("rows.csv", b"id,n\na,1\nb,2,3\n", "row 2: 3 values where the header names 2 columns"),
    ("rows.csv", b"id,n\na,1\n\xff,2\n", "row 2: it is not UTF-8"),
    ("rows.csv", b"", "begins with no names of columns"),
    ("rows.tsv", b"id\tn\na\t1\nb\n", "row 2: 1 values where the header names 2"),
    ("rows.json", b'[{"id": "a"}, {"id": }]', "row 2: not valid JSON (Expecting value"),
    ("rows.json", b'[{"id": "a"}, 5]', "row 2: a JSON object was expected, not int"),
    ("rows.json", b'[{"id": "a"}', "row 2: not valid JSON (the list does not end)"),
    ("rows.json", b'[{"id": "a"}] x', "row 2: not valid JSON (there is more after the end of the list)"),
    ("rows.json", b'{"id": "a"}', "a JSON list was expected, or several lines of one object each"),
    ("rows.json", b'{"id": ', "not valid JSON"),
    ("rows.json", b"", "not valid JSON"),
    ("rows.jsonl", b'{"id": "a"}\n{"id"}\n', "row 2: not valid JSON"),
    ("rows.jsonl.gz", gzip.compress(b'{"id": "a"}\n' * 9999)[:-20], "cannot be decompressed"),
    ("rows.jsonl.gz", b'{"id": "a"}\n', "cannot be decompressed"),
    ("rows.parquet", b"PAR1 and so on", "is not a readable parquet file"),
    ("rows.parquet.gz", b"", "parquet is compressed inside the file"),
    ("rows.xlsx", b"", "must end in .jsonl, .json, .csv, .tsv"),
]


@pytest.mark.parametrize(("name", "content", "says"), WRONG)
def test_what_is_no_table_is_one_sentence(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rows(path, ["id"]))
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_before_a_wrong_one_come_first(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a"}\n{"id": "b"}\nnonsense\n')
    found = read_rows(path, ["id"])
    assert values.column(next(found), "id", values.NAME).to_pylist() == ["a", "b"]
    with pytest.raises(DataError, match="row 3: not valid JSON"):
        next(found)


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (values.NAME, "  ", "it is empty"),
        (values.NAME, 1.5, "text was expected, but it is 1.5"),
        (values.TEXT, 5, "text was expected, but it is 5"),
        (values.TEXT, "\ud83d", "half of a surrogate pair"),
        (values.WHOLE, -1, "a whole number from 0 was expected, but it is -1"),
        (values.WHOLE, "2.5", "a whole number from 0 was expected, but it is '2.5'"),
        (values.SIGNED, 2**63, "a whole number was expected"),
        (values.NUMBER, True, "a number was expected, but it is True"),
        (values.NUMBER, "much", "a number was expected, but it is 'much'"),
        (values.FLAG, 0.5, "true or false (or 1 or 0) was expected, but it is 0.5"),
        (values.FLAG, "yes", "true or false (or 1 or 0) was expected, but it is 'yes'"),
    ],
)
def test_a_value_of_another_kind_is_named(kind: values.Kind, value: object, says: str) -> None:
    rows = Rows(Path("rows.jsonl"), {"field": [None, value]}, [3, 5])
    with pytest.raises(DataError) as caught:
        values.column(rows, "field", kind)
    assert str(caught.value).startswith(f"rows.jsonl, row 5, field 'field': {says}")
    with pytest.raises(DataError, match=r"row 3, field 'field': it is missing"):
        values.column(Rows(Path("rows.jsonl"), {"field": [None]}, [3]), "field", kind, required=True)
