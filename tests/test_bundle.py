"""What a bundle may be as a file: hostile archives, texts and tables are refused by name, and nothing is run."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_bundle import Members, Refused, in_json, in_table, members_of, parquet, told

from unlearnbench.errors import DataError
from unlearnbench.io.safe_zip import write_archive
from unlearnbench.io.untrusted import require_name, require_source
from unlearnbench.leaderboard.bundles import tables
from unlearnbench.leaderboard.bundles.opening import open_bundle
from unlearnbench.leaderboard.bundles.writing import write_members
from unlearnbench.leaderboard.verification import verify_bundle
from unlearnbench.splits import Split


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none(refused: Refused, word: str) -> None:
    def change(members: Members) -> None:
        members["result.json"] = members["result.json"].replace(
            b'"gain": ', b'"gain": ' + word.encode() + b', "x": ', 1
        )

    assert "not valid JSON" in refused(change)["archive"]


def test_a_member_that_is_not_utf8(refused: Refused) -> None:
    def change(members: Members) -> None:
        members["seeds/1/environment.json"] = b'{"device": "\xff\xfe"}'

    assert "is not UTF-8" in refused(change)["archive"]


def test_a_completion_that_is_not_utf8(refused: Refused) -> None:
    def change(members: Members) -> None:
        rows = pq.read_table(io.BytesIO(members["rollouts.parquet"]))
        raw = [b"\xff\xfe", *rows["completion"].cast(pa.binary()).to_pylist()[1:]]
        column = pa.array(raw, pa.binary())
        lying = pa.Array.from_buffers(pa.string(), len(column), column.buffers())
        members["rollouts.parquet"] = parquet(rows.set_column(4, "completion", lying))

    assert "UTF-8" in refused(change)["rollouts"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "<script>alert(1)</script>"),
        ("name", "fine\u202egnp"),
        ("authors", ["<b>me</b>"]),
        ("url", "javascript:alert(1)"),
        ("url", "https://example.org/\"onmouseover='x'"),
        ("url", "https://example.org/<script>"),
    ],
)
def test_markup_and_scripts_in_names_and_addresses(refused: Refused, field: str, value: object) -> None:
    def change(members: Members) -> None:
        in_json(members, "entry.json", lambda e: e.update({field: value}))

    assert f"field '{field}'" in refused(change)["archive"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", "\u3164\u3164"),
        ("name", "\u2800"),
        ("name", "GR\u0420\u041e"),
        ("name", "\uff27\uff32\uff30\uff2f"),
        ("name", "\U0001d406\U0001d411\U0001d40f\U0001d40e"),
        ("name", "GRPO\u00a0"),
        ("name", "G" + "\u0300\u0316\u0345" * 9),
        ("authors", ["", "A. Author"]),
        ("authors", ["a" * 101]),
        ("authors", ["a"] * 101),
        ("url", "https://..."),
        ("url", "https://-/"),
        ("tried", True),
        ("tried", 0),
        ("schema_version", True),
    ],
)
def test_a_statement_that_is_not_what_it_looks_like(refused: Refused, field: str, value: object) -> None:
    def change(members: Members) -> None:
        in_json(members, "entry.json", lambda e: e.update({field: value}))

    assert f"field '{field}'" in refused(change)["archive"]


@pytest.mark.parametrize(
    "name", ["\u03bcP-GRPO", "Méthode d'Été, 2e", "\u043c\u0435\u0442\u043e\u0434 \u03b1", "方法 2"]
)
def test_names_of_every_language_are_taken(name: str) -> None:
    require_name("here", name)
    with pytest.raises(DataError, match="begins or ends with a space"):
        require_name("here", f"{name} ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"# -*- coding: utf-7 -*-\n# +AAo-import os", "it says that it is written in utf-7"),
        (b"# coding: nonsense\n", "it is not Python"),
        ("x = 1  # \u202e\u2066 }".encode(), "shows code in another order"),
        (b"((((", "it is not Python"),
        (b"x = f" + b"()" * 100_000, "nested deeper"),
        (b"x = 1\0", "a null character"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_source_that_hides_what_it_is(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        require_source("here", content)
    require_source("here", b"\xef\xbb\xbf" + b"x = '\\d'")


def test_markup_in_the_methods_name(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "result.json", lambda r: r["method"].update(name="<img src=x onerror=alert(1)>"))

    assert "field 'name'" in refused(change)["archive"]


@pytest.mark.parametrize("name", ["result.json", "manifest.json", "seeds/1/config.json"])
def test_a_schema_version_of_the_future(made_bundle: Path, made_split: Split, tmp_path: Path, name: str) -> None:
    members = members_of(made_bundle)
    content = json.loads(members[name]) | {"schema_version": 3}
    members[name] = json.dumps(content).encode()
    if name == "manifest.json":
        write_archive(tmp_path / "future.zip", members)
    else:
        write_members(members, tmp_path / "future.zip")
    reason = told(verify_bundle(tmp_path / "future.zip", made_split))["archive"]
    assert "is newer than" in reason


def test_a_member_that_is_not_what_the_manifest_says(made_bundle: Path, made_split: Split, tmp_path: Path) -> None:
    members = members_of(made_bundle)
    members["result.json"] = members["result.json"].replace(b"0.7", b"0.9")
    write_archive(tmp_path / "x.zip", members)
    assert "not what manifest.json says" in told(verify_bundle(tmp_path / "x.zip", made_split))["archive"]


def test_ten_million_rows_are_refused_before_one_is_read(refused: Refused) -> None:
    content = parquet(pa.table({"correct": pa.array(np.zeros(10_000_000, bool))}))
    assert len(content) < 50_000

    def change(members: Members) -> None:
        members["rollouts.parquet"] = content

    assert "announces 10,000,000 rows" in refused(change)["rollouts"]


def test_a_table_that_unpacks_beyond_reason(refused: Refused) -> None:
    long = "x" * (80 << 20)

    def change(members: Members) -> None:
        def grow(rows: list[dict[str, Any]]) -> None:
            rows[0]["completion"] = long

        in_table(members, "rollouts.parquet", grow)

    assert "no honest table" in refused(change)["rollouts"]


@pytest.mark.parametrize(("name", "rows"), [("counts.parquet", 100_000), ("ledger.parquet", 300_000)])
def test_a_table_with_more_rows_than_the_run_has(refused: Refused, name: str, rows: int) -> None:
    def change(members: Members) -> None:
        table = pq.read_table(io.BytesIO(members[name]))
        members[name] = parquet(table.take(pa.array(np.zeros(rows, np.int64))))

    assert f"member '{name}' announces {rows:,} rows" in refused(change)["rollouts"]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("rollouts.parquet", "phase"),
        ("rollouts.parquet", "finish"),
        ("visits.parquet", "item_id"),
        ("ledger.parquet", "source"),
    ],
)
def test_a_name_that_would_fill_the_memory(refused: Refused, name: str, field: str) -> None:
    """One text of a megabyte in every row is small as a dictionary, and without end as texts."""

    def change(members: Members) -> None:
        table = pq.read_table(io.BytesIO(members[name]))
        codes = pa.array(np.zeros(table.num_rows, np.int32))
        column = pa.DictionaryArray.from_arrays(codes, pa.array(["x" * 1_000_000]))
        members[name] = parquet(table.set_column(table.column_names.index(field), field, column))

    assert f"field '{field}': a text of 1,000,000 bytes" in refused(change)["rollouts"]


def test_metadata_that_would_fill_the_memory(refused: Refused) -> None:
    """Twenty megabytes of key-value metadata are in no row and no column."""

    def change(members: Members) -> None:
        table = pq.read_table(io.BytesIO(members["counts.parquet"]))
        members["counts.parquet"] = parquet(table.replace_schema_metadata({f"k{n}": "v" * 1000 for n in range(20_000)}))

    assert "has a footer of" in (reason := refused(change)["rollouts"]) and "leave out its metadata" in reason


def test_half_a_gigabyte_of_texts_is_refused_from_the_footer(refused: Refused) -> None:
    """Every text another one and far too long, yet small when compressed."""

    def change(members: Members) -> None:
        def grow(rows: list[dict[str, Any]]) -> None:
            for number, row in enumerate(rows):
                row["completion"] = f"{number:09}" + "ab" * 4000

        in_table(members, "rollouts.parquet", grow)

    began = time.monotonic()
    assert "bytes of text" in refused(change)["rollouts"]
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.update(token_ids=row["token_ids"] * 30), "values"),
        (lambda row: row.update(token_ids=[]), "a rollout of 0 tokens"),
        (lambda row: row.update(token_ids=[*row["token_ids"][:-1], 10_000]), "the split's policy has no token 10000"),
        (lambda row: row.update(token_ids=[-1, *row["token_ids"][1:]]), "the split's policy has no token -1"),
        (
            lambda row: row.update(token_ids=[row["token_ids"][-1], *row["token_ids"]]),
            "after a token that ends",
        ),
        (lambda row: row.update(token_ids=row["token_ids"][:-1]), "its last token does not end it"),
        (lambda row: row.update(finish="length"), "its last token ends it"),
        (lambda row: row.update(finish="stopped"), "neither stop nor length"),
        (lambda row: row.update(completion=row["completion"] + " "), "is not what its tokens say"),
        (lambda row: row.update(completion="1+1>\\boxed{\u2603}"), "is not what its tokens say"),
    ],
)
def test_rollouts_that_no_policy_of_the_split_writes(refused: Refused, change: Any, words: str) -> None:
    def changed(members: Members) -> None:
        def one(rows: list[dict[str, Any]]) -> None:
            change(next(row for row in rows if row["finish"] == "stop" and len(row["token_ids"]) > 3))

        in_table(members, "rollouts.parquet", one)

    assert words in refused(changed)["rollouts"]


def test_a_completion_longer_than_its_tokens(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(members, "rollouts.parquet", lambda rows: rows[0].update(completion="y" * 2_000_000))

    assert "no policy of the split writes so much" in refused(change)["rollouts"]


def test_json_that_says_something_twice(refused: Refused) -> None:
    def change(members: Members) -> None:
        members["result.json"] = members["result.json"].replace(b'"kind"', b'"kind": "eval", "kind"', 1)

    assert "is there twice" in refused(change)["archive"]


def test_json_that_is_nested_without_end(refused: Refused) -> None:
    def change(members: Members) -> None:
        members["seeds/1/environment.json"] = b'{"a":' * 50_000 + b"1" + b"}" * 50_000

    assert "environment.json" in refused(change)["archive"]


def test_damage_anywhere_is_refused_and_never_a_crash(made_bundle: Path, made_split: Split, tmp_path: Path) -> None:
    members = members_of(made_bundle)
    draw = np.random.default_rng(0)
    for _ in range(4):
        changed = dict(members)
        for name in ("rollouts.parquet", "counts.parquet", "visits.parquet", "ledger.parquet", "result.json"):
            content = bytearray(changed[name])
            if draw.random() < 0.5:
                for place in draw.integers(0, len(content), 3).tolist():
                    content[place] ^= int(draw.integers(1, 256))
            changed[name] = bytes(content)
        write_members(changed, tmp_path / "x.zip")
        found = verify_bundle(tmp_path / "x.zip", made_split, workers=1)
        if found.verified:  # what was hit says nothing: a name of the program that wrote the table, say
            assert found.result is not None and found.result.model_dump(mode="json") == json.loads(
                members["result.json"]
            )
        else:
            assert changed != members


def test_nothing_of_a_bundle_is_run(refused: Refused, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"

    def change(members: Members) -> None:
        name = next(name for name in members if name.startswith("method/"))
        members[name] = f"open({str(mark)!r}, 'w')\n".encode() + members[name]

    refused(change)
    assert not mark.exists()


def test_a_table_that_holds_its_reader_up_is_given_up(
    made_bundle: Path, made_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "READER_SECONDS", 0.001)
    reason = told(verify_bundle(made_bundle, made_split))["rollouts"]
    assert "member 'rollouts.parquet' is not a table: the process that read it failed (it did not end within" in reason


def test_a_run_that_is_no_bundle_yet_is_told_how_to_become_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; bundle a run with `unlearnbench submit`"):
        open_bundle(tmp_path)
