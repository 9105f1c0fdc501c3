"""Some steps of unlearnbench's own GRPO loop, timed and counted: the real loop with verifier, ledger and KL."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.machine import now
from benchmarks.phases import Phases
from unlearnbench.method import settings_of
from unlearnbench.methods.grpo import Grpo
from unlearnbench.policies.policy import load_policy
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.records import Item
from unlearnbench.splits import Split
from unlearnbench.training.loop import Limits, Training
from unlearnbench.verifier import Verifier

WARM_UP = 1
"""Steps at the start of a run that are counted as work but not timed."""

GENERATE, VERIFY, FORWARD_ONLY = "generate", "verify", "forward only (old policy, reference)"
UPDATE, OPTIMISER, LEDGER, REST = "forward and backward", "optimiser and clipping", "ledger", "the rest"
PHASES = (GENERATE, VERIFY, FORWARD_ONLY, UPDATE, OPTIMISER, LEDGER, REST)


@dataclass(frozen=True)
class Work:
    """What a side did. Seconds are of the steps after the warm-up; the counts are of all steps."""

    steps: int
    seconds: float
    prompts: tuple[tuple[str, ...], ...]  # of each step, in order
    rollouts: int
    generated: int  # tokens
    forward: int  # tokens in forward-only passes, padding not counted
    trained: int  # tokens in forward-backward, padding not counted
    updates: int

    @property
    def step(self) -> float:
        """Seconds a step."""
        return self.seconds / (self.steps - WARM_UP)

    def flops(self, parameters: int) -> dict[str, float]:
        """FLOPs of a step by phase: 2 N a token forward, 6 N forward and backward; each prompt prefilled once."""
        prefilled = sum(len(prompt) for step in self.prompts for prompt in step)  # micro: a character is a token
        tokens = {
            GENERATE: 2 * (self.generated + prefilled),
            FORWARD_ONLY: 2 * self.forward,
            UPDATE: 6 * self.trained,
        }
        return {phase: parameters * count / self.steps for phase, count in tokens.items()}


def ready(verifier: Verifier) -> None:
    """Start the verifier's worker, which a run does once, at the first answer that is not decided at sight."""
    verifier.verify(r"\int_0^1 x\,dx", r"\boxed{\int_0^1 y\,dy}")


class Stamps:
    """The clock's reading at the end of every step. Phases timed meanwhile start again after the warm-up."""

    def __init__(self, phases: Phases | None) -> None:
        self.phases = phases
        self.ends: list[float] = []

    def step_ended(self) -> None:
        self.ends.append(now())
        if self.phases is not None and len(self.ends) == WARM_UP:
            self.phases.forget()

    @property
    def seconds(self) -> float:
        """Of all steps after the warm-up."""
        return self.ends[-1] - self.ends[WARM_UP - 1]


def make_training(
    split: Split, folder: Path, root: str, steps: int, *, drop: bool, stamps: Stamps | None = None
) -> Training:
    """GRPO on a sealed split, from its base policy."""
    settings = settings_of(Grpo, split.config.recipe, {"drop_zero_signal": drop})
    policy = load_policy(split.policy_path, trained=True)
    training = Training(
        Grpo(settings),
        split.items,
        policy,
        load_policy(split.policy_path),
        TransformersSampler(policy),
        Verifier(rule=split.config.protocol.verifier_rule),
        root=root,
        seed=1,
        limits=Limits(None, steps),
        folder=folder,
        fingerprint=root,
        knows_traces=True,
        progress=None if stamps is None else lambda *_: stamps.step_ended(),
    )
    training.resume()
    return training


def schedule(training: Training, steps: int) -> list[list[Item]]:
    """The items of each step, as the loop will select them."""
    return [[training.items[name] for name in training.hooks.selected(k, training.items)] for k in range(steps)]


def run(split: Split, folder: Path, root: str, steps: int, *, drop: bool, phases: Phases | None = None) -> Work:
    """`steps` steps and the warm-up, with the writing of the ledger at the end."""
    steps += WARM_UP
    stamps = Stamps(phases)
    training = make_training(split, folder, root, steps, drop=drop, stamps=stamps)
    ready(training.verifier)
    updates = 0

    def count(*_: object) -> None:
        nonlocal updates
        updates += 1

    training.optimiser.register_step_post_hook(count)
    with training.verifier, ExitStack() as stack:
        if phases is not None:
            for owner, name, phase in (
                (training.sampler, "generate", GENERATE),
                (training.verifier, "verify_many", VERIFY),
                (training, "_reference_logprobs", FORWARD_ONLY),
                (training, "_backward", UPDATE),
                (training.optimiser, "step", OPTIMISER),
                (torch.nn.utils, "clip_grad_norm_", OPTIMISER),
                (training.ledger, "record", LEDGER),
                (training.ledger, "log", LEDGER),
                (training.ledger, "flush", LEDGER),
            ):
                stack.enter_context(phases.timing(owner, name, phase))
        training.run()
        began = now()
        training.ledger.flush(steps)
        flushed = (now() - began) * (steps - WARM_UP) / steps
    return Work(
        steps=steps,
        seconds=stamps.seconds + flushed,
        prompts=_prompts(schedule(training, steps)),
        rollouts=training.meter.verifier_calls,
        generated=training.meter.generated,
        forward=training.meter.forward,
        trained=training.meter.trained,
        updates=updates,
    )


def _prompts(scheduled: Sequence[Sequence[Item]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(item.prompt for item in step) for step in scheduled)
