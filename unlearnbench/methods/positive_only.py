"""PSR, positive-sample reinforcement: learn from right rollouts alone, by making them likelier.

Zhu et al. 2025, "The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning" (arXiv 2506.01347),
section 2.2: rewards are 1 and -1 without a baseline, the objective is split into its two halves, and PSR keeps the
half of the right rollouts (L_PSR): fine-tuning on the policy's own successes. A group that is wholly right counts.
Differs from the paper: only in what the split fixes (clip, KL, learning rate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class PositiveOnly(Method):
    """1 for right rollouts, nothing for wrong ones."""

    source = "arXiv 2506.01347"

    class Settings(Method.Settings):
        """Without a baseline, groups whose rewards are all the same have signal."""

        drop_zero_signal: bool = False

    def keep(self, rollouts: RolloutGroup) -> bool:
        """Whether anything is right in the group."""
        return any(rollout.verdict.correct for rollout in rollouts)

    def augment(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """The right rollouts of each group: the others would cost a backward pass and teach nothing."""
        return [replace(group, rollouts=tuple(r for r in group if r.verdict.correct)) for group in groups]

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """1 each, (n,)."""
        return np.ones(len(rollouts))
