r"""A control: GRPO that rewards any boxed answer. What it changes, stating answers changes without learning any.

Shao et al. 2025, "Spurious Rewards: Rethinking Training Signals in RLVR" (arXiv 2506.10947), section 2: a rollout
gets 1 if it holds a \boxed{} that is not empty, right or wrong. Differs from the paper: only in what the split fixes.
"""

from __future__ import annotations

import re

from unlearnbench.method import Method
from unlearnbench.records import Rollout

BOX = re.compile(r"\\boxed\s*\{\s*[^\s}].*?\}", re.DOTALL)


class FormatReward(Method):
    """Control: GRPO that rewards any boxed answer."""

    source = "arXiv 2506.10947"

    def reward(self, rollout: Rollout) -> float:
        """1 if an answer is boxed, else 0; the verdict is not asked."""
        return float(BOX.search(rollout.completion) is not None)
