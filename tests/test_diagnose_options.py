"""What `diagnose` may be asked: policies, options and the command, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unlearnbench
from unlearnbench.cli.main import run
from unlearnbench.diagnosis.inputs import with_gradients
from unlearnbench.diagnosis.options import Options
from unlearnbench.errors import PolicyError, RunError
from unlearnbench.harness.policy_ref import fingerprint, resolve
from unlearnbench.splits import Split

OPTIONS: dict[str, Any] = {"rollouts_per_item": 8, "cap": 400, "items_per_group": 6}


def test_all_that_decides_what_a_policy_computes_tells_it_from_others(small_split: Split, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(small_split.policy_path, folder)
    assert fingerprint(folder) == fingerprint(small_split.policy_path)
    (folder / "README.md").write_text("words")
    assert fingerprint(folder) == fingerprint(small_split.policy_path)
    seen = {fingerprint(folder)}
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text() + " ")
        seen.add(fingerprint(folder))
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert len(seen | {fingerprint(folder)}) == 6


def test_items_lost_to_their_gradient_keep_their_counts() -> None:
    inner = np.diag([1.0, 1.0, 0.0, 0.0, np.nan, 1.0])
    sampled = {"a": 1, "b": 40, "c": 0}
    used = [{"item_id": name, "group": "easy", "found": 20, "sampled": count} for name, count in sampled.items()]
    kept, lost = with_gradients([inner], used, 2)
    assert kept == [0]
    assert [(row.item_id, row.found, row.sampled, row.reason) for row in lost] == [
        ("b", 20, 40, "its gradient is 0"),
        ("c", 20, 0, "its gradient is not finite"),
    ]


def test_unknown_targets_name_what_is_there_and_the_folder_stays_free(small_split: Split, tmp_path: Path) -> None:
    where = {"out": tmp_path / "out", "workers": 1, **OPTIONS}
    with pytest.raises(PolicyError, match=r"no module named nope that an adapter fits; it has .*q_proj"):
        unlearnbench.diagnose(small_split.policy_path, small_split, targets=("nope",), **where)
    with pytest.raises(PolicyError, match="no weights whose name holds nope"):
        unlearnbench.diagnose(small_split.policy_path, small_split, parameters="nope", **where)
    done = unlearnbench.diagnose(small_split.policy_path, small_split, groups=("easy",), targets=["o_proj"], **where)
    assert done.record.options["targets"] == ["o_proj"]


def test_a_run_means_the_checkpoint_of_each_seed(tmp_path: Path) -> None:
    for seed in (1, 2):
        folder = tmp_path / "run" / str(seed) / "checkpoint"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
    assert [place.label for place in resolve(tmp_path / "run")] == ["run/1", "run/2"]
    assert [place.source for place in resolve(tmp_path / "run" / "2")] == [tmp_path / "run" / "2" / "checkpoint"]
    assert [place.label for place in resolve(tmp_path / "run" / "1" / "checkpoint")] == ["run/1"]
    assert [place.label for place in resolve("micro")] == ["micro-base"]
    assert resolve("owner/name")[0].source == "owner/name"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--parts", "3"], 2, "do not divide into 3 equal parts"),
        (["--parameters", "all", "--rank", "4"], 2, "those of parameters lora"),
        (["--max-memory", "much"], 2, "is not a size"),
        (["--entropy-share", "0"], 2, "entropy-share"),
        (["--groups", "easy,easy"], 2, "not a list of different names"),
        (["--groups", "nobody"], 1, "has no items of group nobody; it has"),
        (["--split", "nowhere"], 1, "there is no split 'nowhere'"),
        (["--rollouts", "nowhere.jsonl"], 1, "there is no file nowhere.jsonl"),
    ],
)
def test_a_wrong_word_is_one_sentence(
    words: list[str], status: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["diagnose", "micro", "--out", str(tmp_path), *words]) == status
    error = capsys.readouterr().err
    assert told in error.replace("\n", " ") and "Traceback" not in error


def test_options_state_what_they_cannot_be() -> None:
    with pytest.raises(RunError, match="cap is 0; it must be at least 1"):
        Options(cap=0)
