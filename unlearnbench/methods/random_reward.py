"""A control: GRPO on coin tosses. What it changes, training changes without learning what is right.

Shao et al. 2025, "Spurious Rewards: Rethinking Training Signals in RLVR" (arXiv 2506.10947), section 2: each rollout
gets 1 with probability gamma, whatever it says. There it raised scores of some policies, which the clip's bias towards
what is already likely explains. Differs from the paper: only in what the split fixes.
"""

from __future__ import annotations

from pydantic import Field

from unlearnbench.method import Method
from unlearnbench.records import Rollout


class RandomReward(Method):
    """Control: GRPO on coin tosses."""

    source = "arXiv 2506.10947"

    class Settings(Method.Settings):
        """The paper's gamma = 0.5."""

        probability: float = Field(default=0.5, ge=0, le=1)

    def reward(self, rollout: Rollout) -> float:
        """1 or 0 by a coin of this rollout's own, so that a resumed run tosses the same."""
        coin = self.run.random("coin", rollout.item_id, rollout.round, rollout.index)
        return float(coin.random() < self.settings.probability)
