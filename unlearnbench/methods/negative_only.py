"""NSR, negative-sample reinforcement: learn from wrong rollouts alone, by making them less likely.

Zhu et al. 2025, "The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning" (arXiv 2506.01347),
section 2.2: rewards are 1 and -1 without a baseline, the objective is split into its two halves, and NSR keeps the
half of the wrong rollouts (L_NSR). So a group that is wholly wrong counts, and right rollouts are not trained on.
Differs from the paper: only in what the split fixes (clip, KL, learning rate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class NegativeOnly(Method):
    """-1 for wrong rollouts, nothing for right ones."""

    source = "arXiv 2506.01347"

    class Settings(Method.Settings):
        """Without a baseline, groups whose rewards are all the same have signal."""

        drop_zero_signal: bool = False

    def keep(self, rollouts: RolloutGroup) -> bool:
        """Whether anything is wrong in the group."""
        return not all(rollout.verdict.correct for rollout in rollouts)

    def augment(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """The wrong rollouts of each group: the others would cost a backward pass and teach nothing."""
        return [replace(group, rollouts=tuple(r for r in group if not r.verdict.correct)) for group in groups]

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """-1 each, (n,)."""
        return np.full(len(rollouts), -1.0)
