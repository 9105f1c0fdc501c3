"""Rollouts and verdicts, in memory only: dataclasses around numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlearnbench.records.base import Finish, Reason, Rule


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a completion states the gold answer. `correct` is None only after a `verifier_error`."""

    correct: bool | None
    answer: str | None
    reason: Reason
    rule: Rule = "strict"
    seconds: float = 0.0


Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion with everything that training needs to know about it.

    `prompt_ids` is the context that the tokens were sampled in, `context_ids` (default: the same) the one that the
    loss is computed in, `teacher_ids` (default: none) the one that a teacher reads the same tokens in
    (`LossBatch.divergence`). `logprobs` holds the behaviour log-probabilities, NaN where unknown; `mask` the weight of
    each token in the loss (default: ones). These two have one entry per token of the completion, the end token
    included.
    """

    item_id: str
    index: int
    prompt_ids: Tokens
    token_ids: Tokens
    logprobs: Floats
    completion: str
    finish: Finish
    verdict: Verdict
    reward: float
    iteration: int = 0
    round: int = 0
    policy_version: int = 0
    source: str = "policy"
    """`policy`, `hinted` (drawn in another context), `prefixed` (after a given beginning), or what a method injects."""
    context_ids: Tokens | None = None
    mask: Floats | None = None
    teacher_ids: Tokens | None = None


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All rollouts of one prompt in one step. `len(group)`, `group.rewards`, and iteration over rollouts work."""

    item_id: str
    prompt: str
    iteration: int
    rollouts: tuple[Rollout, ...]

    def __len__(self) -> int:
        return len(self.rollouts)

    def __iter__(self) -> Iterator[Rollout]:
        return iter(self.rollouts)

    @property
    def rewards(self) -> NDArray[np.float64]:
        """Rewards, shape (n,)."""
        return np.array([rollout.reward for rollout in self.rollouts], dtype=np.float64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each completion, shape (n,)."""
        return np.array([len(rollout.token_ids) for rollout in self.rollouts], dtype=np.int64)
