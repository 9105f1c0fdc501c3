"""Steps of unlearnbench's own GRPO loop, timed and counted: the real loop with judge, verifier, ledger and KL.

Calls are timed in place, without a profiler that would slow them.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measurement import now
from unlearnbench.harness.judge import Judge, Terms
from unlearnbench.method import PoolItem, settings_of
from unlearnbench.methods.grpo import Grpo
from unlearnbench.policies.fsdp import shard
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.policies.samplers.sharded import WholeSampler
from unlearnbench.records import Canary, Item, Recipe
from unlearnbench.splits import Split, seal
from unlearnbench.splits.sealed import Sealed, read_sealed
from unlearnbench.training.build import Models, begin
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.loop import Training
from unlearnbench.training.options import DEFAULT, TrainerOptions
from unlearnbench.training.run_spec import Limits, RunSpec
from unlearnbench.verifier import Verifier
from unlearnbench.workers.channel import receive, receive_json, send
from unlearnbench.workers.judge_client import JudgeClient
from unlearnbench.workers.messages import Request
from unlearnbench.workers.worker import Link

WARM_UP = 1
"""Steps at the start of a run that are counted as work but not timed."""

GENERATE, VERIFY, FORWARD_ONLY = "generate", "verify (the judge)", "forward only (old policy, reference)"
UPDATE, OPTIMISER, LEDGER, REST = "forward and backward", "optimiser and clipping", "ledger", "the rest"
PHASES = (GENERATE, VERIFY, FORWARD_ONLY, UPDATE, OPTIMISER, LEDGER, REST)


class Phases:
    """Seconds by phase. The time of a timed call inside another one counts for the inner call only."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def forget(self) -> None:
        """Reset to zero, after a warm-up. Call it between timed calls."""
        self.seconds.clear()

    @contextmanager
    def timing(self, owner: Any, name: str, phase: str | Callable[[], str]) -> Iterator[None]:
        """Time the calls of `owner.name` within the block. The phase may be a function, asked at each call."""
        original = getattr(owner, name)
        own = name in vars(owner)

        def timed(*args: Any, **kwargs: Any) -> Any:
            label = phase if isinstance(phase, str) else phase()
            self._inner.append(0.0)
            began = now()
            try:
                return original(*args, **kwargs)
            finally:
                spent = now() - began
                self.seconds[label] += spent - self._inner.pop()
                self._inner[-1] += spent

        setattr(owner, name, timed)
        try:
            yield
        finally:
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)


@dataclass(frozen=True)
class Work:
    """What a side did. `seconds` covers the steps after the warm-up, the counts all steps."""

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
        """Seconds per step."""
        return self.seconds / (self.steps - WARM_UP)

    def flops(self, parameters: int) -> dict[str, float]:
        """FLOPs of a step by phase: 2 N per token forward, 6 N forward and backward; each prompt prefilled once."""
        prefilled = sum(len(prompt) for step in self.prompts for prompt in step)  # micro: a character is a token
        tokens = {
            GENERATE: 2 * (self.generated + prefilled),
            FORWARD_ONLY: 2 * self.forward,
            UPDATE: 6 * self.trained,
        }
        return {phase: parameters * count / self.steps for phase, count in tokens.items()}


def ready(verifier: Verifier) -> None:
    """Start the verifier's worker, which a run does once, at the first answer that the fast path cannot decide."""
    verifier.verify(r"\int_0^1 x\,dx", r"\boxed{\int_0^1 y\,dy}")


class Stamps:
    """The time at which each step ended. Phases are reset after the warm-up."""

    def __init__(self, phases: Phases | None) -> None:
        self.phases = phases
        self.ends: list[float] = []

    def step_ended(self) -> None:
        self.ends.append(now())
        if self.phases is not None and len(self.ends) == WARM_UP:
            self.phases.forget()

    @property
    def seconds(self) -> float:
        """Seconds of all steps after the warm-up."""
        return self.ends[-1] - self.ends[WARM_UP - 1]


@dataclass(frozen=True)
class Setting:
    """How our side computes: as `--trainer` and `--sampler` say, or also sharded over this one process by FSDP2."""

    options: TrainerOptions = DEFAULT
    engine: Engine = TRANSFORMERS
    sharded: bool = False

    def models(self, sealed: Sealed, recipe: Recipe, root: str) -> Models:
        """The models of a run. A sharded one needs a process group, which is left open."""
        where = sealed.config.base_policy
        models = begin(
            sealed.policy,
            recipe,
            self.options,
            Processes(),
            self.engine,
            revision=where.revision if isinstance(sealed.policy, str) else None,
            prompt_format=sealed.config.prompt_format,
            root=root,
        )
        if not self.sharded:
            return models
        backend = "nccl" if models.policy.device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, rank=0, world_size=1, store=torch.distributed.HashStore())
        for policy in (models.policy, models.reference):
            shard(policy.model, 1)
        return replace(models, sampler=WholeSampler(models.sampler, models.policy.model))


DEFAULT_SETTING = Setting()


@contextmanager
def training_of(
    split: Split,
    folder: Path,
    root: str,
    steps: int,
    *,
    drop: bool,
    stamps: Stamps | None = None,
    setting: Setting = DEFAULT_SETTING,
) -> Iterator[Training]:
    """GRPO from the split's base policy, with a judge at the other end of a pipe, as in `eval`."""
    sealed = read_sealed(seal(split, folder / "sealed"))
    settings = settings_of(Grpo, split.config.recipe, {"drop_zero_signal": drop})
    base = split.policy_path
    assert isinstance(base, Path)
    terms = Terms("grpo", "", 1, root, settings.max_tokens, base, None)
    with Verifier(rule=split.config.protocol.verifier_rule) as verifier:
        ready(verifier)
        with piped(Judge(split, folder, verifier, terms)) as judge:
            training = Training(
                Grpo(settings),
                [PoolItem(item_id, prompt) for item_id, prompt in sealed.pool],
                setting.models(sealed, settings, root),
                judge,
                RunSpec(root, 1, Limits(None, steps), folder, root),
                options=setting.options,
                progress=None if stamps is None else lambda *_: stamps.step_ended(),
            )
            training.resume()
            yield training


@contextmanager
def piped(judge: Judge) -> Iterator[JudgeClient]:
    """The judge in a thread of this process, reached by the messages that a training process sends over its pipes."""
    (theirs, mine), (hears, speaks) = os.pipe(), os.pipe()
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()

    def answer() -> None:
        with os.fdopen(theirs, "rb") as requests, os.fdopen(speaks, "wb") as replies:
            while (found := receive(requests)) is not None:
                message, arrays = found
                assert isinstance(message, Request.__args__)
                send(replies, judge.answer(message, arrays))

    def listen() -> None:
        with os.fdopen(hears, "rb") as replies:
            while (found := receive_json(replies)) is not None:
                answers.put(found[0])

    threads = [threading.Thread(target=work, daemon=True) for work in (answer, listen)]
    for thread in threads:
        thread.start()
    with os.fdopen(mine, "wb") as reports:
        yield JudgeClient(Link(reports, answers))
    for thread in threads:
        thread.join()


def schedule(training: Training, split: Split, steps: int) -> list[list[Item | Canary]]:
    """The problems of each step, as the loop will select them."""
    problems: dict[str, Item | Canary] = {canary.item_id: canary for canary in split.canaries}
    problems |= {item.item_id: item for item in split.items}
    return [[problems[name] for name in training.hooks.selected(k, training.pool)] for k in range(steps)]


def run(
    split: Split,
    folder: Path,
    root: str,
    steps: int,
    *,
    drop: bool,
    phases: Phases | None = None,
    setting: Setting = DEFAULT_SETTING,
) -> Work:
    """`steps` steps after the warm-up, including the writing of the ledger at the end."""
    steps += WARM_UP
    stamps = Stamps(phases)
    updates = 0

    def count(*_: object) -> None:
        nonlocal updates
        updates += 1

    with ExitStack() as stack:
        training = stack.enter_context(
            training_of(split, folder, root, steps, drop=drop, stamps=stamps, setting=setting)
        )
        training.optimiser.register_step_post_hook(count)
        if phases is not None:
            for owner, name, phase in (
                (training.models.sampler, "generate", GENERATE),
                (training.judge, "verdicts", VERIFY),
                (training.passes, "reference_logprobs", FORWARD_ONLY),
                (training.passes, "backward", UPDATE),
                (training.optimiser, "step", OPTIMISER),
                (torch.nn.utils, "clip_grad_norm_", OPTIMISER),
                (training.judge, "record", LEDGER),
                (training.judge, "log", LEDGER),
                (training.judge, "save", LEDGER),
            ):
                stack.enter_context(phases.timing(owner, name, phase))
        training.run()
        began = now()
        training.judge.save(steps)
        flushed = (now() - began) * (steps - WARM_UP) / steps
    return Work(
        steps=steps,
        seconds=stamps.seconds + flushed,
        prompts=_prompts(schedule(training, split, steps)),
        rollouts=training.meter.verifier_calls,
        generated=training.meter.generated,
        forward=training.meter.forward,
        trained=training.meter.trained,
        updates=updates,
    )


def _prompts(scheduled: Sequence[Sequence[Item | Canary]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(problem.prompt for problem in step) for step in scheduled)
