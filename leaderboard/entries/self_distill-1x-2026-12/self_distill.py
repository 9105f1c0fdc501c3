"""Self-distillation: the policy, shown one of its own successes, teaches itself without having seen it.

Huebotter et al. 2026, "Reinforcement Learning via Self-Distillation" (SDPO, arXiv 2601.20802), where the environment
gives only a right or wrong bit: for every rollout of a group with a success, the self-teacher is the current policy
with a success of the group in its context, and the loss is the reverse KL to it. What differs: the KL is estimated
on the drawn token alone, log teacher - log student as the token's advantage, instead of over the whole vocabulary,
and the teacher is the current policy rather than a moving average; the context's wording is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class SelfDistill(Method):
    """Each token's advantage is what a success in the context would have changed about it."""

    source = "arXiv 2601.20802"

    class Settings(Method.Settings):
        """Groups where all succeed teach nothing new; groups where all fail have nothing to show."""

        context: str = "correct: {success}; {prompt}"
        largest: float = 5.0
        """Advantages are clipped to this many nats, so that one surprised token does not make the whole update."""

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """log π(token | success, prompt) - log π(token | prompt), rows of one number a token.

        A rollout is shown the first success that is not itself; the only success of a group keeps advantage 0.
        """
        successes = [k for k, rollout in enumerate(rollouts) if rollout.verdict.correct]
        rows: list[Any] = []
        for k, rollout in enumerate(rollouts):
            others = [j for j in successes if j != k]
            if not others:
                rows.append(np.zeros(len(rollout.token_ids)))
                continue
            shown = rollouts.rollouts[others[0]].completion
            context = self.settings.context.format(success=shown, prompt=rollouts.prompt)
            (taught,) = self.run.logprobs(context, [rollout.token_ids])
            rows.append(np.clip(taught - rollout.logprobs, -self.settings.largest, self.settings.largest))
        return rows
