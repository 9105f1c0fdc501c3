"""Peak memory: of `unlearnbench eval` over the length of training, or of one training pass per option of `--trainer`.

    python -m benchmarks.memory [eval] [--budgets 0.46 2.7] [--method grpo]
    python -m benchmarks.memory pass

`eval`: one seed per budget, about 100 and 1,000 steps of `micro` by default, four minutes on an idle core. Memory
should not grow with the number of steps. The peaks are the kernel's own high-water marks (VmHWM in /proc, so Linux
only) of every process of the command, read ten times a second until each ends: the command itself (which scores), its
training worker and its measuring worker.

`pass`: the table in docs/guide/at-scale.md. The policy is Qwen2's architecture with random weights, a vocabulary of
150,000 and few other weights; a pass is 4 sequences of 512 tokens, forward and backward, with entropies. Each row is
measured in a process of its own on one thread.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measurement import (
    ONE_THREAD,
    Target,
    described,
    high_water,
    in_fresh_process,
    one_thread,
    progress,
    table,
    target_table,
)

COMMAND, TRAINING, MEASURING = "the command", "training worker", "measuring worker"
PROCESSES = (COMMAND, TRAINING, MEASURING)
INTERVAL = 0.1

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Peak memory of eval over steps, or of a training pass.")
    parser.add_argument("what", nargs="?", default="eval", choices=("eval", "pass"))
    parser.add_argument("--budgets", type=float, nargs=2, default=[0.46, 2.7], help="two budgets, the smaller first")
    parser.add_argument("--method", default="grpo", help="the method that trains (default grpo)")
    chosen = parser.parse_args()
    if not Path("/proc/self/status").is_file():
        raise SystemExit("peak memory is read from /proc, which this system lacks; run it on Linux")
    if chosen.what == "pass":
        print_passes()
    else:
        print_growth(chosen.method, chosen.budgets)


# --- eval over steps --------------------------------------------------------------------------------------------------


def print_growth(method: str, budgets: list[float]) -> None:
    """Run eval with both budgets and print the peaks of its processes."""
    steps: list[int] = []
    peaks: list[dict[str, int]] = []
    for budget in budgets:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            peaks.append(eval_peaks(method, budget, run))
            steps.append(steps_of(run))
    print(f"{described('torch', 'transformers')}\n")
    print(f"Peak resident memory of `unlearnbench eval --method {method} --seeds 1 --samples 32`:\n")
    ratios = {name: peaks[1][name] / peaks[0][name] for name in PROCESSES}
    rows = [[name, *(f"{peak[name] / 1024:,.0f} MiB" for peak in peaks), f"{ratios[name]:.3f}"] for name in PROCESSES]
    print(table(["process", *(f"{count:,} steps" for count in steps), "ratio"], rows))
    growth = [
        Target(f"{name}: the second peak over the first", ratio, 1.1, at_most=True, digits=3)
        for name, ratio in ratios.items()
    ]
    print(f"\n{target_table(growth)}")


def eval_peaks(method: str, budget: float, run: Path) -> dict[str, int]:
    """Peak resident KiB of each process of one eval into the folder `run`. Raises SystemExit if eval fails."""
    options = {"method": method, "seeds": 1, "samples": 32, "budget": f"{budget:g}x", "out": run}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    printed = run.with_suffix(".txt")
    with printed.open("w") as log:
        command = subprocess.Popen(
            [sys.executable, "-m", "unlearnbench", "eval", *words],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | ONE_THREAD,
        )
        peaks = dict.fromkeys(PROCESSES, 0)
        workers: list[int] = []  # in the order in which they start: training, then measuring
        while command.poll() is None:
            for pid in workers_of(command.pid):
                if pid not in workers:
                    workers.append(pid)
            for name, pid in zip(PROCESSES, [command.pid, *workers], strict=False):
                peaks[name] = max(peaks[name], high_water(pid))
            progress(f"budget {budget:g}x: " + ", ".join(f"{n} {k / 1024:,.0f} MiB" for n, k in peaks.items()))
            time.sleep(INTERVAL)
    progress("")
    if command.returncode != 0 or not all(peaks.values()):
        raise SystemExit(f"eval failed: {printed.read_text().strip()[-500:]}")
    return peaks


def steps_of(run: Path) -> int:
    """How many steps the only seed of a run was trained."""
    return sum(1 for _ in (run / "1" / "metrics.jsonl").open(encoding="utf-8"))


def workers_of(parent: int) -> list[int]:
    """Worker processes that a process has started and that still run, oldest first."""
    workers = []
    for child in _children(parent):
        with suppress(OSError):  # a process that has ended meanwhile
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"unlearnbench.workers.supervisor" in command:
                workers += _children(child)[:1]  # started in the sandbox by the supervisor
            elif b"unlearnbench.workers.worker" in command:
                workers.append(child)
    return workers


def _children(parent: int) -> list[int]:
    """Processes that a process has started and that still run, oldest first."""
    children: list[int] = []
    for listed in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            children += [int(child) for child in listed.read_text().split()]
    return sorted(children)


# --- a training pass --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """Resident MiB before a pass and at its peak, its CPU seconds, and the norm of the gradient."""

    before: float
    peak: float
    seconds: float
    norm: float


def print_passes() -> None:
    """Measure every policy with every set of options, each in a fresh process, and print a row for each."""
    print("| policy | options | MiB before | peak MiB | CPU s | norm of the gradient |\n|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        for given in OPTIONS:
            done = in_fresh_process(measure_pass, shape, given)
            options = " ".join(f"{key}={value}" for key, value in given.items()) or "none"
            cells = (f"{done.before:,.0f}", f"{done.peak:,.0f}", f"{done.seconds:.1f}", f"{done.norm:.5f}")
            print(f"| {' | '.join((name, options, *cells))} |", flush=True)


def measure_pass(shape: dict[str, int], given: dict[str, Any]) -> Pass:
    """To be called in a fresh process: MiB before and at the peak, CPU seconds, and the norm of the gradient."""
    one_thread()
    import numpy as np
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from unlearnbench.policies.activation_checkpointing import recompute_layers
    from unlearnbench.records import Rollout, Verdict
    from unlearnbench.training.batch import make_batch, token_logprobs
    from unlearnbench.training.options import trainer_options

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
    before, began = high_water(os.getpid()) / 1024, time.process_time()
    logprobs, entropy = token_logprobs(model, batch, 1.0, with_entropy=True, options=options)
    assert entropy is not None
    (batch.weights * (logprobs.exp() - logprobs - 0.01 * entropy)).sum().backward()  # type: ignore[no-untyped-call]
    seconds, peak = time.process_time() - began, high_water(os.getpid()) / 1024
    norm = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]).norm()
    return Pass(before, peak, seconds, float(norm))


if __name__ == "__main__":
    main()
