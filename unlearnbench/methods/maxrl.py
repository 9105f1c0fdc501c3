"""MaxRL: the gradient of log-likelihood of success, as far as n rollouts can estimate it, in place of that of success.

Tajwar et al. 2026, "Maximum Likelihood Reinforcement Learning" (arXiv 2602.02710): log p = -Σ_k (1 - p)^k / k, cut
off at k = n, has as unbiased gradient estimate the mean score of the *successful* rollouts; the mean score of all
rollouts is subtracted as a control variate. So the advantage is (r - mean) / mean: GRPO's division by the standard
deviation becomes one by the mean, and an item's weight grows as its success rate falls.
Differs from the paper: only in what the split fixes (clip, KL). A group without success gives no update, as in the
authors' algorithm; with the control variate the expectation is then that of the series cut off at n - 1 (which
tests/test_methods_verifier.py shows by enumeration), not n.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class Maxrl(Method):
    """Advantages divided by the group's mean reward."""

    source = "arXiv 2602.02710"

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """(r - mean) / mean, (n,); zero where nothing succeeded."""
        rewards = rollouts.rewards
        mean = rewards.mean()
        return (rewards - mean) / mean if mean > 0 else np.zeros(len(rewards))
