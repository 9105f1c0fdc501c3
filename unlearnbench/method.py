"""`Method`: what an algorithm overrides. Every default is the reference GRPO (PROTOCOL 1), so a new idea is short.

The loop of `train.py` calls the hooks in this order, once a step:

    select_items → plan_rollouts → reward → inject → keep → augment → advantages → policy_loss, auxiliary_loss
    └ again, round by round, until plan_rollouts asks for nothing more ┘              → on_step_end

A hook gets and returns small typed records (`RolloutGroup`, `Plan`, `LossBatch`). Arrays may be lists, numpy arrays
or torch tensors. What a method may ask for (more rollouts, log-probabilities, an item's history, privileged fields)
it asks of `self.run`, which meters it: the track of the result follows from what was read (PROTOCOL 3.9).
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

ZERO_SIGNAL = 1e-6  # a group whose raw rewards span no more than this teaches nothing (LOOP 8)


@dataclass(frozen=True, slots=True)
class PoolItem:
    """A problem as a method of track `verifier` sees it."""

    item_id: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Ask for n rollouts of an item, optionally sampled in another context than its prompt, or after a beginning.

    The loss of what was sampled in another `context` is computed in the item's own prompt; that of what was sampled
    after a `prefix` of the answer, in prompt and prefix.
    """

    item_id: str
    n: int
    context: str | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of one step's rollouts of an item."""

    step: int
    n: int
    correct: int


@dataclass(frozen=True, slots=True)
class LossBatch:
    """One micro-batch of rollouts; every tensor is (rows, tokens), right-padded, zero where `mask` is."""

    logprobs: Tensor
    """log π(token) of the current policy at the training temperature; carries the gradient."""
    behaviour: Tensor
    """log-probability under the policy that sampled the token (detached `logprobs` where it is unknown)."""
    reference: Tensor | None
    """log-probability under the starting policy, where a KL term asks for it."""
    entropy: Tensor | None
    """Entropy of the next-token distribution in nats, where an entropy term asks for it."""
    advantages: Tensor
    mask: Tensor
    sources: tuple[str, ...] = ()
    """The source of each row's rollout: `policy`, `hinted`, `prefixed`, or what the method called what it injected."""

    @property
    def ratio(self) -> Tensor:
        """π(token) / behaviour(token)."""
        return torch.exp((self.logprobs - self.behaviour) * (self.mask > 0))


class Services(Protocol):
    """What `self.run` offers inside a training process. Everything that costs compute or privilege is metered."""

    @property
    def seed(self) -> int: ...

    @property
    def step(self) -> int: ...

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

    def generate(self, context: str, n: int, *names: object) -> Completions:
        """n metered completions of any context by the current policy; `names` tell this request from others."""

    def logprobs(
        self, context: str, completions: Sequence[Tokens], policy: str = "current"
    ) -> list[NDArray[np.float32]]:
        """Metered log-probabilities of completions of one context under a policy, without gradient.

        `policy` is `current`, `reference` (the run's start) or `teacher` (reading it makes the track `teacher`).
        """

    def written(self, item_id: str, text: str, source: str, reward: float = 1.0) -> Rollout:
        """A rollout that was written and not drawn, to be injected; its behaviour log-probabilities are unknown."""

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

    class Settings(Recipe):
        """Hyper-parameters, frozen and validated. A default that a subclass declares wins over the split's recipe."""

    run: Services

    def __init__(self, settings: Recipe) -> None:
        self.settings: Any = settings

    # --- hooks ------------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Called once, when `self.run` is there and nothing has been trained (again after a resume)."""

    def select_items(self, step: int) -> Sequence[str]:
        """Ids of the items of this step: epochs over the pool, each in a fresh order."""
        ids = [item.item_id for item in self.run.items]
        count = self.settings.prompts_per_step
        chosen: list[str] = []
        position = step * count
        while len(chosen) < count:
            epoch, offset = divmod(position, len(ids))
            order = self.run.shuffled(ids, "epoch", epoch)
            chosen += order[offset : offset + count - len(chosen)]
            position = step * count + len(chosen)
        return chosen

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
        """The kept groups as they are trained on; a place to change loss contexts or token masks."""
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
        if batch.entropy is not None:
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
