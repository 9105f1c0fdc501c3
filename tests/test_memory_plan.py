"""The memory that `diagnose` says it takes: refused before it starts, or kept to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unlearnbench
from unlearnbench.errors import RunError
from unlearnbench.splits import Split


def test_too_little_memory_is_said_before_it_starts(small_split: Split, tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"takes 1 process about .* in all, beyond the 400.0 MiB of --max-memory; raise it"
    ):
        unlearnbench.diagnose(small_split.policy_path, small_split, out=tmp_path, max_memory=400 << 20)
    assert not list(tmp_path.rglob("gathered/*")), "nothing was sampled"


@pytest.mark.slow
def test_long_rollouts_keep_to_the_plan(small_split: Split, tmp_path: Path) -> None:
    """Two rollouts of 6,000 tokens in one part: in one pass they would take more than they may."""
    config = json.loads((small_split.policy_path / "config.json").read_text())
    shape = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "max_position_embeddings": 8192}
    code = f"""
import json, random
from unlearnbench.diagnosis.diagnose import diagnose
from transformers import Qwen2Config, Qwen2ForCausalLM
from unlearnbench.errors import RunError
shape = dict({shape!r}, num_attention_heads=4, num_key_value_heads=2, vocab_size={config["vocab_size"]})
Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=True)).save_pretrained("policy")
draw = random.Random(0)
with open("given.jsonl", "w") as file:
    for name, length in (("a", 6000), ("b", 10)):
        for _ in range(2):
            tokens = draw.choices(range(4, {config["vocab_size"]}), k=length)
            print(json.dumps(dict(item_id=name, prompt="1+1", token_ids=tokens, correct=True)), file=file)
options = dict(rollouts="given.jsonl", out="out", rollouts_per_item=2, parts=1, workers=1)
plans = []
try:
    diagnose("policy", max_memory=650 << 20, **options)
except RunError as problem:
    print(problem)
diagnose("policy", max_memory=740 << 20, planned=plans.append, **options)
# Not ru_maxrss, which a process inherits from the one that started it.
peak = open("/proc/self/status").read().split("VmHWM:")[1]
print(json.dumps(dict(plans[0].model_dump(), peak=1024 * int(peak.split()[0]))))
"""
    for path in small_split.policy_path.glob("tokenizer*"):
        (tmp_path / "policy").mkdir(exist_ok=True)
        shutil.copyfile(path, tmp_path / "policy" / path.name)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(unlearnbench.__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    refused, told = done.stdout.splitlines()
    assert refused.startswith("the longest rollout, 6,00")
    assert refused.endswith("beyond the 650.0 MiB of --max-memory; raise it")
    plan = json.loads(told)
    assert plan["divided"] == 1 and 6000 < plan["longest"] <= plan["tokens_per_pass"] < 12000
    assert plan["peak"] <= plan["total"] <= 740 << 20
