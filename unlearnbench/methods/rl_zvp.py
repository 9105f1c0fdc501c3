"""RL-ZVP: groups whose rollouts are all right or all wrong teach, too, each token by its entropy.

Le et al. 2025, "No Prompt Left Behind: Exploiting Zero-Variance Prompts in LLM Reinforcement Learning via
Entropy-Guided Advantage Shaping" (arXiv 2509.21880): the advantage of token t of a rollout is GRPO's where the rewards
of its group differ, alpha H_t where all are right, and -alpha (max_k H_k - H_t) where all are wrong, with H_t the
entropy of the distribution that the token was drawn from and the maximum over the rollout's tokens, both without
gradient. What differs: entropies are those of the policy at the update instead of the one that drew the rollout (they
are the same at a step's first update). The equations' numbers could not be checked; alpha = 0.1 is what
reimplementations take from the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unlearnbench.method import ZERO_SIGNAL, LossBatch, Method
from unlearnbench.records import RolloutGroup


class RlZvp(Method):
    """Zero-variance groups teach by their tokens' entropy."""

    source = "arXiv 2509.21880"
    entropies = True

    class Settings(Method.Settings):
        """No group is without signal."""

        alpha: float = Field(default=0.1, ge=0)
        drop_zero_signal: bool = False

    def augment(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """The groups as they are; which items have all right (1) or all wrong (-1) is remembered for the loss."""
        self.uniform = {
            group.item_id: 1 if group.rewards[0] > 0 else -1 for group in groups if np.ptp(group.rewards) <= ZERO_SIGNAL
        }
        return groups

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """The clipped surrogate, with the advantages of zero-variance groups in place."""
        assert batch.entropy is not None
        entropy = (batch.entropy.detach() * (batch.mask > 0)).clamp(min=0)
        direction = torch.tensor([self.uniform.get(item, 0) for item in batch.item_ids], device=entropy.device)[:, None]
        penalty = entropy - entropy.amax(1, keepdim=True)
        shaped = self.settings.alpha * torch.where(direction > 0, entropy, penalty)
        return super().policy_loss(replace(batch, advantages=torch.where(direction == 0, batch.advantages, shaped)))

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """GRPO's, (n,), which are 0 where all rewards are the same."""
        return super().advantages(rollouts) if rollouts.item_id not in self.uniform else np.zeros(len(rollouts))
