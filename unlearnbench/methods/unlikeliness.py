"""Unlikeliness reward: of an item's successes, the improbable ones get more.

He, Fried and Welleck 2025, "Rewarding the Unlikely: Lifting GRPO Beyond Distribution Sharpening" (arXiv 2506.02355),
section 4: the reward of a success is lowered by β times the share of its group that is less likely than it, under
the policy that sampled them; the advantages are GRPO's on these rewards. Likelihood is the mean log-probability of
the tokens, and groups wholly right or wrong are dropped before, both as in the authors' code. Differs from the
paper: completions of the same likelihood share the mean of their ranks (the micro policy often repeats itself, and
equal completions should be rewarded alike), and the split fixes KL and updates (the paper has KL 0.1 and two passes).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field
from scipy.stats import rankdata

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class Unlikeliness(Method):
    """GRPO that rewards improbable successes more."""

    source = "arXiv 2506.02355"

    class Settings(Method.Settings):
        """The authors' penalty of 0.25 (`rank_penalty` in their scripts)."""

        beta_rank: float = Field(default=0.25, ge=0, le=1)

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """GRPO's advantages of r_i = R_i (1 - β rank_i / G), rank 0 being the least likely, (n,)."""
        likelihoods = [round(float(np.mean(rollout.logprobs)), 5) for rollout in rollouts]  # less is rounding
        share = (rankdata(likelihoods) - 1) / len(rollouts)
        weighted = rollouts.rewards * (1 - self.settings.beta_rank * share)
        changed = (replace(rollout, reward=float(r)) for rollout, r in zip(rollouts, weighted, strict=True))
        return super().advantages(replace(rollouts, rollouts=tuple(changed)))
