"""GSPO: importance ratio and clip of whole completions instead of tokens.

Zheng et al. 2025, "Group Sequence Policy Optimization" (arXiv 2507.18071): the ratio is that of the completion's
likelihoods to the power 1/length (eq. 7), the clipped objective is a mean over completions (eq. 5), and the
advantage is GRPO's (eq. 6). Differs from the paper: only in what the split fixes (KL, updates a batch).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from unlearnbench.method import LossBatch, Method


class Gspo(Method):
    """Ratio and clip of whole completions."""

    source = "arXiv 2507.18071"

    class Settings(Method.Settings):
        """Section 5.1. On `micro` they clip 31 % of completions (the paper: 15 %; 12 % with ten times wider ranges)."""

        clip_low: float = 3e-4
        clip_high: float = 4e-4
        aggregation: Literal["sequence_mean"] = "sequence_mean"

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """Loss of each token (rows, tokens): that of its completion, whose mean over tokens is itself."""
        used = (batch.mask > 0).to(batch.logprobs.dtype)
        mean = ((batch.logprobs - batch.behaviour) * used).sum(1) / used.sum(1).clamp(min=1)
        ratio = torch.exp(mean)[:, None]
        clipped = ratio.clamp(1 - self.settings.clip_low, 1 + self.settings.clip_high)
        return -torch.minimum(ratio * batch.advantages, clipped * batch.advantages)
