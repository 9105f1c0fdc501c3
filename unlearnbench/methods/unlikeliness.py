"""Unlikeliness reward: of an item's successes, the improbable ones get more.

He, Fried and Welleck 2025, "Rewarding the Unlikely: Lifting GRPO Beyond Distribution Sharpening" (arXiv 2506.02355),
section 4: r_i = R_i (1 - β (G - rank_i) / G), where rank 0 is the likeliest of the group's G rollouts under the
policy that sampled them. A group that is wholly right has signal by it too. Completions of the same probability
share the mean of their ranks, since equal ones should be rewarded alike (the micro policy often repeats itself).
Differs from the paper: ties; and the split fixes KL and the number of updates (the paper also advises more of them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field
from scipy.stats import rankdata

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class Unlikeliness(Method):
    """GRPO on rewards weighted by rank of improbability."""

    source = "arXiv 2506.02355"

    class Settings(Method.Settings):
        """`beta_rank` is the paper's 0.25."""

        beta_rank: float = Field(default=0.25, ge=0, le=1)

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """The same rollouts with weighted rewards, before groups without signal are dropped."""
        return [self._weighted(group) for group in groups]

    def _weighted(self, group: RolloutGroup) -> RolloutGroup:
        """The group with r_i = R_i (1 - β (G - rank_i) / G)."""
        size = len(group)
        likelihoods = [round(float(rollout.logprobs.sum()), 4) for rollout in group]
        ranks = rankdata(-np.array(likelihoods)) - 1 if size else []
        weights = [1 - self.settings.beta_rank * (size - rank) / size for rank in ranks]
        rollouts = (replace(r, reward=r.reward * w) for r, w in zip(group, weights, strict=True))
        return replace(group, rollouts=tuple(rollouts))
