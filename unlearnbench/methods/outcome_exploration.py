"""Outcome-based exploration: a bonus for final answers that were rarely given, over training and within the group.

Song, Kempe and Munos 2025, "Outcome-based Exploration for LLM Reasoning" (arXiv 2509.06941). Historical exploration
adds a bonus of the upper-confidence-bound kind, b(x, a) = min(1, sqrt(1 / N(x, a))) with N the times that answer a was
given to item x so far; batch exploration punishes an answer for each other rollout of the group that gives it, b(i) =
-(1 / n) Σ_{j ≠ i} [a_i = a_j]. Both are added to GRPO's advantage, less their mean over the group. What differs: the
paper treats them as two algorithms, here both are on (`--set batch=0` leaves the first); a rollout that states no
answer gets no bonus, since being unreadable is no exploration. Only the abstract could be read: the form of the bonuses
is the usual one that fits it, and both coefficients are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.method import ZERO_SIGNAL, Method
from unlearnbench.records import Rollout, RolloutGroup


class OutcomeExploration(Method):
    """GRPO with a bonus for rare final answers."""

    source = "arXiv 2509.06941"

    class Settings(Method.Settings):
        """Weights of the two bonuses beside standardised advantages. A group of equal rewards may differ in bonuses."""

        historical: float = Field(default=0.1, ge=0)
        batch: float = Field(default=0.1, ge=0)
        drop_zero_signal: bool = False

    def setup(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        """How often each answer was given to each item."""

    def reward(self, rollout: Rollout) -> float:
        """1 or 0 by the verdict; the answer is counted."""
        if rollout.verdict.answer is not None:
            self.counts.setdefault(rollout.item_id, Counter())[rollout.verdict.answer] += 1
        return super().reward(rollout)

    def bonus(self, rollouts: RolloutGroup) -> NDArray[np.float64]:
        """Both bonuses together, (n,), with mean 0."""
        answers = [rollout.verdict.answer for rollout in rollouts]
        past, here = self.counts.get(rollouts.item_id, Counter()), Counter(answers)
        n = len(answers)
        rare = np.array([0.0 if a is None else min(1.0, max(1, past[a]) ** -0.5) for a in answers])
        repeated = np.array([-1.0 if a is None else -(here[a] - 1) / n for a in answers])
        total = self.settings.historical * rare + self.settings.batch * repeated
        return np.asarray(total - total.mean())

    def keep(self, rollouts: RolloutGroup) -> bool:
        """Whether anything differs: rewards, or bonuses."""
        return bool(max(np.ptp(rollouts.rewards), np.ptp(self.bonus(rollouts))) > ZERO_SIGNAL)

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """GRPO's plus the bonuses, (n,)."""
        return super().advantages(rollouts) + self.bonus(rollouts)

    def state_dict(self) -> Mapping[str, Any]:
        return {"counts": {item_id: dict(counts) for item_id, counts in self.counts.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counts = {item_id: Counter(counts) for item_id, counts in state["counts"].items()}
