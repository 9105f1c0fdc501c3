"""`Method`: what an algorithm overrides. Every default is the reference GRPO (PROTOCOL 1), so a new idea is short.

The loop of `training/loop.py` calls the hooks in this order, once per step:

    select_items → plan_rollouts → reward → inject → keep → augment → advantages → policy_loss, auxiliary_loss
    └ again, round by round, until plan_rollouts asks for nothing more ┘              → on_step_end

A hook receives and returns small typed records (`RolloutGroup`, `Plan`, `LossBatch`). Arrays may be lists, numpy
arrays or torch tensors. Further rollouts, log-probabilities, an item's history and privileged fields are asked of
`self.run`, which meters them: the track of the result follows from what was read (PROTOCOL 3.9).

Distillation over the whole vocabulary needs no hook of its own: a rollout whose `teacher_ids` are set (in `augment`) is
also read by the policy that `Method.teacher` names, in that context, and `LossBatch.divergence` has the divergence of
the two distributions at each of its tokens, to be returned from `policy_loss` or `auxiliary_loss`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.policies.samplers.sampler import Completions
from unlearnbench.records import GroupName, Recipe, Rollout, RolloutGroup, Tokens, Track, Verdict
from unlearnbench.rng import in_epochs

ZERO_SIGNAL = 1e-6  # a group whose raw rewards span no more than this teaches nothing (LOOP 8)


@dataclass(frozen=True, slots=True)
class PoolItem:
    """A problem as a method of track `verifier` sees it."""

    item_id: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Ask for n rollouts of an item, optionally sampled in another context than its prompt, or after a beginning.

    Args:
        item_id: An id of `self.run.items`.
        n: How many rollouts, at least 1.
        context: The text to sample after instead of the item's prompt; the loss is computed in the item's own prompt.
        prefix: A beginning of the answer to continue; the loss is computed in prompt and prefix.

    Raises:
        MethodError: `plan_rollouts` returned a plan for an item that is not in the pool, or without rollouts.

    Example:
        >>> def plan_rollouts(self, step, round, selected, groups):
        ...     return [] if round else [ub.Plan(item_id, 8) for item_id in selected]
    """

    item_id: str
    n: int
    context: str | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of one step's rollouts of an item, hinted and prefixed ones included."""

    step: int
    n: int
    correct: int


@dataclass(frozen=True, slots=True)
class Teacher:
    """Which policy reads the rollouts that have `teacher_ids`, and how far from it the policy is measured to be.

    With p the policy's next-token distribution in the context of its loss and q the teacher's in `teacher_ids`, both at
    the training temperature, `LossBatch.divergence` is KL(q || p) for alpha = 0, KL(p || q) for alpha = 1, and in
    between (1 - alpha) KL(p || m) + alpha KL(q || m) with m = (1 - alpha) p + alpha q, the generalised Jensen-Shannon
    divergence (Agarwal et al. 2024, 2306.13649, eq. 1). The gradient flows through p alone.
    """

    policy: Literal["current", "reference", "average", "teacher"] = "current"
    """`current` (as the update finds it), `reference` (the start of the run), `average` (`self.run.averaged`) or
    `teacher` (the positive control's policy, which makes the track `teacher`)."""
    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class LossBatch:
    """One micro-batch of rollouts, as `policy_loss` gets it.

    Every tensor is (rows, tokens), right-padded, zero where `mask` is: `logprobs` (of the current policy, with its
    gradient), `behaviour` (of the policy that sampled), `advantages`, `mask`, and, where something asks for them,
    `reference`, `entropy`, `teacher` and `divergence`. `ratio` is π(token) / behaviour(token).

    Returns:
        Of `policy_loss`: one loss per token, a tensor of the shape of `logprobs`.

    Raises:
        MethodError: `policy_loss` returned another shape, NaN, infinity or a loss without a gradient.

    Example:
        >>> def policy_loss(self, batch):
        ...     return -batch.advantages * batch.ratio
    """

    logprobs: Tensor
    """log π(token) of the current policy at the training temperature; carries the gradient."""
    behaviour: Tensor
    """log-probability under the policy that sampled the token (detached `logprobs` where it is unknown)."""
    reference: Tensor | None
    """log-probability under the starting policy, where a KL term asks for it."""
    entropy: Tensor | None
    """Entropy of the next-token distribution in nats, where an entropy term or `Method.entropies` asks for it."""
    advantages: Tensor
    mask: Tensor
    sources: tuple[str, ...] = ()
    """The source of each row's rollout: `policy`, `hinted`, `prefixed`, or what the method called what it injected."""
    item_ids: tuple[str, ...] = ()
    """The item of each row."""
    teacher: Tensor | None = None
    """log-probability of each token under the teacher, without gradient, where some rollout of the update has
    `teacher_ids`; 0 in rows that have none."""
    divergence: Tensor | None = None
    """Divergence of the policy from the teacher over the whole vocabulary (`Teacher`); carries the gradient; 0 in rows
    that have no `teacher_ids`."""

    @property
    def ratio(self) -> Tensor:
        """π(token) / behaviour(token)."""
        return torch.exp((self.logprobs - self.behaviour) * (self.mask > 0))


class AveragedPolicy(Protocol):
    """An exponential moving average of the policy's trained weights, which `logprobs` and `Teacher` name `average`."""

    def update(self, rate: float) -> None:
        """average ← (1 - rate) average + rate policy; to be called in `on_step_end`."""

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by name: to be part of the method's own `state_dict`, so that a resumed run is the
        same bit for bit."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""


class Services(Protocol):
    """What `self.run` offers inside a training process. Everything that costs compute or privilege is metered."""

    @property
    def seed(self) -> int: ...

    @property
    def step(self) -> int: ...

    @property
    def progress(self) -> float:
        """The share of the run's budget that was spent when this step began, 0 to 1: for methods that have phases."""

    @property
    def items(self) -> Sequence[PoolItem]: ...

    def item(self, item_id: str) -> PoolItem: ...

    def shuffled(self, values: Sequence[Any], *names: object) -> list[Any]:
        """A permutation that depends on the run's seed and these names only."""

    def random(self, *names: object) -> np.random.Generator:
        """A generator of its own for these names; make a new one each step, so that a resumed run is the same."""

    def history(self, item_id: str) -> Sequence[Visit]:
        """What training has seen of an item so far, oldest first."""

    def encode(self, prompt: str) -> Tokens:
        """Token ids of the context a prompt is answered in."""

    def decode(self, token_ids: Tokens) -> str:
        """The text of a completion, without the token that ended it."""

    def generate(self, context: str, n: int, *names: object) -> Completions:
        """n metered completions of any context by the current policy; `names` distinguish this request from others."""

    def logprobs(
        self, context: str, completions: Sequence[Tokens], policy: str = "current"
    ) -> list[NDArray[np.float32]]:
        """Metered log-probabilities of completions of one context under a policy, without gradient.

        One float32 array (tokens,) per completion. `policy` is `current`, `reference` (the run's start), `average`
        (after `averaged` was called) or `teacher` (reading it makes the track `teacher`).
        """

    def averaged(self) -> AveragedPolicy:
        """The policy averaged over steps, one per run, which starts as the policy is now: call it in `setup`.

        Raises MethodError where the processes of a run share the weights (FSDP2).
        """

    def written(self, item_id: str, text: str, source: str, reward: float = 1.0) -> Rollout:
        """A rollout that was written and not drawn, to be injected; its behaviour log-probabilities are unknown."""

    def valid_steps(self, rollout: Rollout) -> tuple[int, int]:
        """How many steps at the beginning of a rollout's trace are valid, and how many a full trace has.

        Only for rollouts drawn in this step and not yet recorded, so in `reward`, `plan_rollouts`, `inject` or `keep`.
        Asking makes the run's track `process`. Raises MethodError on a split whose traces cannot be checked.
        """

    def verdict(self, item_id: str, text: str) -> Verdict:
        """The verdict on any text: asking for it is reading the answer, and makes the run's track `answer`."""

    def answer(self, item_id: str) -> str:
        """The gold answer: reading it makes the run's track `answer`."""

    def solution(self, item_id: str) -> str:
        """The reference solution: reading it makes the run's track `solution`."""

    def group(self, item_id: str) -> GroupName | None:
        """The group that the labels put an item in: reading it makes the run's track `labels`."""

    def similar(self, item_id: str) -> Sequence[PoolItem]:
        """Problems like an item, which may be planned and selected from then on; track `labels`."""

    def sub_problems(self, item_id: str) -> Sequence[PoolItem]:
        """Steps towards an item, which may be planned and selected from then on; track `labels`."""


class Method:
    """The reference GRPO with every step open to change. Subclass it and override only what you invent."""

    track: ClassVar[Track] = "verifier"
    source: ClassVar[str] = "this project"
    start: ClassVar[Literal["base", "positive_control"]] = "base"
    """The policy that a run starts from; the split's mid-trained one makes the track `base`."""
    entropies: ClassVar[bool] = False
    """Whether `LossBatch.entropy` is wanted although the recipe's entropy bonus is 0."""
    teacher: Teacher = Teacher()
    """Who reads the rollouts that have `teacher_ids`; set `self.teacher` in `setup` where it depends on settings."""

    class Settings(Recipe):
        """Hyper-parameters, frozen and validated. A default that a subclass declares wins over the split's recipe."""

    run: Services

    def __init__(self, settings: Recipe) -> None:
        self.settings: Any = settings

    # --- hooks ------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Called once before any training, with `self.run` there; called again when a run is resumed."""

    def select_items(self, step: int) -> Sequence[str]:
        """Ids of the items of this step: epochs over the pool, each in a fresh order."""
        ids = [item.item_id for item in self.run.items]
        return in_epochs(
            ids, step, self.settings.prompts_per_step, lambda values, epoch: self.run.shuffled(values, "epoch", epoch)
        )

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """Rollouts to draw in this round, given the groups so far; empty ends the step's sampling."""
        if round > 0:
            return []
        return [Plan(item_id, self.settings.group_size) for item_id in selected]

    def reward(self, rollout: Rollout) -> float:
        """Training reward of a rollout; the verdict itself cannot be changed."""
        return float(bool(rollout.verdict.correct))

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Groups with replayed or foreign rollouts added; called before `keep`, so dead groups can be rescued."""
        return groups

    def keep(self, rollouts: RolloutGroup) -> bool:
        """Whether to train on a group (one that carries no signal is dropped before this is asked)."""
        return True

    def augment(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """The kept groups as they are trained on; the place to change loss contexts, token masks or `teacher_ids`."""
        return groups

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """Advantages (n,) or (n, tokens): r - mean, over the standard deviation unless `standardise` is off.

        Shao et al. 2024 (arXiv 2402.03300), section 4.1.2; without the division: Liu et al. 2025 (2503.20783).
        """
        rewards = rollouts.rewards
        centred = rewards - rewards.mean()
        if not self.settings.standardise:
            return centred
        return centred / (rewards.std(ddof=1) + 1e-6) if len(rewards) > 1 else centred

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """Loss of each token (rows, tokens): the clipped surrogate (Schulman et al. 2017, 1707.06347, eq. 7)."""
        ratio = batch.ratio
        clipped = ratio.clamp(1 - self.settings.clip_low, 1 + self.settings.clip_high)
        return -torch.minimum(ratio * batch.advantages, clipped * batch.advantages)

    def auxiliary_loss(self, batch: LossBatch) -> Tensor | None:
        """Further loss of each token: KL to the start (low-variance estimator) minus an entropy bonus.

        The estimator is exp(d) - d - 1 with d = log π_ref - log π (Shao et al. 2024, eq. 4). Its gradient is that
        of the loss as written, at the current policy, not of the KL's own expectation.
        """
        terms: list[Tensor] = []
        if batch.reference is not None:
            d = (batch.reference - batch.logprobs) * (batch.mask > 0)
            terms.append(self.settings.kl * (torch.exp(d) - d - 1))
        if batch.entropy is not None and self.settings.entropy > 0:
            terms.append(-self.settings.entropy * batch.entropy)
        return sum(terms[1:], terms[0]) if terms else None

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """Called after the updates of a step with what is logged of it."""

    def state_dict(self) -> Mapping[str, Any]:
        """What must survive a resume: numbers, strings, lists and dicts of them, numpy arrays, tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""

    def train(self, loop: Loop) -> None:
        """Train until the budget is spent. Override it to replace the loop; `no_training` returns at once."""
        loop.run()


class Loop(Protocol):
    """The reference loop, as `Method.train` sees it."""

    def run(self) -> None: ...


HOOKS = (
    "setup",
    "select_items",
    "plan_rollouts",
    "reward",
    "inject",
    "keep",
    "augment",
    "advantages",
    "policy_loss",
    "auxiliary_loss",
    "on_step_end",
    "state_dict",
    "load_state_dict",
    "train",
)


def overridden(method: type[Method]) -> list[str]:
    """The hooks that a class changes, in the order in which the loop calls them."""
    return [hook for hook in HOOKS if getattr(method, hook) is not getattr(Method, hook)]


def strays(method: type[Method]) -> dict[str, str | None]:
    """Public functions of a class that no loop will call, each with the hook its author may have meant."""
    known = {*dir(Method), *HOOKS}
    own = {
        name: value
        for cls in method.__mro__
        if issubclass(cls, Method) and cls is not Method
        for name, value in vars(cls).items()
    }
    found: dict[str, str | None] = {}
    for name, value in own.items():
        if callable(value) and not isinstance(value, type) and not name.startswith("_") and name not in known:
            near = difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.4)
            found[name] = near[0] if near else None
    return found


def settings_of(method: type[Method], recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A method's settings: the split's recipe, then defaults that the class declares itself, then `--set`.

    Raises pydantic.ValidationError for an unknown name or a value out of range.
    """
    declared: dict[str, Any] = {}
    for cls in reversed(method.Settings.__mro__):
        if issubclass(cls, Recipe) and cls is not Recipe:
            for name in inspect.get_annotations(cls):
                field = method.Settings.model_fields[name]
                if not field.is_required():
                    declared[name] = field.get_default(call_default_factory=True)
    settings = {**recipe.model_dump(), **declared, **changes}
    before, change = {**recipe.model_dump(), **declared}.get("lora"), changes.get("lora")
    if before is not None and isinstance(change, Mapping):  # what is not named of an adapter stays as it is
        settings["lora"] = {**dict(before), **change}
    return method.Settings.model_validate(settings)
