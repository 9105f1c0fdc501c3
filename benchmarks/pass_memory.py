"""Peak memory of one training pass with each option of `--trainer`, as the table in docs/guide/at-scale.md:

    python -m benchmarks.pass_memory

The policy is Qwen2's architecture with random weights, a vocabulary of 150,000 and few other weights; a pass is 4
sequences of 512 tokens, forward and backward, with entropies. Each row is a process of its own on one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

VOCABULARY, ROWS, LENGTH = 150_000, 4, 512
SHAPES = {
    "2 layers of 64": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2},
    "16 layers of 128": {"hidden_size": 128, "intermediate_size": 1024, "num_hidden_layers": 16},
}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"precision": "bf16"},
    {"logprob_chunk": 512},
    {"logprob_chunk": 128},
    {"gradient_checkpointing": True},
    {"logprob_chunk": 128, "gradient_checkpointing": True},
)


def measure(shape: dict[str, int], given: dict[str, Any]) -> dict[str, float]:
    """MiB before and at the peak, CPU seconds, and the norm of the gradient."""
    import numpy as np
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from unlearnbench.policies.activation_checkpointing import recompute_layers
    from unlearnbench.records import Rollout, Verdict
    from unlearnbench.training.batch import make_batch, token_logprobs
    from unlearnbench.training.options import trainer_options

    torch.set_num_threads(1)
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, tie_word_embeddings=True, **heads, **shape)).eval()
    options = trainer_options(given)
    if options.gradient_checkpointing:
        recompute_layers(model)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.int32)
    known = np.full(LENGTH - 4, -12.0, dtype=np.float32)
    rollouts = [
        Rollout("x", k, row[:4], row[4:], known, "", "stop", Verdict(True, None, "match"), 1.0)
        for k, row in enumerate(tokens)
    ]
    batch = make_batch(rollouts, [np.ones(LENGTH - 4)] * ROWS, "token_mean", torch.device("cpu"))
    before, began = _peak(), time.process_time()
    logprobs, entropy = token_logprobs(model, batch, 1.0, with_entropy=True, options=options)
    assert entropy is not None
    (batch.weights * (logprobs.exp() - logprobs - 0.01 * entropy)).sum().backward()  # type: ignore[no-untyped-call]
    seconds, peak = time.process_time() - began, _peak()
    norm = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]).norm()
    return {"before": before, "peak": peak, "seconds": seconds, "norm": float(norm)}


def _peak() -> float:
    """MiB that this process held at its peak (Linux)."""
    with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
        return
    print("| policy | options | MiB before | peak MiB | CPU s | norm of the gradient |\n|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        for given in OPTIONS:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.pass_memory", json.dumps([shape, given])],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                check=True,
            )
            found = json.loads(done.stdout)
            told = " ".join(f"{key}={value}" for key, value in given.items()) or "none"
            print(
                f"| {name} | {told} | {found['before']:,.0f} | {found['peak']:,.0f} | {found['seconds']:.1f} | "
                f"{found['norm']:.5f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
