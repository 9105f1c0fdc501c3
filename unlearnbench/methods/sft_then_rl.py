"""Supervised fine-tuning on the reference solutions, then GRPO: the field's usual order of things.

Ouyang et al. 2022 (arXiv 2203.02155), section 3.1, and DeepSeek-R1's cold start (2501.12948), section 2.3. What
differs: both stages share one budget and one optimiser, and the first goes over the whole pool a few times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from unlearnbench.method import ZERO_SIGNAL, LossBatch, Method, Plan
from unlearnbench.records import RolloutGroup

TRACE = "solution"


class SftThenRl(Method):
    """Fine-tunes on reference solutions, then GRPO."""

    track = "solution"
    source = "arXiv 2203.02155"

    class Settings(Method.Settings):
        """Four epochs, since the policy is small and solutions are short; groups are dropped in `keep`."""

        epochs: float = 4.0
        drop_zero_signal: bool = False

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """None while solutions are learned."""
        if round == 0:
            self.selected = list(selected)
        return [] if self._fine_tuning() else super().plan_rollouts(step, round, selected, groups)

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """While solutions are learned, a group is one solution."""
        if not self._fine_tuning():
            return groups
        return [
            RolloutGroup(
                item_id,
                self.run.item(item_id).prompt,
                self.run.step,
                (self.run.written(item_id, self.run.solution(item_id), TRACE),),
            )
            for item_id in self.selected
        ]

    def keep(self, rollouts: RolloutGroup) -> bool:
        """Solutions always; of GRPO's groups those with a signal."""
        return self._fine_tuning() or bool(np.ptp(rollouts.rewards) > ZERO_SIGNAL)

    def advantages(self, rollouts: RolloutGroup) -> object:
        """1 for solutions."""
        return [1.0] * len(rollouts) if self._fine_tuning() else super().advantages(rollouts)

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """Negative log-likelihood of solutions; then the clipped surrogate."""
        return -batch.logprobs * batch.advantages if self._fine_tuning() else super().policy_loss(batch)

    def auxiliary_loss(self, batch: LossBatch) -> Tensor | None:
        """No KL while solutions are learned."""
        return None if self._fine_tuning() else super().auxiliary_loss(batch)

    def _fine_tuning(self) -> bool:
        return bool(self.run.step * self.settings.prompts_per_step < self.settings.epochs * len(self.run.items))
