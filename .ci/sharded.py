"""`eval` by two processes that share an adapted policy, one killed on the way, against one process that does neither.

LoRA, FSDP2, layers computed again and log-probabilities in chunks at once, on CPU over gloo. Each of some 20 updates
moves a weight by about the learning rate, 1e-3; they agree to 1e-4, since Adam divides rounding by rounding where a
gradient is next to nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import yaml
from safetensors.torch import load_file

from unlearnbench import evaluate
from unlearnbench.errors import RunError
from unlearnbench.policies.policy import load_policy
from unlearnbench.splits import find_split
from unlearnbench.training.ledger import read_metrics
from unlearnbench.training.options import TrainerOptions
from unlearnbench.workers.jobs import Compute

METHOD = """import os, pathlib
import unlearnbench as ub

class Killed(ub.Method):
    def on_step_end(self, step, metrics):
        once = pathlib.Path("once")  # in the folder that its processes may write to
        if step == 3 and os.environ.get("RANK") == "1" and not once.exists():
            once.write_text("")
            os.kill(os.getpid(), 9)
"""
LORA = {"lora": {"rank": 4, "alpha": 8.0}, "learning_rate": 1e-3, "checkpoint_every": 2, "prompts_per_step": 12}
SHARED = Compute(processes=2, trainer=TrainerOptions(shard="fsdp2", gradient_checkpointing=True, logprob_chunk=40))
STEPS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = Path(shutil.copytree(find_split("micro"), folder / "split"))
        stated = yaml.safe_load((split / "split.yaml").read_text())
        stated["recipe"]["steps"], stated["budget"] = STEPS, None  # without a budget the recipe's steps are done
        (split / "split.yaml").write_text(yaml.safe_dump(stated))
        method = folder / "killed.py"
        method.write_text(METHOD)
        two, one = folder / "two", folder / "one"
        try:
            evaluate(str(method), split, 1, samples=1, out=two, settings=LORA, compute=SHARED)
            sys.exit("the killed process was not missed")
        except RunError as problem:
            print(problem)
        evaluate(str(method), split, 1, samples=1, out=two, settings=LORA, compute=SHARED)
        result = evaluate(str(method), split, 1, samples=1, out=one, settings=LORA)
        ours, theirs = (read_metrics(place / "1") for place in (two, one))
        assert len(ours) == len(theirs) == STEPS, (len(ours), len(theirs))
        assert [line["flops"] for line in ours] == [line["flops"] for line in theirs]
        saved, expected = (load_file(place / "1/checkpoint/adapter_model.safetensors") for place in (two, one))
        worst = max(float((saved[key] - expected[key]).abs().max()) for key in expected)
        print(f"largest difference of an adapter's weight after {STEPS} steps: {worst:.2g}")
        assert saved.keys() == expected.keys() and worst < 1e-4
        assert json.loads((two / "1/environment.json").read_text())["trainer"]["shard"] == "fsdp2"
        cost = result.cost
        tokens = 2 * (cost.generated_tokens + cost.forward_tokens) + 6 * cost.trained_tokens
        assert cost.flops == tokens * load_policy(split / "policy").parameters


if __name__ == "__main__":
    main()
