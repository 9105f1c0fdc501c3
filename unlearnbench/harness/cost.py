"""What a run costs: tokens and FLOPs of training and evaluation, time, memory and disk, each with its source."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from unlearnbench.errors import RunError
from unlearnbench.harness.assumed import LENGTH, PROMPT, Pool
from unlearnbench.harness.trial_run import PROBE_ROLLOUTS, Probe, Tokens, accelerated
from unlearnbench.records import Cost, Record
from unlearnbench.splits import Control, Split

BYTES_A_TOKEN = 4.0  # of a rollout on disk, compressed, where none was written to look at
BUSY = 0.8
"""With a smaller share of a core than this the words on time say so."""

UTILISATION = 0.1
"""Share of the peak that is assumed where nothing is said: an assumption, not a measurement."""
Precision = Literal["float32", "bf16"]
_GB = 10**9


class Work(Record):
    """One seed's training, or its evaluation."""

    tokens: Tokens
    flops: int
    rollouts: int
    source: str
    """Where these numbers come from, in words."""


class Timing(Record):
    """Seconds of one seed, and hours of all; None if unknown."""

    source: Literal["probe", "control", "published", "unknown"]
    device: str
    how: str
    training_seconds: float | None
    evaluation_seconds: float | None
    at_once: int
    """Seeds that run side by side."""
    hours: float | None
    reference_seconds: float | None
    """What a seed of the shipped null control took to train, at this multiple of the budget, on this device."""
    reference_multiple: float | None
    reference_device: str | None


class Space(Record):
    """Bytes: memory of one seed's process, disk of all seeds while they run."""

    memory: int
    memory_source: str
    fits: bool | None
    """Whether `memory` times the seeds at once fits in this machine's, or in the named device's; None if unknown."""
    available: int | None
    disk: int
    disk_source: str


def device(name: str) -> Device:
    """The device of that name, in capitals or not. Raises RunError for one whose peak is not known here."""
    for known, found in DEVICES.items():
        if known.lower() == name.lower():
            return found
    raise RunError(f"there are no published figures here for a device {name!r}; give one of {', '.join(DEVICES)}")


def training(
    split: Split,
    reference: Control | None,
    probe: Probe | None,
    parameters: int,
    multiple: float,
    length: float | None = None,
    prompt: float = PROMPT,
) -> Work:
    """One seed: the tokens that were measured, scaled to the budget; else those of the recipe at this mean length."""
    recipe, budget = split.config.recipe, split.config.budget
    limit = None if budget is None else budget.flops_1x * multiple
    if reference is not None and reference.result is not None and reference.result.cost.flops:
        cost, runs = reference.result.cost, len(reference.result.seeds)
        whole = _of_cost(split, cost)
        flops = cost.flops / runs
        factor = (limit or flops) / flops
        tokens = whole.times(factor / runs)
        return Work(
            tokens=tokens,
            flops=tokens.flops(parameters),
            rollouts=round(cost.verifier_calls * factor / runs),
            source=f"the shipped null control ({runs} seeds of GRPO), scaled to the budget",
        )
    if probe is not None:
        if not probe.flops:
            return Work(tokens=probe.tokens, flops=0, rollouts=0, source="the method spent nothing in its first steps")
        one = probe.flops / probe.steps * recipe.prompts_per_step / probe.prompts
        factor = (limit or one * recipe.steps) / probe.flops
        tokens = probe.tokens.times(factor)
        where = "the budget" if limit else f"the recipe's {recipe.steps} steps, as the split has no budget yet"
        return Work(
            tokens=tokens,
            flops=tokens.flops(parameters),
            rollouts=round(probe.rollouts * factor),
            source=f"{probe.steps} first steps of the method, scaled to {where}",
        )
    if limit is not None:
        # A rollout of the greatest length costs most: its tokens, and as many read and trained on.
        length = round(limit / (10.0 * parameters))
        return Work(
            tokens=Tokens(generated=length, prefilled=0, forward=length, trained=length),
            flops=round(limit),
            rollouts=-(-length // recipe.max_tokens),
            source="the budget alone, as if every token were generated, read once more and trained on",
        )
    rollouts = recipe.steps * recipe.prompts_per_step * recipe.group_size
    told, words = _length(length, recipe.max_tokens)
    read = round(rollouts * (told + prompt))
    tokens = Tokens(
        generated=round(rollouts * told),
        prefilled=round(recipe.steps * recipe.prompts_per_step * prompt),
        forward=read if recipe.kl else 0,
        trained=read,
    ).times(multiple)
    return Work(
        tokens=tokens,
        flops=tokens.flops(parameters),
        rollouts=round(rollouts * multiple),
        source=f"the recipe's {recipe.steps} steps, as if every group had signal; {words}",
    )


def evaluation(
    split: Split,
    pool: Pool,
    control: Control | None,
    probe: Probe | None,
    parameters: int,
    samples: int,
    length: float | None = None,
) -> Work:
    """One seed: items, the unlearnable items' twins, and canaries, `samples` times each."""
    rollouts = pool.problems * samples
    cost = None if control is None or control.result is None else control.result.cost
    if probe is not None:
        mean, source = probe.evaluated_tokens, "rollouts of the base policy, measured now"
    elif cost is not None and cost.verifier_calls:
        mean = cost.generated_tokens / cost.verifier_calls
        source = "the null control's mean length in training"
    else:
        mean, source = _length(length, split.config.protocol.sampling.max_tokens)
    if probe is not None and probe.rollouts:
        prompt = probe.tokens.prefilled / probe.rollouts * split.config.recipe.group_size
    elif cost is not None and cost.verifier_calls:
        prompt = _of_cost(split, cost).prefilled / cost.verifier_calls * split.config.recipe.group_size
    else:
        prompt = pool.prompt
    tokens = Tokens(generated=round(rollouts * mean), prefilled=round(pool.problems * prompt), forward=0, trained=0)
    drawn = f"{pool.items} items, {pool.twins} twins and {pool.canaries} canaries x {samples}; {source}"
    if not pool.problems:
        drawn = f"not counted: how many items there are is unknown before `unlearnbench splits build {split.name}`"
    return Work(tokens=tokens, flops=tokens.flops(parameters), rollouts=rollouts, source=drawn)


def timing(
    split: Split,
    control: Control | None,
    probe: Probe | None,
    published: Device | None,
    precision: Precision,
    utilisation: float,
    training: Work,
    evaluation: Work,
    seeds: int,
    at_once: int,
) -> Timing:
    result = None if control is None else control.result
    reference = None if result is None or not result.cost.flops else result.cost
    source: Literal["probe", "control", "published", "unknown"]
    train: float | None
    evaluate: float | None
    if published is not None:
        speed = published.peak(precision) * utilisation
        source, device = "published", published.name
        train, evaluate = training.flops / speed, evaluation.flops / speed
        how = (
            f"{published.told(precision)}; at {100 * utilisation:g} % of that peak, which is an assumption (a small "
            "policy waits for its kernels instead)"
        )
    elif probe is not None:
        source, device = "probe", "this machine"
        seconds = probe.step_seconds
        train = 0.0 if not training.flops else None
        if seconds is not None and probe.flops:
            train = probe.start_seconds + training.flops * seconds * probe.steps / probe.flops
        evaluate = probe.start_seconds + evaluation.rollouts / probe.rollouts_a_second
        steps = f"{probe.steps} real steps and " if probe.steps else ""
        how = f"{steps}some {PROBE_ROLLOUTS} rollouts, with the machine as busy as now"
        if probe.core_share < BUSY and not accelerated():
            how += f" (the probe had {100 * probe.core_share:.0f} % of a core: on a free one it takes that share of it)"
        if probe.prompts < split.config.recipe.prompts_per_step:
            how += f", with {probe.prompts} of {split.config.recipe.prompts_per_step} prompts per step"
    elif reference is not None:
        source, device = "control", reference.device
        speed = reference.flops / reference.seconds
        train, evaluate = training.flops / speed, evaluation.flops / speed
        how = "the shipped null control's seconds of training; evaluation as if it ran at the same FLOP/s"
    else:
        source, device, train, evaluate = "unknown", "this machine", None, None
        how = "a step takes too long to try here; name a device with --device"
    rounds = -(-seeds // at_once)
    whole = None if train is None or evaluate is None else (train + evaluate) * rounds / 3600
    return Timing(
        source=source,
        device=device,
        how=how,
        training_seconds=train,
        evaluation_seconds=evaluate,
        at_once=at_once,
        hours=whole,
        reference_seconds=None if reference is None or result is None else reference.seconds / len(result.seeds),
        reference_multiple=None if reference is None or result is None else result.budget.multiple,
        reference_device=None if reference is None else reference.device,
    )


def space(
    split: Split,
    probe: Probe | None,
    published: Device | None,
    training: Work,
    evaluation: Work,
    parameters: int,
    seeds: int,
    at_once: int,
    *,
    adapted: bool = False,
) -> Space:
    """What a machine must hold; `adapted`: an adapter is trained, whose size is next to nothing."""
    if probe is not None and published is None and probe.prompts == split.config.recipe.prompts_per_step:
        memory, told = probe.memory, "the largest worker of the probe at its peak"
    else:
        if adapted:  # what is frozen has neither gradients nor moments, and is the reference policy, too
            memory, told = 4 * parameters, "weights (4 bytes a parameter); an adapter"
        else:
            memory, told = (
                20 * parameters,
                "weights, gradients, Adam's moments, reference policy (20 bytes a parameter)",
            )
        told += "; activations and the cache of keys and values come on top"
    available = published.memory if published is not None else _memory_of_machine()
    length = training.tokens.generated / max(1, training.rollouts)
    a_rollout = probe.bytes_a_rollout if probe else BYTES_A_TOKEN * length
    evaluated = probe.bytes_an_evaluated if probe else BYTES_A_TOKEN * length
    # Of a checkpoint: weights and two moments, and the one before until the new one is in place.
    checkpoints = 0 if adapted else 2 * 12 * parameters
    a_seed = training.rollouts * a_rollout + evaluation.rollouts * evaluated + checkpoints
    return Space(
        memory=memory,
        memory_source=told,
        fits=None if available is None else memory * at_once <= available,
        available=available,
        disk=round(seeds * a_seed),
        disk_source="rollouts "
        + ("as the probe wrote them" if probe else f"at {BYTES_A_TOKEN:g} bytes per token")
        + (
            ", checkpoints of the adapter left out" if adapted else " and two checkpoints (24 bytes a parameter) a seed"
        ),
    )


def _of_cost(split: Split, cost: Cost) -> Tokens:
    """GRPO's tokens by kind: besides prompts, the reference policy reads what is trained, where there is a KL term."""
    forward = min(cost.trained_tokens, cost.forward_tokens) if split.config.recipe.kl else 0
    return Tokens(
        generated=cost.generated_tokens,
        prefilled=cost.forward_tokens - forward,
        forward=forward,
        trained=cost.trained_tokens,
    )


def _length(length: float | None, most: int) -> tuple[float, str]:
    """Mean tokens of a rollout, at most `most`, if none were measured; and where the number comes from."""
    told = min(LENGTH if length is None else length, float(most))
    where = "which is an assumption (--length gives yours)" if length is None else "as given"
    if length is not None and length > most:
        where = "the most that it may have"
    return told, f"{told:g} tokens per rollout, {where}"


def _memory_of_machine() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


@dataclass(frozen=True)
class Device:
    """Peak FLOP/s in float32 without tensor cores, which the loop uses by default, and in bfloat16 with them
    (dense, sums in float32); `memory` in bytes."""

    name: str
    flops: float
    bf16: float
    memory: int
    source: str

    def peak(self, precision: Precision) -> float:
        return self.flops if precision == "float32" else self.bf16

    def told(self, precision: Precision) -> str:
        """The peak and its source in words."""
        name = "FP32" if precision == "float32" else "BF16"
        return f"{self.source}: {name} {self.peak(precision) / 1e12:g} TFLOPS"


DEVICES = {
    device.name: device
    for device in (
        Device("A100-40GB", 19.5e12, 312e12, 40 * _GB, "NVIDIA A100 datasheet (SXM)"),
        Device("A100", 19.5e12, 312e12, 80 * _GB, "NVIDIA A100 datasheet (SXM, 80 GB)"),
        Device("H100", 67e12, 989e12, 80 * _GB, "NVIDIA H100 datasheet (SXM)"),
        Device("H200", 67e12, 989e12, 141 * _GB, "NVIDIA H200 datasheet (SXM)"),
        Device("L4", 30.3e12, 121e12, 24 * _GB, "NVIDIA L4 datasheet"),
        Device("L40S", 91.6e12, 362e12, 48 * _GB, "NVIDIA L40S datasheet"),
        Device("RTX4090", 82.6e12, 165.2e12, 24 * _GB, "NVIDIA Ada GPU architecture whitepaper"),
    )
}
