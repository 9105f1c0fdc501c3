"""PKPO: unbiased, low-variance policy gradients of pass@k, from n >= k rollouts of an item.

Walder and Karkhanis 2025, "Pass@K Policy Optimization" (arXiv 2505.15201). With rho(n, c, k) = 1 - C(n-c, k) / C(n, k),
the unbiased estimate of pass@k from c right of n, a right rollout has the transformed reward k/n and a wrong one
k/n rho(n-1, c, k-1) (theorem 2). The paper's baseline of least variance (eq. 33): of every set of k that holds
rollout i, subtract the best of the other k - 1, which is k/n rho(n-1, c_others, k-1). For right or wrong verdicts
that leaves 0 for a wrong rollout and k/n C(n-c, k-1) / C(n-1, k-1) for a right one: a success counts the more, the
fewer others there are, and a group wholly right teaches nothing for k > 1.
All of it is times n here, since the paper adds up what the loop averages over rollouts: so the step is that of
pass@k itself beside the KL term. Differs from the paper: k stays the same for the whole run (the paper also anneals
it to 1).
"""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from pydantic import Field

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class PassAtK(Method):
    """Policy gradient of pass@k from n rollouts."""

    source = "arXiv 2505.15201"

    class Settings(Method.Settings):
        """`--set k=8`; k is at most the group size. The paper has k in {2, 4, 8} of n = 16; here half of n = 8."""

        k: int = Field(default=4, ge=1)

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """n times the transformed rewards less their baseline, (n,)."""
        right = rollouts.rewards > 0
        n, c = len(right), int(right.sum())
        k = min(self.settings.k, n)
        rewards = np.where(right, 1.0, pass_rate(n - 1, c, k - 1) if c < n else 0.0)
        baseline = np.array([pass_rate(n - 1, c - own, k - 1) for own in right])
        return k * (rewards - baseline)


def pass_rate(n: int, c: int, k: int) -> float:
    """rho(n, c, k): the share of the sets of k among n rollouts that hold one of the c right ones (theorem 1)."""
    return 1.0 - comb(n - c, k) / comb(n, k)
