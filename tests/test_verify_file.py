"""Files of completions judged in batches and taken up again after a kill."""

from __future__ import annotations

import errno
import json
import os
import pty
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unlearnbench.errors import DataError, RunError
from unlearnbench.io.row_stream import MOST, Place, lines_of, parquet_tables
from unlearnbench.verifier import cache, resume_log
from unlearnbench.verifier.resume_log import VerdictLog
from unlearnbench.verifier.verify_file import COLUMNS, Summary, judge_file

PAIRS = [(source, out) for source in ("rows.jsonl", "rows.parquet") for out in ("out.jsonl", "out.parquet")]


def numbers(count: int) -> list[dict[str, object]]:
    """Rows whose verdicts need no algebra, so that two runs agree to the byte: a third right, a seventh empty."""
    texts = (f"text {k}, so \\boxed{{{k if k % 3 == 0 else -1}}}" if k % 7 else "none" for k in range(count))
    return [{"id": k, "gold": str(k), "completion": text, "share": k / 4} for k, text in enumerate(texts)]


def expected(count: int) -> Counter[str]:
    kinds = ("no_answer" if k % 7 == 0 else "match" if k % 3 == 0 else "mismatch" for k in range(count))
    return Counter(kinds)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    return [json.loads(line) for line in path.read_text().splitlines()]


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "unlearnbench", "verify", *map(str, words)]
    return subprocess.run(call, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def stopped(source: Path, out: Path, rows: int, what: str = "judging") -> None:
    """Judge until so many rows are done, and stop as by Ctrl-C."""

    def stop(doing: str, done: int, share: float) -> None:
        if doing == what and done >= rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_file(source, out, progress=stop)


# --- rows in, rows out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "out"), PAIRS)
@pytest.mark.parametrize("workers", [1, 3])
def test_every_row_is_there_in_its_order_with_all_columns(tmp_path: Path, source: str, out: str, workers: int) -> None:
    rows = numbers(2 * MOST + 100)
    told = judge_file(write(tmp_path / source, rows), tmp_path / out, workers=workers)
    found = read(tmp_path / out)
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    assert {tuple(row) for row in found} == {(*rows[0], *COLUMNS)}
    assert [row["correct"] for row in found] == [k % 7 > 0 and k % 3 == 0 for k in range(len(rows))]
    assert {row["seconds"] for row in found} == {0.0}
    assert told == Summary(len(rows), expected(len(rows)), 0)
    assert sum(told.reasons.values()) == told.rows
    assert {path.name for path in tmp_path.iterdir()} == {source, out}


def test_lines_are_kept_as_they_are(tmp_path: Path) -> None:
    lines = [
        '\ufeff{"gold": "1", "completion": "\\\\boxed{1}", "big": 123456789012345678901234567890, "x": 1.10}',
        "",
        '  {"completion":"\\u00e9 é \\ud800 \\u0000", "gold":"1"}  \r',
        "   ",
        '{"gold": "1", "completion": "\\\\boxed{\\ud800\\u0000}", "n": NaN}',
    ]
    (tmp_path / "rows.jsonl").write_bytes("\n".join(lines).encode())
    judge_file(tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    found = (tmp_path / "out.jsonl").read_bytes().decode().split("\n")
    for line, kept in zip(found[:3], (lines[0][1:], lines[2].strip(), lines[4]), strict=True):
        assert line.startswith(kept[:-1] + ", ")
    assert found[3:] == [""]
    assert json.loads(found[2])["answer"] == "\ud800\0"


def test_verdicts_made_before_are_replaced_and_named_elsewhere_they_are_text(tmp_path: Path) -> None:
    first = {"reason": "old", "gold": "1", "completion": 'the "answer" is', "seconds": None}
    write(tmp_path / "rows.jsonl", [first, {"gold": "2", "completion": "\\boxed{2}"}])
    judge_file(tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    one, two = read(tmp_path / "out.jsonl")
    assert list(one) == ["reason", "gold", "completion", "seconds", "correct", "answer", "rule"]
    assert (one["reason"], one["seconds"], one["completion"]) == ("no_answer", 0.0, 'the "answer" is')
    assert list(two) == ["gold", "completion", *COLUMNS]


def test_types_of_parquet_are_those_that_hold_all_rows(tmp_path: Path) -> None:
    rows = numbers(MOST + 10)
    for row in rows:
        row |= {"n": 1, "maybe": None, "tags": [], "of": {"a": 1}}
    rows[-1] |= {"n": 0.5, "maybe": "2020-01-01", "tags": ["x"], "of": {"b": [None]}, "late": True}
    judge_file(write(tmp_path / "rows.jsonl", rows), tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert (schema.field("n").type, schema.field("maybe").type) == (pa.float64(), pa.string())
    assert (schema.field("tags").type.value_type, schema.field("late").type) == (pa.string(), pa.bool_())
    assert {name: schema.field(name).type for name in COLUMNS} == dict(COLUMNS)
    last = read(tmp_path / "out.parquet")[-1]
    assert (last["n"], last["of"], last["late"]) == (0.5, {"a": None, "b": [None]}, True)


@pytest.mark.parametrize("row", [3, MOST + 5])
@pytest.mark.parametrize("value", ["text", {"a": 1}, "\ud800", 2**70])
def test_a_value_that_parquet_has_no_place_for_is_named(tmp_path: Path, row: int, value: object) -> None:
    rows = numbers(MOST + 10)
    rows[row - 1]["id"] = value
    with pytest.raises(DataError, match=rf"rows\.jsonl, row {row}, field 'id': .*\.jsonl file") as told:
        judge_file(write(tmp_path / "rows.jsonl", rows), tmp_path / "out.parquet")
    assert "\n" not in str(told.value)
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl"}


@pytest.mark.parametrize(
    ("bad", "field"), [({"gold": 5}, "gold"), ({"gold": " "}, "gold"), ({"completion": ["a"]}, "completion")]
)
@pytest.mark.parametrize("source", ["rows.jsonl", "rows.parquet"])
def test_a_bad_row_far_down_is_named(tmp_path: Path, source: str, bad: dict[str, object], field: str) -> None:
    rows = numbers(2 * MOST)
    rows[MOST + 6] |= bad
    if source == "rows.parquet" and bad != {"gold": " "}:
        rows = [row | bad for row in rows]  # a column of parquet has one type
    with pytest.raises(DataError, match=f"row {1 if rows[0][field] == bad[field] else MOST + 7}, field '{field}'"):
        judge_file(write(tmp_path / source, rows), tmp_path / "out.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {source}


@pytest.mark.parametrize(("source", "out"), PAIRS)
def test_a_file_of_no_rows(tmp_path: Path, source: str, out: str) -> None:
    schema = pa.schema([("gold", pa.string()), ("completion", pa.string())])
    if source == "rows.parquet":
        pq.write_table(schema.empty_table(), tmp_path / source)
    else:
        (tmp_path / source).write_text("\n")
    assert judge_file(tmp_path / source, tmp_path / out) == Summary(0, {}, 0)
    assert read(tmp_path / out) == []


def test_batches_are_bounded_in_rows_and_in_bytes(tmp_path: Path) -> None:
    """What is in memory at once does not grow with the file, whatever its row groups are."""
    rows = numbers(10 * MOST)
    write(tmp_path / "rows.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=len(rows))
    many = [len(lines) for _, lines, _, _ in lines_of(tmp_path / "rows.jsonl", Place())]
    tables = [table.num_rows for _, table, _ in parquet_tables(tmp_path / "rows.parquet")]
    assert sum(many) == sum(tables) == len(rows)
    assert max(many) <= MOST and max(tables) <= MOST
    rng = random.Random(0)
    long = [{"gold": "1", "completion": rng.randbytes(50_000).hex()} for _ in range(200)]  # 20 MB
    for name in ("long.jsonl", "long.parquet"):
        write(tmp_path / name, long)
    sizes = [sum(map(len, lines)) for _, lines, _, _ in lines_of(tmp_path / "long.jsonl", Place())]
    sizes += [table.nbytes for _, table, _ in parquet_tables(tmp_path / "long.parquet")]
    assert max(sizes) < 6 << 20


@pytest.mark.parametrize("skip", [0, 1, 700, 1500, 2999])
def test_parquet_goes_on_after_any_row(tmp_path: Path, skip: int) -> None:
    rows = numbers(3000)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=700)
    found = list(parquet_tables(tmp_path / "rows.parquet", ("id",), skip))
    assert [k for _, table, _ in found for k in table["id"].to_pylist()] == list(range(skip, 3000))
    assert [first for first, _, _ in found] == [1 + table["id"][0].as_py() for _, table, _ in found]


# --- taking up again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "out"), PAIRS)
def test_a_killed_command_goes_on_and_makes_the_same_file(tmp_path: Path, source: str, out: str) -> None:
    rows = numbers(6 * MOST)
    write(tmp_path / source, rows)
    told = judge_file(tmp_path / source, tmp_path / f"whole-{out}")
    what = "writing" if (source, out) == ("rows.parquet", "out.jsonl") else "judging"
    code = f"""
import os, signal
from pathlib import Path
from unlearnbench.verifier.verify_file import judge_file
def kill(what, rows, share):
    if what == {what!r} and rows > 3000:
        os.kill(os.getpid(), signal.SIGKILL)
judge_file(Path({source!r}), Path({out!r}), progress=kill)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / out).exists()
    kept = judge_file(tmp_path / source, tmp_path / out)
    assert kept == Summary(len(rows), told.reasons, kept.resumed)
    assert kept.resumed == len(rows) if what == "writing" else 3000 <= kept.resumed <= 3000 + MOST
    assert (tmp_path / out).read_bytes() == (tmp_path / f"whole-{out}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {source, out, f"whole-{out}"}


def test_another_rule_source_or_verifier_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write(tmp_path / "rows.jsonl", numbers(4 * MOST)), tmp_path / "out.jsonl"
    stopped(source, out, 2 * MOST)
    assert judge_file(source, out, rule="lenient").resumed == 0
    stopped(source, out, 2 * MOST)
    with monkeypatch.context() as other:
        other.setattr(cache, "VERIFIER_VERSION", "another")
        assert judge_file(source, out).resumed == 0
    stopped(source, out, 2 * MOST)
    rows = numbers(4 * MOST)
    rows[0]["gold"] = "5"
    assert judge_file(write(source, rows), out).resumed == 0
    stopped(source, out, 2 * MOST)
    assert judge_file(source, out).resumed == 2 * MOST


@pytest.mark.parametrize("cut", [1, 2000, -1])
def test_a_log_that_a_kill_cut_short_counts_up_to_there(tmp_path: Path, cut: int) -> None:
    source, out = write(tmp_path / "rows.jsonl", numbers(4 * MOST)), tmp_path / "out.jsonl"
    judge_file(source, tmp_path / "whole.jsonl")
    stopped(source, out, 3 * MOST)
    log = tmp_path / ".out.jsonl.verdicts"
    data = log.read_bytes()
    log.write_bytes(data[:-cut] if cut > 0 else data + b"\0" * 5000)
    assert judge_file(source, out).resumed == (2 * MOST if cut > 0 else 3 * MOST)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_the_verifier_failed_on_is_judged_again(tmp_path: Path) -> None:
    source, out = write(tmp_path / "rows.jsonl", numbers(4 * MOST)), tmp_path / "out.jsonl"
    stopped(source, out, 3 * MOST)
    log = tmp_path / ".out.jsonl.verdicts"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(
        "".join([*lines[:2], lines[2].replace('true,"1026","match"', 'null,"1026","verifier_error"'), *lines[3:]])
    )
    told = judge_file(source, out)
    assert told == Summary(4 * MOST, expected(4 * MOST), MOST)


def test_one_command_at_a_time_writes_a_file(tmp_path: Path) -> None:
    source, out = write(tmp_path / "rows.jsonl", numbers(3)), tmp_path / "out.jsonl"
    with (
        VerdictLog(out, {}, reason=2, broken="verifier_error"),
        pytest.raises(RunError, match=r"another command.*out\.jsonl"),
    ):
        judge_file(source, out)
    assert judge_file(source, out).rows == 3


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(resume_log, "lock_descriptor", refuse)
    with pytest.raises(RunError, match=r"cannot lock .*\.out\.jsonl\.verdicts \(No locks available\).*--out"):
        judge_file(write(tmp_path / "rows.jsonl", numbers(3)), tmp_path / "out.jsonl")


def test_a_source_that_changes_meanwhile_makes_no_file(tmp_path: Path) -> None:
    source, out = write(tmp_path / "rows.jsonl", numbers(3)), tmp_path / "out.jsonl"

    def change(what: str, rows: int, share: float) -> None:
        if what == "judging" and rows == 3:
            source.write_bytes(source.read_bytes() + b'{"gold": "1", "completion": "1"}\n')

    with pytest.raises(RunError, match=r"rows\.jsonl .*while it was judged"):
        judge_file(source, out, progress=change)
    assert not out.exists()


# --- the command ----------------------------------------------------------------------------------------------


def test_a_pipe_sees_results_only_and_a_terminal_sees_progress(tmp_path: Path) -> None:
    source, out = write(tmp_path / "rows.jsonl", numbers(3000)), tmp_path / "out.parquet"
    done = command("--file", source, "--out", out)
    reasons = ", ".join(f"{n} {reason}" for reason, n in expected(3000).most_common())
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{out}: 3000 rows: {reasons}\n")
    ours, theirs = pty.openpty()
    call = [sys.executable, "-m", "unlearnbench", "verify", "--file", str(source), "--out", str(out), "--json"]
    with subprocess.Popen(call, stderr=theirs, stdout=subprocess.PIPE, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(theirs)
        seen = b""
        while piece := _piece(ours):
            seen += piece
        told = json.loads(process.stdout.read()) if process.stdout else {}
    os.close(ours)
    assert b"judging" in seen and b"3,000 rows" in seen and b"/s" in seen
    assert told == {"rows": 3000, "reasons": dict(expected(3000)), "resumed": 0, "symbolic": []}


def _piece(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's word for a terminal whose other end is closed
        return b""


def test_a_cache_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", numbers(3))
    done = command("--file", source, "--out", tmp_path / "out.jsonl", "--cache", source)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "rows.jsonl is not a cache of verdicts" in done.stderr
    assert read(source) == numbers(3)
