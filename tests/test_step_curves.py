"""Success by group over training steps, from what trainers log: counted, drawn, and never mixed into one score."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unlearnbench.adapters import verl
from unlearnbench.adapters.export import export
from unlearnbench.cli.main import run
from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.harness.rollouts.curves import StepCurves, step_curves
from unlearnbench.harness.rollouts.files import Reading, SeveralSteps
from unlearnbench.harness.rollouts.score import score_rollouts
from unlearnbench.io import tables
from unlearnbench.splits import Split

Row = dict[str, Any]
RIGHT = {"easy": 4, "learnable": 2, "unlearnable": 0}
"""Correct rollouts of 4 at the first step; each later step has one more, up to 4."""


def rows(split: Split, steps: Iterable[int], groups: Iterable[str] = RIGHT) -> list[Row]:
    """Four rollouts of every item of some groups at every step, as a trainer logs them."""
    return [
        {
            "step": step,
            "prompt": item.prompt,
            "completion": _text(item.answer, place < _right(group, step)),
            "reward": 0.0,
        }
        for step in steps
        for group in groups
        for item in split.items
        if item.group == group
        for place in range(4)
    ]


def _right(group: str, step: int) -> int:
    return min(4, RIGHT[group] + (step - 1 if group != "unlearnable" else 0))


def _text(answer: str, right: bool) -> str:
    return f"so \\boxed{{{answer}}}" if right else "\\boxed{-1}"


def parquet(path: Path, content: list[Row]) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(content), path)
    return path


def test_the_rates_of_each_group_at_each_step(tiny: Split, tmp_path: Path) -> None:
    """As TRL writes them: a file a step, no ids, the prompt as text."""
    files = [parquet(tmp_path / f"completions/completions_{k:05}.parquet", rows(tiny, [k])) for k in (1, 2, 3)]
    found = step_curves(files, tiny, tmp_path / "out")
    rates = {(point.group, point.step): point.rate for point in found.points}
    assert rates == {(group, step): _right(group, step) / 4 for group in RIGHT for step in (1, 2, 3)}
    assert {(point.items, point.rollouts, point.seed) for point in found.points} == {(2, 8, 0)}
    assert tables.read_json_record(tmp_path / "out/curves.json", StepCurves) == found
    with (tmp_path / "out/curves.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [(row["group"], int(row["step"]), float(row["rate"])) for row in read] == [
        (point.group, point.step, point.rate) for point in found.points
    ]
    assert (tmp_path / "out/curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SeveralSteps, match=r"completions_00002.parquet: .* several steps .*\(1, 2\).*--step N"):
        score_rollouts(files, tiny, tmp_path / "scored", partial=True)
    scored = score_rollouts(files, tiny, tmp_path / "scored", partial=True, reading=Reading(step=2))
    assert scored.groups["learnable"].rate_after == 0.75
    assert scored.cost.verifier_calls == 24
    with pytest.raises(RunError, match="holds another run"):
        score_rollouts(files, tiny, tmp_path / "scored", partial=True, reading=Reading(step=3))


def test_one_file_may_hold_all_steps_in_any_order(tiny: Split, tmp_path: Path) -> None:
    content = rows(tiny, [1, 2, 3])
    one = step_curves([parquet(tmp_path / "one/all.parquet", content[::-1])], tiny, tmp_path / "a")
    two = step_curves([parquet(tmp_path / "one/other.parquet", content)], tiny, tmp_path / "b")
    assert one.points == two.points
    with pytest.raises(RunError, match=r"curves.json is of other rollouts"):
        step_curves([tmp_path / "one/other.parquet"], tiny, tmp_path / "a")
    assert step_curves([tmp_path / "one/all.parquet"], tiny, tmp_path / "a") == one


def test_seeds_are_lines_of_their_own_and_items_are_weighted_alike(tiny: Split, tmp_path: Path) -> None:
    item, other = (item for item in tiny.items if item.group == "easy")
    content = [
        {"step": 1, "seed": seed, "item_id": name, "completion": _text(answer, right)}
        for seed in (3, 4)
        for name, answer, right in [
            *((item.item_id, item.answer, True) for _ in range(9)),
            (other.item_id, other.answer, seed == 3),
        ]
    ]
    content.append({"step": 1, "seed": 3, "item_id": tiny.twins[0].twin_id, "completion": "x"})
    found = step_curves([parquet(tmp_path / "log/a.parquet", content)], tiny, tmp_path / "out")
    assert [(point.seed, point.items, point.rollouts, point.rate) for point in found.points] == [
        (3, 2, 10, 1.0),
        (4, 2, 10, 0.5),
    ]
    assert found.left_out == 1


def test_the_dump_of_verl_leads_back_to_the_items(tiny: Split, tmp_path: Path) -> None:
    """Rows of the exported data, rewarded by our function, dumped as `_dump_generations` of verl does."""
    data = pq.read_table(export(tiny, "verl", tmp_path / "data")).to_pylist()
    for step in (1, 2):
        lines = []
        for row in data:
            gold, said = row["reward_model"]["ground_truth"], _text(row["reward_model"]["ground_truth"], step == 2)
            reward = verl.compute_score(row["data_source"], said, gold, row["extra_info"])
            asked = f"user\n{row['prompt'][0]['content']}\nassistant\n"
            more = {name: value for name, value in reward.items() if name != "score"}
            lines.append({"input": asked, "output": said, "gts": gold, "score": reward["score"], "step": step, **more})
        (tmp_path / f"{step}.jsonl").write_text(
            "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n"
        )
    files = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    found = step_curves(files, tiny, tmp_path / "out")
    assert {(point.step, point.rate) for point in found.points} == {(1, 0.0), (2, 1.0)}
    assert {point.group for point in found.points} == {item.group for item in tiny.items}
    scored = score_rollouts(files, tiny, tmp_path / "scored", reading=Reading(step=2))
    assert scored.samples == 1
    for file in files:  # without the ids the prompts say the same
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "item_id"}) + "\n" for line in lines))
    assert step_curves(files, tiny, tmp_path / "other").points == found.points


def test_the_command_draws_several_steps_and_scores_one(
    tiny: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = str(parquet(tmp_path / "log/all.parquet", rows(tiny, range(1, 31))))
    words = ["score", log, "--split", str(tiny.path)]
    assert run([*words, "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "100.0 % (2)" in printed.out
    assert "12 of 30 steps; all of them are in" in printed.out
    assert run([*words, "--out", str(tmp_path / "b"), "--json"]) == 0
    assert StepCurves.model_validate_json(capsys.readouterr().out).points
    assert run([*words, "--out", str(tmp_path / "c"), "--step", "3", "--partial", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "score"
    assert run([*words, "--out", str(tmp_path / "d"), "--step", "77"]) == 1
    assert "no rollout is of step 77; there are those of 1 to 30" in capsys.readouterr().err
    assert run([*words, "--out", str(tmp_path / "d"), "--column", "nonsense"]) == 2
    assert "is not NAME=COLUMN with a NAME of item_id, prompt" in " ".join(capsys.readouterr().err.split())


def test_what_has_no_step_or_no_label_is_refused(tiny: Split, tmp_path: Path) -> None:
    content = rows(tiny, [1, 2])
    content[3]["step"] = None
    with pytest.raises(DataError, match=r"all.parquet, row 4: it has no step"):
        step_curves([parquet(tmp_path / "log/all.parquet", content)], tiny, tmp_path / "out")
    content[3]["step"], content[5]["prompt"] = 1, "who?"
    with pytest.raises(
        DataError, match=r"row 6: it has no item_id, and its prompt 'who\?' is that of no problem alone"
    ):
        step_curves([parquet(tmp_path / "log/other.parquet", content)], tiny, tmp_path / "out")
    bare = [item.model_copy(update={"group": None, "certified": None}) for item in tiny.items]
    from tiny import make

    unlabelled = make(tmp_path / "bare", items=bare)
    for command in (score_rollouts, step_curves):
        with pytest.raises(
            SplitError, match="split tiny has no labels, so its rollouts cannot be scored; label it with"
        ):
            command([tmp_path / "nothing.parquet"], unlabelled, tmp_path / "none")
    assert not (tmp_path / "none").exists()
