"""`score`: rollouts made anywhere, read from files, graded again, and scored as a run with the same counts is."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from unlearnbench import __version__
from unlearnbench.cli.ending import show
from unlearnbench.cli.main import run
from unlearnbench.errors import DataError, RunError, VerifierError
from unlearnbench.harness.rollouts import score as scoring
from unlearnbench.harness.rollouts.score import score_rollouts
from unlearnbench.io import streams
from unlearnbench.io.tables import read_counts, read_json_record, read_parquet, write_parquet
from unlearnbench.records import Cost, MethodRecord, Result, SpentBudget
from unlearnbench.reports.run_report import rebuild
from unlearnbench.scoring import score
from unlearnbench.splits import Split

Row = Mapping[str, Any]


def command(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from unlearnbench.cli import main; main()"
    arguments = [sys.executable, "-c", code, "score", *map(str, words)]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=folder, stdin=subprocess.DEVNULL)


def write(path: Path, rows: Iterable[Row]) -> Path:
    """Rows as jsonl or, by suffix, parquet."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(answer: str, n: int, correct: int) -> list[str]:
    """n completions of which `correct` state the answer; the others state another, or none."""
    wrong = ["\\boxed{no such answer}", "I do not know", f"{answer}, unboxed"]
    return [f"so \\boxed{{{answer}}}" if k < correct else wrong[k % 3] for k in range(n)]


def of_items(split: Split, seeds: Iterable[int] = (0, 1, 2), n: int = 32) -> list[dict[str, Any]]:
    """A complete set, in which the i-th item is solved i % (n + 1) times by every seed."""
    return [
        {"item_id": item.item_id, "seed": seed, "completion": text}
        for seed in seeds
        for place, item in enumerate(split.items)
        for text in texts(item.answer, n, place % (n + 1))
    ]


def counted(folder: Path) -> dict[tuple[str, str, str], tuple[int, int]]:
    rows = read_counts(folder / "counts.parquet").to_pylist()
    return {(row["item_id"], row["phase"], row["run"]): (row["n"], row["correct"]) for row in rows}


def with_null(split: Split, micro: Split, folder: Path) -> Split:
    """A copy of a split of some of micro's problems, with micro's null control on them."""
    null = micro.control("null_control", "1x")
    assert null is not None
    shutil.copytree(split.path, folder)
    known = [problem.item_id for problem in (*split.items, *split.canaries)] + [twin.twin_id for twin in split.twins]
    counts = null.counts.filter(pc.is_in(null.counts["item_id"], pa.array(known)))
    write_parquet(folder / "null_control/1x/counts.parquet", counts)
    return Split(folder)


def test_rollouts_with_the_counts_of_null_seeds_get_the_score_of_those_counts(
    small_split: Split, micro: Split, tmp_path: Path
) -> None:
    split = with_null(small_split, micro, tmp_path / "split")
    null = split.control("null_control", "1x")
    assert null is not None
    counts = null.counts.filter(pc.is_in(null.counts["run"], pa.array(["1", "2", "3"])))
    golds = {item.item_id: item.answer for item in (*split.items, *split.canaries)}
    golds |= {twin.twin_id: twin.answer for twin in split.twins}
    rows = [
        {"item_id": cell["item_id"], "seed": int(cell["run"]), "completion": text, "reward": -1}
        for cell in counts.to_pylist()
        for text in texts(golds[cell["item_id"]], cell["n"], cell["correct"])
    ]
    write(tmp_path / "rollouts.jsonl", rows)
    done = command("rollouts.jsonl", "--split", "split", "--out", "run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "unlearnable" in done.stdout
    assert f"{len(rows):,} rollouts graded again" in done.stdout
    assert done.stdout.endswith(f"report: {Path('run/report.html')}\n")

    result = read_json_record(tmp_path / "run/result.json", Result)
    assert counted(tmp_path / "run") == {
        (row["item_id"], row["phase"], row["run"]): (row["n"], row["correct"]) for row in counts.to_pylist()
    }
    facts = score.RunFacts(
        method=MethodRecord(name="rollouts", source_hash=result.method.source_hash, track="undeclared"),
        seeds=[1, 2, 3],
        samples=32,
        sampling=split.config.protocol.sampling,
        budget=SpentBudget(),
        cost=Cost(verifier_calls=len(rows)),
        kind="score",
        code_version=__version__,
    )
    expected = score.score(split, counts, facts, null)
    assert result.model_dump(mode="json") == expected.model_dump(mode="json")
    assert (result.kind, result.comparable, result.method.track) == ("score", True, "undeclared")
    assert result.conversion.solved_gain is not None
    assert result.canaries.converted == 0
    assert result.budget.multiple is None

    evaluation = tmp_path / "run/2/evaluation"
    assert sorted(path.name for path in evaluation.iterdir()) == ["canaries.parquet", "items.parquet", "twins.parquet"]
    assert read_parquet(evaluation / "twins.parquet").column_names[0] == "twin_id"
    page = (tmp_path / "run/report.html").read_bytes()
    assert b"rollouts were made elsewhere" in page
    assert rebuild(tmp_path / "run", split.path).read_bytes() == page


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_are_written_as_an_evaluation_writes_them_and_no_given_verdict_is_believed(
    suffix: str, small_split: Split, tmp_path: Path
) -> None:
    rows = [{**row, "correct": True, "finish": "length", "note": "x"} for row in of_items(small_split, seeds=(4, 7))]
    random.Random(0).shuffle(rows)
    one = write(tmp_path / f"one{suffix}", rows[:1000])
    two = write(tmp_path / f"two{suffix}", rows[1000:])
    result = score_rollouts([one, two], small_split, tmp_path / "run")
    assert list(result.seeds) == [4, 7]
    for place, item in enumerate(small_split.items):
        assert counted(tmp_path / "run")[item.item_id, "eval", "7"] == (32, place % 33)
    table = read_parquet(tmp_path / "run/7/evaluation/items.parquet")
    assert table.schema.names == [
        "item_id",
        "sample",
        "completion",
        "token_ids",
        "finish",
        "correct",
        "answer",
        "reason",
    ]
    written = table.to_pylist()
    assert [(row["item_id"], row["completion"]) for row in written] == [
        (row["item_id"], row["completion"]) for row in rows if row["seed"] == 7
    ]
    assert {row["finish"] for row in written} == {"length"}
    assert {row["reason"] for row in written} == {"match", "mismatch", "no_answer"}
    for item in small_split.items:
        assert [row["sample"] for row in written if row["item_id"] == item.item_id] == list(range(32))


def test_without_a_seed_there_is_one_run_numbered_0(small_split: Split, tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("item_id", "completion")} for row in of_items(small_split, seeds=(0,))]
    for suffix in (".jsonl", ".parquet"):
        result = score_rollouts([write(tmp_path / f"rows{suffix}", rows)], small_split, tmp_path / suffix)
        assert list(result.seeds) == [0]
        assert (tmp_path / suffix / "0/evaluation/items.parquet").is_file()


Change = Callable[[list[dict[str, Any]], str], list[dict[str, Any]]]
LACK = "add what is missing, or"
INCOMPLETE: list[tuple[Change, str, str]] = [
    (
        lambda rows, last: [row for row in rows if row["item_id"] != last],
        "has 0 rollouts in seed 0",
        f"lack 96 rollouts; {LACK}",
    ),
    (
        lambda rows, last: [row for row in rows if (row["item_id"], row["seed"]) != (last, 1)],
        "has 0 rollouts in seed 1",
        f"lack 32 rollouts; {LACK}",
    ),
    (lambda rows, last: rows[:-1], "has 31 rollouts in seed 2", f"lack 1 rollouts; {LACK}"),
    (lambda rows, last: [*rows, rows[-1]], "has 33 rollouts in seed 2", "have 1 too many; remove what is too much, or"),
    (
        lambda rows, last: [*rows[: len(rows) // 3 - 2], *rows[len(rows) // 3 :], *rows[-3:]],
        "has 30 rollouts in seed 0",
        "lack 2 rollouts and have 3 too many; add what is missing and remove what is too much, or",
    ),
]


@pytest.mark.parametrize(("change", "message", "lacking"), INCOMPLETE)
def test_an_incomplete_set_is_refused_with_its_first_gap_or_scored_and_not_comparable(
    change: Change, message: str, lacking: str, small_split: Split, tmp_path: Path
) -> None:
    last = small_split.items[-1].item_id
    path = write(tmp_path / "rows.jsonl", change(of_items(small_split), last))
    with pytest.raises(DataError) as caught:
        score_rollouts([path], small_split, tmp_path / "run")
    told = str(caught.value)
    assert told.startswith(f"item {last!r} {message} where 32 are needed")
    assert f", which {lacking}" in told
    assert "--partial" in told
    assert [path for path in (tmp_path / "run").rglob("*") if path.name != ".lock"] == []

    result = score_rollouts([path], small_split, tmp_path / "run", partial=True)
    assert not result.comparable
    assert "--partial" in (result.why_not_comparable or "")
    assert result.conversion.gain is None
    there = sum(group.items for group in result.groups.values())
    assert there == len(small_split.items) - ("has 0" in message)


def test_the_first_gap_is_the_splits_first_and_all_gaps_are_counted(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {item.item_id for item in small_split.items[10:15]}
    path = write(tmp_path / "rows.jsonl", [row for row in of_items(small_split) if row["item_id"] not in gone])
    assert run(["score", str(path), "--split", str(small_split.path), "--out", str(tmp_path / "run")]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert f"item {small_split.items[10].item_id!r}" in told.err
    assert f"the first of 15 such places of {3 * len(small_split.items)}, which lack 480 rollouts" in told.err


def test_twins_and_canaries_count_only_when_all_are_there(small_split: Split, tmp_path: Path) -> None:
    rows = of_items(small_split)
    alone = score_rollouts([write(tmp_path / "alone.jsonl", rows)], small_split, tmp_path / "alone")
    assert alone.canaries.converted is None
    owners = set(small_split.ids("unlearnable"))
    twins = [twin for twin in small_split.twins if twin.item_id in owners]
    more = [(twin.twin_id, twin.answer) for twin in twins]
    more += [(canary.item_id, canary.answer) for canary in small_split.canaries]
    rows += [
        {"item_id": name, "seed": seed, "completion": text}
        for name, answer in more
        for seed in range(3)
        for text in texts(answer, 32, 30)
    ]
    result = score_rollouts([write(tmp_path / "all.jsonl", rows)], small_split, tmp_path / "all")
    assert result.canaries.converted == len(small_split.canaries)
    assert counted(tmp_path / "all")[twins[0].twin_id, "twin", "0"] == (32, 30)
    wanted = next(twin.twin_id for twin in twins if twin.twin_id in {of[0] for of in small_split.problems("twin")})
    lacking = [row for row in rows if row["item_id"] != wanted]
    with pytest.raises(DataError, match=f"^twin {wanted!r} has 0 rollouts in seed 0"):
        score_rollouts([write(tmp_path / "gap.jsonl", lacking)], small_split, tmp_path / "gap")


def test_a_partial_score_takes_a_few_rollouts_of_one_twin(small_split: Split, tmp_path: Path) -> None:
    twin = next(problem for problem in small_split.problems("twin"))
    rows = [*of_items(small_split), {"item_id": twin[0], "seed": 1, "completion": twin[2]}]
    folder = tmp_path / "run"
    result = score_rollouts([write(tmp_path / "few.jsonl", rows)], small_split, folder, partial=True)
    core = result.groups["unlearnable"]
    assert core.solved is not None and (core.with_probe, core.converted) == (0, None)
    assert counted(folder)[twin[0], "twin", "1"] == (1, 0)
    assert (folder / "report.html").is_file()


def test_a_seed_for_every_sample_is_taken_for_the_mistake_that_it_is(small_split: Split, tmp_path: Path) -> None:
    rows = [{"item_id": small_split.items[0].item_id, "completion": "x", "seed": k} for k in range(200)]
    with pytest.raises(DataError, match="row 101, field 'seed': 100 is one more than 100 different seeds"):
        score_rollouts([write(tmp_path / "rows.jsonl", rows)], small_split, tmp_path / "run", partial=True)


def test_a_folder_takes_the_same_rollouts_again_and_no_others(small_split: Split, tmp_path: Path) -> None:
    rows = of_items(small_split)
    one, two = write(tmp_path / "one.jsonl", rows[:2000]), write(tmp_path / "two.jsonl", rows[2000:])
    out = tmp_path / "run"
    first = score_rollouts([one, two], small_split, out)
    # As a kill leaves it: the result gone, half a file in the making.
    (out / "result.json").unlink()
    (out / ".scoring").mkdir()
    (out / ".scoring/0.items.parquet").write_bytes(b"PAR1")
    assert score_rollouts([two, one], small_split, out) == first
    assert not (out / ".scoring").exists()
    other = write(tmp_path / "other.jsonl", rows[::-1])
    with pytest.raises(RunError, match=r"holds another run .*not of these rollouts.*--out"):
        score_rollouts([other], small_split, out)
    (out / "result.json").unlink()
    with pytest.raises(RunError, match=r"config.json is not of these rollouts"):
        score_rollouts([other], small_split, out)


def test_a_run_of_eval_is_never_written_over(small_split: Split, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", of_items(small_split))
    score_rollouts([path], small_split, tmp_path / "run")
    told = json.loads((tmp_path / "run/result.json").read_text())
    for folder in (tmp_path / "evaluated", tmp_path / "begun"):
        folder.mkdir()
    (tmp_path / "evaluated/result.json").write_text(json.dumps({**told, "kind": "eval"}))
    (tmp_path / "begun/1").mkdir()
    (tmp_path / "begun/1/config.json").write_text(json.dumps({"split": "small", "method": "grpo"}))
    for name in ("evaluated", "begun"):
        before = sorted((tmp_path / name).rglob("*.json"))
        with pytest.raises(RunError, match="holds another run"):
            score_rollouts([path], small_split, tmp_path / name)
        assert sorted((tmp_path / name).rglob("*.json")) == before


def test_a_verifier_that_fails_stops_the_command(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = of_items(small_split)
    rows[40] = {**rows[40], "completion": "\\boxed{\\frac{x}{2} + \\sqrt{3}}"}  # nothing quick decides this one
    path = write(tmp_path / "rows.jsonl", rows)
    monkeypatch.setattr(sys, "executable", "/bin/false")  # its workers cannot start
    with pytest.raises(VerifierError, match=r"rows.jsonl, row 41: the verifier failed twice"):
        score_rollouts([path], small_split, tmp_path / "run")
    assert not (tmp_path / "run/result.json").exists()


def test_ungradable_rollouts_are_wrong_stay_in_n_and_are_counted(small_split: Split, tmp_path: Path) -> None:
    rows = of_items(small_split)
    for place in (0, 1, 2):
        rows[place] = {**rows[place], "completion": "\\boxed{" + "9" * 5000 + "}"}
    result = score_rollouts([write(tmp_path / "rows.jsonl", rows)], small_split, tmp_path / "run")
    assert result.cost.ungradable == 3
    assert counted(tmp_path / "run")[small_split.items[0].item_id, "eval", "0"] == (32, 0)


def test_many_seeds_at_once_are_written_whole_however_little_may_wait(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "WAITING", 20_000)
    monkeypatch.setattr(scoring, "ROW_GROUP", 100)
    monkeypatch.setattr(streams, "BLOCK", 20_000)
    rows = of_items(small_split, range(5))
    random.Random(2).shuffle(rows)
    score_rollouts([write(tmp_path / "rows.jsonl", rows)], small_split, tmp_path / "run")
    for seed in range(5):
        table = read_parquet(tmp_path / f"run/{seed}/evaluation/items.parquet")
        expected = [(row["item_id"], row["completion"]) for row in rows if row["seed"] == seed]
        assert list(zip(table["item_id"].to_pylist(), table["completion"].to_pylist(), strict=True)) == expected
        assert np.array_equal(
            np.sort(table["sample"].to_numpy()), np.repeat(np.arange(32), len(small_split.items)).astype(np.int32)
        )


def test_a_name_with_markup_is_shown_as_it_is(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = score_rollouts([write(tmp_path / "rows.jsonl", of_items(small_split))], small_split, tmp_path / "run")
    named = result.method.model_copy(update={"name": "[bold]x[/nope]:smile:<b>\x1b[31m\u202e"})
    show(result.model_copy(update={"method": named}))
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("[bold]x[/nope]:smile:<b>\\u{1b}[31m\\u{202e}") == 1
    assert not {"\x1b", "\u202e"} & set(shown)


def test_a_wrong_command_line_is_status_2_and_bad_data_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.txt").touch()
    for words, status in (
        (("--out", "x"), 2),
        (("rows.txt", "--out", "x"), 2),
        (("rows.jsonl",), 2),
        (("rows.jsonl", "--out", "x"), 1),
        (("rows.jsonl", "--out", "x", "--split", "nothing"), 1),
    ):
        assert run(["score", *words]) == status
        told = capsys.readouterr()
        assert told.out == ""
        assert "Traceback" not in told.err
