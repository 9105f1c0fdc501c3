"""From a split to another trainer and back: ten steps of a real GRPOTrainer on micro, its own logs scored and drawn."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from unlearnbench.adapters import trl, verl
from unlearnbench.cli.main import run
from unlearnbench.harness.rollouts.curves import StepCurves
from unlearnbench.records import Result
from unlearnbench.splits import load_split

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None, reason="TRL is not installed (pip install unlearnbench[trl])"
    ),
    pytest.mark.filterwarnings("default"),
]

STEPS, PROMPTS, GENERATIONS = 10, 40, 8
Row = dict[str, Any]
Curves = dict[tuple[int, str], tuple[int, int, float]]
"""By step and group: items, rollouts, and the mean over items of the share of their rollouts that is right."""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of completions_*.parquet that TRL writes while it trains on the exported data with our reward."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from datasets import load_dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer

    folder = tmp_path_factory.mktemp("trl")
    assert run(["export", "--split", "micro", "--format", "trl", "--out", str(folder / "data")]) == 0
    policy = str(load_split("micro").policy_path)
    settings = GRPOConfig(
        output_dir=str(folder / "run"),
        max_steps=STEPS,
        per_device_train_batch_size=PROMPTS * GENERATIONS,
        num_generations=GENERATIONS,
        steps_per_generation=1,
        max_completion_length=20,
        learning_rate=1e-4,
        beta=0.0,
        logging_steps=1,
        log_completions=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=1,
    )
    GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        reward_funcs=trl.reward,
        args=settings,
        train_dataset=load_dataset(str(folder / "data"), split="train", cache_dir=str(folder / "cache")),
        processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
    ).train()
    return folder / "run" / "completions"


def logged(logs: Path) -> list[Row]:
    return [row for path in sorted(logs.iterdir()) for row in pq.read_table(path).to_pylist()]


def by_hand(rows: Iterable[Row]) -> Curves:
    """What the curves must be, from the rewards that TRL logged."""
    groups = {item.item_id: str(item.group) for item in load_split("micro").items}
    paid: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        paid[row["step"], groups[row["item_id"]]][row["item_id"]].append(row["reward"])
    return {
        place: (len(items), sum(map(len, items.values())), sum(sum(x) / len(x) for x in items.values()) / len(items))
        for place, items in paid.items()
    }


def drawn(files: Iterable[Path], out: Path) -> Curves:
    """What `score` makes of the files."""
    assert run(["score", *map(str, files), "--split", "micro", "--out", str(out)]) == 0
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    found = StepCurves.model_validate_json((out / "curves.json").read_text(encoding="utf-8"))
    return {(point.step, point.group): (point.items, point.rollouts, point.rate) for point in found.points}


def same(found: Curves, expected: Curves) -> bool:
    return found.keys() == expected.keys() and all(found[key] == pytest.approx(expected[key]) for key in expected)


def test_the_logs_of_trl_are_drawn_and_scored_as_they_are(logs: Path, tmp_path: Path) -> None:
    rows = logged(logs)
    assert len(rows) == STEPS * PROMPTS * GENERATIONS
    assert {row["step"] for row in rows} == set(range(1, STEPS + 1))
    expected = by_hand(rows)
    assert {group for _, group in expected} >= {"easy", "learnable", "unlearnable"}
    assert same(drawn(sorted(logs.iterdir()), tmp_path / "curves"), expected)

    words = ["score", *map(str, sorted(logs.iterdir())), "--split", "micro", "--step", str(STEPS), "--partial"]
    assert run([*words, "--out", str(tmp_path / "last")]) == 0
    result = Result.model_validate_json((tmp_path / "last" / "result.json").read_text(encoding="utf-8"))
    assert result.cost.verifier_calls == PROMPTS * GENERATIONS
    for group in ("easy", "learnable", "unlearnable"):
        if (STEPS, group) in expected:
            assert result.groups[group].rate_after == pytest.approx(expected[STEPS, group][2])


def test_the_same_rollouts_dumped_as_verl_does_give_the_same_curves(logs: Path, tmp_path: Path) -> None:
    """Rows of `export --format verl`, rewarded by our function, in the lines that verl's trainer dumps at a step."""
    assert run(["export", "--split", "micro", "--format", "verl", "--out", str(tmp_path / "data")]) == 0
    (path,) = tmp_path.glob("data/**/*.parquet")
    data = {row["extra_info"]["item_id"]: row for row in pq.read_table(path).to_pylist()}
    lines: dict[int, list[Row]] = defaultdict(list)
    rows = logged(logs)
    for row in rows:
        item = data[row["item_id"]]
        gold = item["reward_model"]["ground_truth"]
        reward = verl.compute_score(item["data_source"], row["completion"], gold, item["extra_info"])
        assert reward["score"] == row["reward"]
        asked = f"user\n{item['prompt'][0]['content']}\nassistant\n"
        lines[row["step"]].append(
            {"input": asked, "output": row["completion"], "gts": gold, "step": row["step"], **reward}
        )
    (tmp_path / "dump").mkdir()
    for step, content in lines.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content)
        (tmp_path / "dump" / f"{step}.jsonl").write_text(text, encoding="utf-8")
    assert same(drawn(sorted((tmp_path / "dump").iterdir()), tmp_path / "curves"), by_hand(rows))
