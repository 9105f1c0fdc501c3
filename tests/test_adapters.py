"""Our verifier as the reward of other trainers: what they call it with, and a real GRPOTrainer that is paid by it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from unlearnbench.adapters import trl, verl
from unlearnbench.adapters.export import export
from unlearnbench.errors import DataError, VerifierError
from unlearnbench.records import Verdict
from unlearnbench.splits import load_split
from unlearnbench.verifier import verifier, verify

GOLDS = ["1/2", "7", "7", "7"]
TEXTS = ["so \\boxed{0.5}", "\\boxed{8}", "it is 7", "\\boxed{8}, no: \\boxed{7}"]
RIGHT = [1.0, 0.0, 0.0, 1.0]


class Broken(verifier.Verifier):
    """A verifier that fails, as it does where no process can be started."""

    def verify_many(self, pairs: Any) -> list[Verdict]:
        return [Verdict(None, None, "verifier_error") for _ in pairs]


def test_rewards_of_texts_and_of_chats() -> None:
    prompts = ["?"] * 4
    assert (
        trl.reward(prompts=prompts, completions=TEXTS, answer=GOLDS, trainer_state=None, item_id=list("abcd")) == RIGHT
    )
    chats = [[{"role": "assistant", "content": text}] for text in TEXTS]
    assert trl.reward(prompts, chats, answer=GOLDS) == RIGHT
    parts = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in TEXTS]
    assert trl.reward(prompts, parts, answer=GOLDS) == RIGHT


def test_the_last_turn_of_the_assistant_counts() -> None:
    turns = [
        {"role": "assistant", "content": "\\boxed{7}"},
        {"role": "tool", "content": "\\boxed{7}"},
        {"role": "assistant", "content": "\\boxed{8}"},
    ]
    assert trl.reward(["?"], [turns], answer=["7"]) == [0.0]
    assert trl.reward(["?"], [[{"role": "user", "content": "\\boxed{7}"}]], answer=["7"]) == [0.0]
    assert trl.reward(["?"], [[{"role": "assistant", "content": None}]], answer=["7"]) == [0.0]


def test_a_data_set_without_golds_is_named() -> None:
    with pytest.raises(DataError, match=r"no column 'answer'.*--format trl"):
        trl.reward(["?"], ["x"])
    with pytest.raises(DataError, match="2 completions and 1 gold"):
        trl.reward(["?"] * 2, ["x", "y"], answer=["1"])


def test_the_items_are_logged_beside_the_completions() -> None:
    logged: dict[str, list[Any]] = {}
    ids = list("abcd")
    assert trl.reward(["?"] * 4, TEXTS, answer=GOLDS, item_id=ids, log_extra=logged.__setitem__) == RIGHT
    assert logged == {"item_id": ids}
    assert trl.reward(["?"] * 4, TEXTS, answer=GOLDS, log_extra=logged.__setitem__) == RIGHT


def test_verl_scores() -> None:
    told = {"index": 0, "item_id": "a", "split": "train"}
    found = [
        verl.compute_score("unlearnbench/micro", text, gold, told) for text, gold in zip(TEXTS, GOLDS, strict=True)
    ]
    assert found == [{"score": right, "acc": right, "item_id": "a"} for right in RIGHT]
    # verl wants the same entries of every call, whatever the data set
    assert verl.compute_score(data_source="x", solution_str=TEXTS[0], ground_truth="1/2") == {
        "score": 1.0,
        "acc": 1.0,
        "item_id": "",
    }


def test_a_verifier_that_fails_pays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verifier._shared, "strict", Broken())
    assert trl.reward(["?"], ["\\boxed{7}"], answer=["7"]) == [None]
    with pytest.raises(VerifierError, match="failed twice on a completion of item 'm7'"):
        verl.compute_score("x", "\\boxed{7}", "7", {"item_id": "m7"})


def test_verl_loads_the_file_by_its_path_and_without_torch() -> None:
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("custom_module", {verl.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.compute_score("x", "\\\\boxed{{4}}", "4")["score"], "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "False"]


@pytest.mark.skipif(
    importlib.util.find_spec("trl") is None, reason="TRL is not installed (pip install unlearnbench[trl])"
)
@pytest.mark.filterwarnings("default")
def test_inside_a_grpo_trainer_of_trl(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from datasets import load_dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer

    split = load_split("micro")
    export(split, "trl", tmp_path / "data", part="easy")
    data = load_dataset(str(tmp_path / "data"), split="train", cache_dir=str(tmp_path / "cache"))
    policy = str(split.policy_path)
    seen: list[tuple[str, str, float]] = []

    def reward(prompts: list[str], completions: list[str], answer: list[str], **columns: Any) -> list[float | None]:
        rewards = trl.reward(prompts, completions, answer=answer, **columns)
        seen.extend(
            (gold, text, float(paid or 0)) for gold, text, paid in zip(answer, completions, rewards, strict=True)
        )
        return rewards

    settings = GRPOConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=6,  # 24 prompts: some have both right and wrong completions
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=20,
        learning_rate=1e-3,
        beta=0.0,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
    )
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=settings,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
    )
    trainer.train()

    logged = [row["rewards/reward/mean"] for row in trainer.state.log_history if "rewards/reward/mean" in row]
    paid = [sum(reward for _, _, reward in seen[k : k + 32]) / 32 for k in range(0, len(seen), 32)]
    assert len(seen) == 192
    assert logged == pytest.approx(paid, abs=1e-4)
    assert sum(paid) > 0, "the base policy solves easy items"
    assert all(verify(gold, text).correct == bool(reward) for gold, text, reward in seen)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_the_exported_verl_rows_can_be_scored(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = export(load_split("micro"), "verl", tmp_path)
    for row in pq.read_table(path).slice(0, 5).to_pylist():
        gold = row["reward_model"]["ground_truth"]
        assert verl.compute_score(row["data_source"], f"\\boxed{{{gold}}}", gold, row["extra_info"])["score"] == 1.0
        assert json.dumps(row["prompt"][0]["role"]) == '"user"'
