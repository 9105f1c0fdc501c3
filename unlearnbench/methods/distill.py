"""On-policy distillation: every token of the policy's own rollouts is scored by a better policy.

Agarwal et al. 2024, "On-Policy Distillation of Language Models" (GKD, arXiv 2306.13649), with student samples only
and the reverse KL of Gu et al. 2024 (MiniLLM, 2306.08543): a token's advantage is log teacher - log student, without
discount. What differs: the KL is estimated on the drawn token, not over the vocabulary. The teacher is the policy of
the split's positive control, before its GRPO.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class Distill(Method):
    """Own rollouts, each token towards a teacher."""

    track = "teacher"
    source = "arXiv 2306.13649"

    class Settings(Method.Settings):
        """No KL to the start, which the teacher is far from; no group is dropped, since rewards play no part."""

        kl: float = 0.0
        drop_zero_signal: bool = False
        largest: float = 5.0
        """Advantages are clipped to this many nats: a token that the teacher never says would make the whole update."""

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """log teacher - log student of each token, n rows."""
        taught = self.run.logprobs(rollouts.prompt, [rollout.token_ids for rollout in rollouts], policy="teacher")
        return [
            np.clip(row - rollout.logprobs, -self.settings.largest, self.settings.largest)
            for row, rollout in zip(taught, rollouts, strict=True)
        ]
