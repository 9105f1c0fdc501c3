"""Training and sampling at a language model's size on one GPU, beside TRL's: `bash benchmarks/gpu.sh` runs it.

    python -m benchmarks.gpu [--minutes 8] [--try]

Each part is a process of its own, so that one that fails, or for which there is no time left, costs no other. First
the numbers: log-probabilities and gradients on the GPU against the CPU's. Then GRPO steps of `micro`, and of a policy
of Qwen2.5-0.5B's shape with random weights, trained in bfloat16 with layers recomputed: ours, ours sharded by FSDP2
over one process, ours sampled by vLLM in place, and TRL's. `--try` runs all of it on the CPU with a tiny policy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measurement import described, installed, progress, table

TRAINER = {"precision": "bf16", "gradient_checkpointing": True, "logprob_chunk": 512}
RECIPE = {"group_size": 8, "updates_per_batch": 2, "micro_batch_tokens": 4096}
LIMITS = {"float32": 1e-3, "bf16": 0.1}
"""Largest difference of a log-probability from the CPU's in float32 that is accepted, in nats."""
LEAST_COSINE = {"float32": 0.9999, "bf16": 0.98}
"""Least cosine of a gradient with the CPU's that is accepted."""
ROWS = 8
"""Rollouts in a pass of TRL's, which makes all logits of a pass at once."""
SECONDS = 150
"""Most seconds of a part."""

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Scale:
    """What is measured, and where."""

    shape: str
    """Of the policy with random weights: a key of `random_policies.SHAPES`."""
    device: str
    steps: int
    """Timed steps of each side, after one to warm up."""
    prompts: int
    """Per step."""
    max_tokens: int

    def split(self, shape: str, folder: Path) -> Any:
        """The split of micro, or one in this folder with a policy of that shape."""
        from benchmarks.random_policies import split_of
        from unlearnbench.splits import load_split

        if shape == "micro":
            return load_split("micro")
        return split_of(shape, folder, prompts_per_step=self.prompts, max_tokens=self.max_tokens, **RECIPE)


WHOLE = Scale("qwen2.5-0.5b", "cuda", steps=3, prompts=8, max_tokens=128)
TRY = Scale("tiny", "cpu", steps=1, prompts=4, max_tokens=16)


def check(shape: str, precision: str, scale: Scale) -> Found:
    """Log-probabilities and gradients of a pass on the device against the CPU's in float32."""
    import torch

    from unlearnbench.policies.activation_checkpointing import recompute_layers
    from unlearnbench.policies.policy import load_policy
    from unlearnbench.training.batch import token_logprobs
    from unlearnbench.training.options import trainer_options

    def figures(where: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
        model = load_policy(policy, device=where, trained=True).model
        chosen = trainer_options(options)
        if chosen.gradient_checkpointing:
            recompute_layers(model)
        batch = _batch(model.config.vocab_size, torch.device(where))
        logprobs, _ = token_logprobs(model, batch, 1.0, options=chosen)
        (batch.weights * batch.advantages * logprobs).sum().backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([weight.grad.flatten().cpu() for weight in model.parameters() if weight.grad is not None])
        return logprobs.detach().cpu(), gradient

    with tempfile.TemporaryDirectory() as folder:
        policy = scale.split(shape, Path(folder) / "split").policy_path
        expected, direction = figures("cpu", {})
        found, ours = figures(scale.device, TRAINER if precision == "bf16" else {})
    difference = float((found - expected).abs().max())
    cosine = float(torch.nn.functional.cosine_similarity(ours.double(), direction.double(), dim=0))
    if not (difference <= LIMITS[precision] and cosine >= LEAST_COSINE[precision]):
        raise SystemExit(
            f"{shape} in {precision} on {scale.device}: a log-probability differs by {difference:.2g} nats and the "
            f"gradient's cosine is {cosine:.5f}; the figures below would mean nothing"
        )
    return {"difference": difference, "cosine": cosine}


def steps(shape: str, side: str, scale: Scale) -> Found:
    """GRPO steps of one side: seconds, tokens sampled and trained per second, peak memory."""
    from benchmarks import grpo
    from benchmarks.grpo import Phases
    from unlearnbench.policies.samplers.engine import Engine
    from unlearnbench.training.options import DEFAULT, trainer_options

    phases = Phases()
    small = shape == "micro"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        split = scale.split(shape, folder / "split")
        if side.startswith("TRL"):
            from benchmarks import grpo_trl

            total = scale.steps + grpo.WARM_UP
            with grpo.training_of(split, folder / "schedule", "gpu", total, drop=False) as training:
                scheduled = grpo.schedule(training, split, total)
            del training
            changes: dict[str, Any] = {} if scale.device == "cpu" else {"use_cpu": False}
            if not small:  # eight rollouts in a pass, whose logits take 2.6 GB forward and backward
                rows = scale.prompts * RECIPE["group_size"] // RECIPE["updates_per_batch"]
                changes |= {"bf16": True, "gradient_checkpointing": True, "per_device_train_batch_size": ROWS}
                changes |= {"gradient_accumulation_steps": rows // ROWS}
                changes |= {"steps_per_generation": rows // ROWS * RECIPE["updates_per_batch"]}
            if "vLLM" in side:
                changes |= {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3}
            work = grpo_trl.run(split, folder / "run", scheduled, 1, phases, changes)
        else:
            setting = grpo.Setting(
                DEFAULT if small else trainer_options(TRAINER),
                Engine("vllm") if "vLLM" in side else Engine(),
                sharded="FSDP2" in side,
            )
            work = grpo.run(split, folder / "run", "gpu", scale.steps, drop=False, phases=phases, setting=setting)
    seconds = {phase: spent / scale.steps for phase, spent in phases.seconds.items()}
    training_time = seconds[grpo.UPDATE] + seconds[grpo.OPTIMISER] + seconds.get(grpo.FORWARD_ONLY, 0.0)
    return {
        "seconds": work.step,
        "sampled": work.generated / work.steps / seconds[grpo.GENERATE],
        "trained": work.trained / work.steps / training_time,
        "phases": seconds,
        "peak_gib": _peak(scale.device),
    }


def _batch(vocabulary: int, device: Any) -> Any:
    """Four rollouts of random tokens, with advantages of both signs."""
    import numpy as np

    from unlearnbench.records import Rollout, Verdict
    from unlearnbench.training.batch import make_batch

    drawn = np.random.default_rng(0).integers(0, vocabulary, (4, 64)).astype(np.int32)
    known = np.full(56, -1.0, dtype=np.float32)
    rollouts = [
        Rollout("x", k, row[:8], row[8:], known, "", "stop", Verdict(True, None, "match"), 1.0)
        for k, row in enumerate(drawn)
    ]
    return make_batch(rollouts, [np.full(56, sign) for sign in (1.0, -1.0, 0.5, -0.5)], "token_mean", device)


def _peak(device: str) -> float:
    """GiB at the peak: of the GPU as torch counts it, or of this process."""
    import resource

    import torch

    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    return torch.cuda.max_memory_allocated() / (1 << 30)


@dataclass(frozen=True)
class Part:
    """One row of the table: what is called for it, and the package that it needs beyond ours."""

    function: Callable[..., Found]
    arguments: tuple[str, str]
    needs: str | None = None


def parts(shape: str) -> dict[str, Part]:
    """Each part by its name, for a large policy of this shape."""
    found = {
        "check: micro, float32": Part(check, ("micro", "float32")),
        f"check: {shape}, bf16": Part(check, (shape, "bf16")),
    }
    for policy, side, needs in (
        ("micro", "unlearnbench", None),
        ("micro", "TRL", "trl"),
        (shape, "unlearnbench", None),
        (shape, "unlearnbench, FSDP2", None),
        (shape, "TRL", "trl"),
        (shape, "unlearnbench, vLLM", "vllm"),
        (shape, "TRL, vLLM", "vllm"),
    ):
        found[f"{policy}: {side}"] = Part(steps, (policy, side), needs)
    return found


def _in_process(name: str, tried: bool, seconds: float) -> Found:
    """What a part found, or `why` it found nothing."""
    with tempfile.NamedTemporaryFile() as out, tempfile.TemporaryFile("w+") as words:
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--out", out.name]
        try:
            done = subprocess.run(
                command + ["--try"] * tried, stdout=words, stderr=subprocess.STDOUT, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return {"why": f"not finished within {seconds:.0f} s"}
        if done.returncode != 0:
            words.seek(0)
            last = words.read().strip().splitlines()
            return {"why": last[-1][:300] if last else f"exit status {done.returncode}"}
        found: Found = json.loads(Path(out.name).read_text(encoding="utf-8"))
        return found


def main() -> None:
    """Run all parts within the time, print the table and the JSON. Exit status 1 if the numbers are wrong."""
    parser = argparse.ArgumentParser(description="Measure training and sampling on one GPU, beside TRL's.")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together (default 8)")
    parser.add_argument("--try", dest="tried", action="store_true", help="on the CPU with a tiny policy")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    scale = TRY if chosen.tried else WHOLE
    if chosen.part:
        part = parts(scale.shape)[chosen.part]
        chosen.out.write_text(json.dumps(part.function(*part.arguments, scale)), encoding="utf-8")
        return
    name = _gpu(chosen.tried)
    until = time.monotonic() + 60 * chosen.minutes
    found: dict[str, Found] = {}
    for words, part in parts(scale.shape).items():
        left = min(SECONDS, until - time.monotonic())
        if part.needs is not None and installed(part.needs) is None:
            found[words] = {"why": f"{part.needs} is not installed"}
        elif left < 10:
            found[words] = {"why": "no time left"}
        else:
            progress(words)
            found[words] = _in_process(words, chosen.tried, left)
    progress("")
    print(f"{name}; {described('torch', 'transformers', 'trl', 'vllm')}\n\n{_table(found)}\n")
    print(json.dumps({"device": name, "scale": asdict(scale), "trainer": TRAINER, "recipe": RECIPE, "parts": found}))
    if any("why" in one for words, one in found.items() if words.startswith("check")):
        raise SystemExit(1)


def _gpu(tried: bool) -> str:
    """The GPU's name. Raises SystemExit if there is none."""
    if tried:
        return "CPU, a try of the script"
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU; run `bash benchmarks/gpu.sh --try` to test the script on the CPU")
    return str(torch.cuda.get_device_name(0))


def _table(found: Mapping[str, Found]) -> str:
    """One row per part; a part without figures says why."""
    head = ["part", "s per step", "tokens/s sampled", "tokens/s trained", "peak GiB", "largest difference", "cosine"]
    rows = []
    for part, one in found.items():
        if "why" in one:
            rows.append([part, one["why"], *[""] * 5])
        elif "cosine" in one:
            rows.append([part, *[""] * 4, f"{one['difference']:.1e}", f"{one['cosine']:.6f}"])
        else:
            cells = [f"{one['seconds']:.2f}", f"{one['sampled']:,.0f}", f"{one['trained']:,.0f}"]
            rows.append([part, *cells, f"{one['peak_gib']:.1f}", "", ""])
    return table(head, rows)


if __name__ == "__main__":
    main()
