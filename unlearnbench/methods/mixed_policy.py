"""Reference traces in every group, weighted by how likely the policy finds them already.

Yan et al. 2025, "Learning to Reason under Off-Policy Guidance" (LUFFY, arXiv 2504.14945): the group's advantages are
standardised over rollouts and trace together (eq. 3); a token of the trace has the shaped weight π / (π + gamma) in
place of the clipped ratio, gamma = 0.1 (eq. 5 and 6), the trace's own probability being taken as 1. What differs: the
reference solution stands in for a stronger model's trace, and groups whose rollouts and trace all have the same
reward are dropped as in the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unlearnbench.method import LossBatch, Method
from unlearnbench.records import RolloutGroup

TRACE = "solution"


class MixedPolicy(Method):
    """The reference solution joins every group."""

    track = "solution"
    source = "arXiv 2504.14945"

    class Settings(Method.Settings):
        """gamma of the paper, and one trace a group."""

        gamma: float = 0.1

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Every group gets its item's solution."""
        return [
            replace(
                group,
                rollouts=(
                    *group.rollouts,
                    self.run.written(group.item_id, self.run.solution(group.item_id), TRACE),
                ),
            )
            for group in groups
        ]

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """Shaped for traces, clipped for rollouts."""
        probability = torch.exp(batch.logprobs)
        shaped = probability / (probability + self.settings.gamma) * batch.advantages
        traces = torch.tensor([source == TRACE for source in batch.sources], device=shaped.device)[:, None]
        return torch.where(traces, -shaped, super().policy_loss(batch))
