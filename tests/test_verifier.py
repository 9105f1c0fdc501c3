"""Verdicts from real workers: right, wrong, hung, killed, from threads and daemons, and by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from unlearnbench.cli.verify import verify as command
from unlearnbench.errors import DataError
from unlearnbench.records import Verdict
from unlearnbench.verifier import Verifier, verify

HANGS = r"\boxed{\int_0^1 \int_0^1 \frac{\sin(xy)}{1+x^3+y^5} dx dy}"  # sympy is at it for ever, and is killed


def children(parent: int | None = None) -> set[int]:
    """The living child processes of `parent` (default: this one)."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == (parent or os.getpid()) and fields[0] != "Z":
            found.add(int(folder.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier(time_limit=10.0) as shared:
        yield shared


@pytest.mark.parametrize(
    ("gold", "completion", "correct", "answer", "reason"),
    [
        ("17", r"so \boxed{17}", True, "17", "match"),
        ("17", r"so \boxed{18}", False, "18", "mismatch"),
        ("17", "so 17", False, None, "no_answer"),
        ("17", r"\boxed{17 \text{ or } 18}", False, r"17 \text{ or } 18", "ambiguous"),
        ("17", r"\boxed{" + "9" * 500 + "}", False, "9" * 500, "too_large"),
        ("17", r"\boxed{" + "9" * 5000 + "}", False, None, "too_large"),
        ("17", r"\boxed{\frac{}", False, None, "no_answer"),
        ("17", r"\boxed{&&}", False, "&&", "unparsable"),
        (r"\frac{x}{2}", r"\boxed{0.5x}", True, "0.5x", "match"),
        (r"\sqrt{2}", r"\boxed{1.5}", False, "1.5", "mismatch"),
        (r"$\dfrac{1}{2}$", r"\boxed{0.5}", True, "0.5", "match"),
        (r"\boxed{3}", r"\boxed{3}", True, "3", "match"),
    ],
)
def test_verdicts(
    verifier: Verifier, gold: str, completion: str, correct: bool, answer: str | None, reason: str
) -> None:
    verdict = verifier.verify(gold, completion)
    assert (verdict.correct, verdict.answer, verdict.reason, verdict.rule) == (correct, answer, reason, "strict")


@pytest.mark.parametrize(
    ("gold", "completion", "correct"),
    [
        ("m=1,n=2", r"$m=\boxed{1}$, $n=\boxed{2}$", True),
        ("m=1,n=2", r"$n=\boxed{2}$ and $m=\boxed{1}$", True),
        ("m=1,n=2", r"$n=\boxed{1}$ and $m=\boxed{2}$", False),
        ("1,2", r"\(x_1 = \boxed{2}\) or $x_2=\boxed{1}$", True),
        ("1,2", r"$x=\boxed{1}$ or $x=\boxed{3}$", False),
        ("1,2", r"\boxed{2} and \boxed{1}", True),
    ],
)
def test_names_before_several_boxes_say_which_value_is_which(
    verifier: Verifier, gold: str, completion: str, correct: bool
) -> None:
    assert verifier.verify(gold, completion).correct is correct


def test_rules() -> None:
    assert verify("17", "the answer is 17").correct is False
    assert verify("17", "the answer is 17", "lenient") == Verdict(True, "17", "match", "lenient")
    assert verify("17", "17.", "paper") == Verdict(True, "17", "match", "paper")
    with pytest.raises(ValueError, match="rule"):
        verify("17", "17", "kind")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "gold",
    [
        "17",
        "-3",
        r"\frac{3}{4}",
        "1,234",
        r"\left(3,\frac{\pi}{2}\right)",
        r"\text{Evelyn}",
        r"\$18.90",
        "x^2+1",
        r"90^\circ",
        r"50\%",
        r"(-\infty, 2]\cup[3,\infty)",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        "11,\\! 111",
    ],
)
def test_gold_verifies_against_itself_without_a_worker(gold: str) -> None:
    before = children()
    with Verifier() as quick:
        verdict = quick.verify(gold, f"so it is $\\boxed{{{gold}}}$.")
        assert (verdict.correct, verdict.seconds) == (True, 0.0)
        assert children() == before


def test_many_keep_their_order_and_share_work() -> None:
    pairs = [("x+1", rf"\boxed{{{k}+x}}") for k in (1, 2, 1, 2)] + [("1", r"\boxed{1}"), ("1", "one")]
    with Verifier(workers=2, time_limit=10.0) as many:
        verdicts = many.verify_many(pairs)
        assert [verdict.correct for verdict in verdicts] == [True, False, True, False, True, False]
        assert verdicts[0] is verdicts[2]
        assert verdicts[0].seconds > 0 and verdicts[4].seconds == 0
        assert many.verify(*pairs[0]) is verdicts[0]
        assert many.verify_many([]) == []
        assert many.ungradable == 0


def test_a_hang_is_cut_off_retried_once_and_wrong() -> None:
    with Verifier(time_limit=0.5) as hasty:
        verdict = hasty.verify("5", HANGS)
        assert (verdict.correct, verdict.reason) == (False, "timeout")
        assert 0.75 <= verdict.seconds < 3.0  # two attempts of half a second, the second begun at half time
        assert hasty.verify("5", HANGS) is verdict  # from the cache, at no cost
        assert hasty.ungradable == 2
        assert hasty.verify("2x", r"\boxed{x+x}").correct is True


def test_a_worker_killed_between_questions_is_replaced() -> None:
    before = children()
    with Verifier(time_limit=10.0) as fresh:
        assert fresh.verify("2x", r"\boxed{x+x}").correct is True
        for worker in children() - before:
            os.kill(worker, signal.SIGKILL)
        assert fresh.verify("3x", r"\boxed{2x+x}").correct is True
    assert children() == before


@pytest.mark.parametrize("kills", [1, 2])
def test_a_worker_killed_at_work_costs_one_retry_and_two_the_verdict(kills: int) -> None:
    before = children()
    verdicts: list[Verdict] = []
    with Verifier(time_limit=30.0) as fresh:
        fresh.verify("2x", r"\boxed{x+x}")
        (worker,) = children() - before
        os.kill(worker, signal.SIGSTOP)  # so that it is sure to be at work when it is killed
        thread = threading.Thread(target=lambda: verdicts.append(fresh.verify("3x", r"\boxed{2x+x}")))
        thread.start()
        time.sleep(0.3)
        os.kill(worker, signal.SIGKILL)
        if kills == 2:
            wait_for(lambda: children() - before - {worker})
            (second,) = children() - before - {worker}
            os.kill(second, signal.SIGKILL)
        thread.join()
        expected = (True, "match") if kills == 1 else (None, "verifier_error")
        assert (verdicts[0].correct, verdicts[0].reason) == expected
        assert fresh.ungradable == 0
        assert fresh.verify("3x", r"\boxed{2x+x}").correct is True  # a failure of the verifier is not cached


def test_no_worker_outlives_a_killed_parent() -> None:
    code = f"from unlearnbench.verifier import Verifier; Verifier(time_limit=1.0).verify('5', {HANGS!r})"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        wait_for(lambda: children(parent.pid))
        workers = children(parent.pid)
        wait_for(lambda: any(map(children, workers)))  # sympy is at it, in a process of its own
        workers |= {attempt for worker in workers for attempt in children(worker)}
        parent.kill()
    wait_for(lambda: not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers))
    assert workers
    assert not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers)


def test_threads_share_one_verifier() -> None:
    results: dict[int, bool | None] = {}

    def ask(k: int) -> None:
        results[k] = verify(f"{k}x", rf"\boxed{{{k - 1}x+x}}").correct

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(2, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(2, 12), True)


def _in_child(results: Queue[bool | None]) -> None:
    results.put(verify("5x", r"\boxed{4x+x}").correct)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_daemonic_process_has_workers_of_its_own(method: str) -> None:
    assert verify("2x", r"\boxed{x+x}").correct is True  # the parent's workers run, and a fork inherits them
    context = get_context(method)
    results: Queue[bool | None] = context.Queue()
    child = context.Process(target=_in_child, args=(results,), daemon=True)
    child.start()
    assert results.get(timeout=60) is True
    child.join()
    assert child.exitcode == 0
    assert verify("7x", r"\boxed{6x+x}").correct is True


def test_a_garbage_collected_verifier_leaves_nothing() -> None:
    before = children()
    assert Verifier(time_limit=10.0).verify("2x", r"\boxed{x+x}").correct is True
    wait_for(lambda: children() <= before)


@pytest.mark.parametrize("text", ["\0", "\ud800", "__import__('os').system('exit')", r"\input{x}", "lambda: 0"])
def test_hostile_text_is_wrong(verifier: Verifier, text: str) -> None:
    assert verifier.verify("5x", f"\\boxed{{{text}}}").correct is False


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
def test_a_worker_has_a_memory_limit() -> None:
    import resource

    before = children()
    with Verifier(time_limit=10.0) as limited:
        limited.verify("2x", r"\boxed{x+x}")
        (worker,) = children() - before
        assert resource.prlimit(worker, resource.RLIMIT_AS)[0] == 1 << 30


# --- the command line -----------------------------------------------------------------------------------------


def test_one_verdict_on_the_command_line() -> None:
    right = CliRunner().invoke(command, ["17", r"so \boxed{17}"])
    assert (right.exit_code, right.output) == (0, "right (match, answer 17)\n")
    wrong = CliRunner().invoke(command, ["17", "so 17", "--json"])
    assert wrong.exit_code == 0
    assert json.loads(wrong.output) == {
        "correct": False,
        "answer": None,
        "reason": "no_answer",
        "rule": "strict",
        "seconds": 0.0,
    }
    assert CliRunner().invoke(command, ["-3", r"\boxed{-3}"]).output == "right (match, answer -3)\n"
    assert CliRunner().invoke(command, ["17", "the answer is 17", "--rule", "lenient"]).output.startswith("right")


@pytest.mark.parametrize(
    "arguments",
    [[], ["17"], ["--jsn", "17"], ["17", "17", "--file", "f.jsonl"], ["--file", "f.csv", "--out", "o.jsonl"]],
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2


ROWS = [
    {"id": 1, "gold": "17", "completion": r"\boxed{17}", "note": {"a": [1]}},
    {"id": 2, "gold": "17", "completion": r"\boxed{18}", "note": None},
    {"id": 3, "gold": "x+1", "completion": r"\boxed{1+x}", "note": {"a": []}},
]


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("source", ["rows.jsonl", "rows.parquet"])
@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
def test_a_file_keeps_its_columns_and_gains_verdicts(tmp_path: Path, source: str, out: str) -> None:
    _write(tmp_path / source, ROWS)
    done = CliRunner().invoke(command, ["--file", str(tmp_path / source), "--out", str(tmp_path / out)])
    assert done.exit_code == 0, done.output
    rows = _read(tmp_path / out)
    assert [list(row) for row in rows] == [[*ROWS[0], "correct", "answer", "reason", "rule", "seconds"]] * 3
    assert [row["correct"] for row in rows] == [True, False, True]
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    assert done.output.endswith("3 rows: 2 match, 1 mismatch\n")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("bad", "field"), [({"gold": None}, "gold"), ({"completion": None}, "completion"), ({"gold": ""}, "gold")]
)
def test_a_bad_row_is_named_and_leaves_nothing(tmp_path: Path, suffix: str, bad: dict[str, object], field: str) -> None:
    source, out = tmp_path / f"rows{suffix}", tmp_path / f"out{suffix}"
    _write(source, [ROWS[0], ROWS[1] | bad, ROWS[2]])
    done = CliRunner().invoke(command, ["--file", str(source), "--out", str(out)])
    assert isinstance(done.exception, DataError)
    message = str(done.exception)
    assert source.name in message and "row 2" in message and repr(field) in message and "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_missing_file_a_missing_column_and_rows_that_are_no_table(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    for name, rows in (("none.jsonl", None), ("none.parquet", None), ("bare.parquet", [{"gold": "1"}])):
        if rows is not None:
            _write(tmp_path / name, rows)
        done = CliRunner().invoke(command, ["--file", str(tmp_path / name), "--out", str(out)])
        assert isinstance(done.exception, DataError) and name in str(done.exception)
    _write(tmp_path / "mixed.jsonl", [ROWS[0] | {"id": "a"}, ROWS[1] | {"id": {"b": 1}}])
    done = CliRunner().invoke(command, ["--file", str(tmp_path / "mixed.jsonl"), "--out", str(out)])
    assert isinstance(done.exception, DataError)
    assert not out.exists()


def test_verdicts_made_before_are_replaced_in_place(tmp_path: Path) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    _write(source, [{"correct": False, "gold": "1", "completion": r"\boxed{1}"}])
    CliRunner().invoke(command, ["--file", str(source), "--out", str(out)], catch_exceptions=False)
    assert next(iter(_read(out)[0].items())) == ("correct", True)


# --- speed ----------------------------------------------------------------------------------------------------


def test_a_boxed_number_takes_microseconds() -> None:
    quick = Verifier()
    completions = ["digits and words " * 20 + rf"so \boxed{{{k % 100}}}" for k in range(20_000)]
    start = time.perf_counter()
    for completion in completions:
        quick.verify("17", completion)
    assert (time.perf_counter() - start) / len(completions) < 100e-6  # about 3 us on a quiet core
