"""RLOO: REINFORCE with the mean reward of an item's other rollouts as baseline.

Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE Style Optimization" (arXiv 2402.14740), section 2.2: the
gradient is 1/k Σ_i (R_i - mean of R_j over j ≠ i) ∇ log π(y_i), a whole completion being one action: no ratio, no
clip, and the log-probabilities of a completion's tokens are added up (here over a constant). Differs from the paper:
the split's KL is a loss term (the paper subtracts it from the reward), and of the split's updates on each batch all
but the first are slightly off-policy (the paper makes one).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from torch import Tensor

from unlearnbench.method import LossBatch, Method
from unlearnbench.records import RolloutGroup


class Rloo(Method):
    """REINFORCE with a leave-one-out baseline."""

    source = "arXiv 2402.14740"

    class Settings(Method.Settings):
        """Sums over a completion's tokens."""

        aggregation: Literal["token_mean", "sequence_mean", "constant"] = "constant"

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """r_i minus the mean of the others, (n,)."""
        rewards, n = rollouts.rewards, len(rollouts)
        return rewards - (rewards.sum() - rewards) / (n - 1) if n > 1 else np.zeros(n)

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """-A log π of each token."""
        return -batch.advantages * batch.logprobs
