"""Gold answers as data sets hold them: what is read, what is refused by name, and golds that nothing else matches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from unlearnbench.adapters import trl, verl
from unlearnbench.curation.validate import inspect
from unlearnbench.errors import DataError
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier, gold_texts, ungradable, verify, verify_golds

READ = [
    ("17", ("17",)),
    (" 17 ", ("17",)),
    (17, ("17",)),
    (-2.5, ("-2.5",)),
    (True, ("True",)),
    (b"17", ("17",)),
    (np.int64(17), ("17",)),
    (np.float32(0.5), ("0.5",)),
    (np.array(["1/2", "0.5"]), ("1/2", "0.5")),
    (np.array("17"), ("17",)),
    (pa.scalar("17"), ("17",)),
    (["17"], ("17",)),
    (["17", "18", "17"], ("17", "18")),
    ([["17"], ["18"]], ("17", "18")),
    (("17", 18), ("17", "18")),
    ("15 + 3 = 18\n#### 18", ("18",)),
    ("#### 1,200", ("1,200",)),
    ('["34"]', ("34",)),
    ("['34', '35']", ("34", "35")),
    ("[1, 2]", ("[1, 2]",)),
    ("[1,2)", ("[1,2)",)),
]


@pytest.mark.parametrize(("value", "texts"), READ)
def test_what_is_meant_is_read(value: object, texts: tuple[str, ...]) -> None:
    assert gold_texts(value, "item 'a'") == texts


@pytest.mark.parametrize(
    "value", [None, "", "  ", [], [[]], [None], {}, {"answer": "17"}, float("nan"), "18 ####", object]
)
def test_what_is_no_answer_is_refused_by_name(value: object) -> None:
    with pytest.raises(DataError, match="the gold answer of item 'a' is") as error:
        gold_texts(value, "item 'a'")
    assert "\n" not in str(error.value)


def test_any_gold_of_a_list_is_right() -> None:
    golds = [("17", "18"), ("17", "18"), ("x+1",)]
    verdicts = verify_golds(golds, ["\\boxed{18}", "\\boxed{19}", "\\boxed{1+x}"])
    assert [(verdict.correct, verdict.reason) for verdict in verdicts] == [
        (True, "match"),
        (False, "mismatch"),
        (True, "match"),
    ]


@pytest.mark.parametrize("gold", [["17"], np.array(["17"]), 17, "9 + 8 = 17\n#### 17", '["17"]'])
def test_rewards_of_golds_that_are_no_text(gold: Any) -> None:
    texts = ["\\boxed{17}", "\\boxed{18}"]
    assert trl.reward(["?"] * 2, texts, answer=[gold, gold]) == [1.0, 0.0]
    assert [verl.compute_score("any", text, gold, {"index": 3})["score"] for text in texts] == [1.0, 0.0]


def test_a_gold_that_is_no_answer_names_the_item() -> None:
    with pytest.raises(DataError, match="of m7 is None"):
        trl.reward(["?"] * 2, ["x"] * 2, answer=["17", None], item_id=["m6", "m7"])
    with pytest.raises(DataError, match="of row 2 of the batch is None"):
        trl.reward(["?"] * 2, ["x"] * 2, answer=["17", None])
    with pytest.raises(DataError, match="of item 'm7' of gsm is of type dict"):
        verl.compute_score("gsm", "\\boxed{17}", {"target": "17"}, {"item_id": "m7"})


PROSE = "Every prime number that leaves the remainder one when it is divided by four works"


def test_golds_that_only_their_own_text_can_match() -> None:
    golds = ["17", "\\frac{1}{2}", "Thursday", "(1,2)", "\\text{no solution}", "x+1", "k\\pi, k\\in\\mathbb{Z}"]
    lost = ["\\frac{1}{0}", "\\foo(3)", "2 + + ?", PROSE, "9" * 500]
    with Verifier() as verifier:
        found = ungradable([*golds, *lost, *lost], verifier)
    assert list(found) == lost
    assert found[PROSE] == "it is prose of 15 words" and "too large" in found["9" * 500]
    assert all(verify(gold, f"\\boxed{{{gold}}}").correct for gold in lost[:4])  # by their own text, they match


def test_they_are_reported_before_anything_is_trained(tiny: Split) -> None:
    from unlearnbench.cli.splits import splits
    from unlearnbench.splits import write_split

    assert inspect(tiny.path).ungradable == []
    items = list(tiny.items)
    items[0] = items[0].model_copy(update={"answer": "\\foo(3)", "solution": ""})
    config = tiny.config.model_copy(update={"files": {}})
    changed = write_split(tiny.path, config, items, twins=list(tiny.twins), canaries=list(tiny.canaries))
    (sentence,) = inspect(changed.path).ungradable
    for part in (
        "items.parquet, row 1, field 'answer'",
        repr("\\foo(3)"),
        repr(items[0].item_id),
        "leave the item out",
    ):
        assert part in sentence
    shown = CliRunner().invoke(splits, ["validate", str(changed.path)])
    assert f"warning: {sentence}" in shown.output


def test_check_warns_of_them(small_split: Split, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    from unlearnbench.splits import write_split

    folder = Path(shutil.copytree(small_split.path, tmp_path / "copy"))
    first, *others = small_split.items
    config = small_split.config.model_copy(update={"files": {}})
    lost = first.model_copy(update={"answer": "\\foo(3)", "solution": ""})
    write_split(folder, config, [lost, *others], twins=list(small_split.twins), canaries=list(small_split.canaries))
    status, printed, told = cli("check", "grpo", "--split", folder)
    assert status == 0 and printed.startswith("Grpo")
    assert "warning: " in told and repr(lost.answer) in told and repr(lost.item_id) in told


def test_the_rows_that_sympy_judged_are_named(tmp_path: Path) -> None:
    from unlearnbench.cli.verify import verify as command

    source = tmp_path / "rows.jsonl"
    source.write_text(
        '{"gold": "17", "completion": "\\\\boxed{17}"}\n'
        '{"gold": "\\\\frac12", "completion": "\\\\boxed{\\\\int_0^1 x\\\\,dx}"}\n'
        '{"gold": "2x", "completion": "\\\\boxed{x+x}"}\n',
        encoding="utf-8",
    )
    done = CliRunner().invoke(command, ["--file", str(source), "--out", str(tmp_path / "out.jsonl")])
    assert done.output.splitlines()[-2:] == [
        f"{tmp_path / 'out.jsonl'}: 3 rows: 3 match",
        "sympy judged 1 of them, which is slow: row 2",
    ]
