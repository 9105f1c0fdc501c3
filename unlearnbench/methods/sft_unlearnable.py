"""Fine-tune on the correct rollouts of unlearnable items, then GRPO.

"The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787) fine-tunes on correct answers that the policy itself gave to
unlearnable items. Here: draw 64 rollouts of each unlearnable item from the starting policy, keep the correct ones,
learn them by maximum likelihood for a few epochs, and go on with the reference GRPO. What differs: one budget and one
optimiser for all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from unlearnbench.method import ZERO_SIGNAL, LossBatch, Method, Plan
from unlearnbench.records import RolloutGroup

SUCCESS = "success"


class SftUnlearnable(Method):
    """Fine-tunes on unlearnable items' successes, then GRPO."""

    track = "labels"
    source = "arXiv 2605.16787"

    class Settings(Method.Settings):
        """64 rollouts as in the paper's other experiment; four epochs, at most eight successes an item."""

        rollouts: int = 64
        epochs: int = 4
        most: int = 8
        drop_zero_signal: bool = False

    def setup(self) -> None:
        """The items to collect from. Raises ValueError where the labels name none."""
        self.chosen = [item.item_id for item in self.run.items if self.run.group(item.item_id) == "unlearnable"]
        if not self.chosen:
            raise ValueError("the split has no unlearnable items")
        self.successes: list[tuple[str, str]] = []

    @property
    def at_once(self) -> int:
        """Items to collect from in a step, for as many rollouts as the reference draws."""
        settings = self.settings
        return int(max(1, settings.prompts_per_step * settings.group_size // settings.rollouts))

    @property
    def learning_step(self) -> int:
        """Steps since all was collected; negative before."""
        return self.run.step + -len(self.chosen) // self.at_once

    @property
    def epoch_steps(self) -> int:
        """Steps that go once over what was collected."""
        return -(-len(self.successes) // int(self.settings.prompts_per_step))

    @property
    def phase(self) -> str:
        """`collect`, `learn` or `reinforce`, by the step alone."""
        if self.learning_step < 0:
            return "collect"
        return "learn" if self.learning_step < self.settings.epochs * self.epoch_steps else "reinforce"

    def select_items(self, step: int) -> Sequence[str]:
        """The next unlearnable items to collect from; GRPO's own once that is done."""
        if self.phase != "collect":
            return super().select_items(step)
        return self.chosen[step * self.at_once : (step + 1) * self.at_once]

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """64 of each while collecting, none while learning."""
        if self.phase == "collect":
            return [Plan(item_id, self.settings.rollouts) for item_id in selected] if round == 0 else []
        return [] if self.phase == "learn" else super().plan_rollouts(step, round, selected, groups)

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Remember successes; while learning, groups are successes of the next items."""
        if self.phase == "collect":
            for group in groups:
                won = [rollout.completion for rollout in group if rollout.verdict.correct]
                self.successes += [(group.item_id, text) for text in won[: self.settings.most]]
            return []
        if self.phase == "reinforce":
            return groups
        epoch, place = divmod(self.learning_step, self.epoch_steps)
        order = self.run.shuffled(self.successes, "learn", epoch)
        start = place * self.settings.prompts_per_step
        return [
            RolloutGroup(
                item_id, self.run.item(item_id).prompt, self.run.step, (self.run.written(item_id, text, SUCCESS),)
            )
            for item_id, text in order[start : start + self.settings.prompts_per_step]
        ]

    def keep(self, rollouts: RolloutGroup) -> bool:
        """Successes always; of GRPO's groups those with a signal."""
        return self.phase == "learn" or bool(np.ptp(rollouts.rewards) > ZERO_SIGNAL)

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """1 for successes that are learned."""
        return [1.0] * len(rollouts) if self.phase == "learn" else super().advantages(rollouts)

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """Negative log-likelihood while learning; then the clipped surrogate."""
        return -batch.logprobs * batch.advantages if self.phase == "learn" else super().policy_loss(batch)

    def auxiliary_loss(self, batch: LossBatch) -> Tensor | None:
        """No KL while learning."""
        return None if self.phase == "learn" else super().auxiliary_loss(batch)

    def state_dict(self) -> Mapping[str, Any]:
        """The successes collected so far."""
        return {"successes": [list(pair) for pair in self.successes]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Successes as they were."""
        self.successes = [(item_id, text) for item_id, text in state["successes"]]
