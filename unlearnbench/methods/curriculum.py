"""A curriculum by running success rate: items that sometimes succeed are selected more often.

Foster et al. 2025, "Learning to Reason at the Frontier of Learnability" (arXiv 2502.12272): a share of each batch is
sampled for learnability p (1 - p), with p the item's success rate; the rest is drawn from the whole pool.
Differs from the paper: p comes from the item's last visits in training, (right + 1) / (rollouts + 2), which costs
nothing, instead of from further rollouts every few steps; and items are drawn in proportion to p (1 - p) instead of
evenly from a buffer of the best. An item that was never visited counts as p = 1/2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from unlearnbench.method import Method


class Curriculum(Method):
    """Items near a success rate of 1/2."""

    source = "arXiv 2502.12272"

    class Settings(Method.Settings):
        """Half of the batch by learnability and half from the whole pool."""

        share: float = Field(default=0.5, ge=0, le=1)
        visits: int = Field(default=3, ge=1)
        """How many of an item's last visits p is taken from: 24 rollouts at a group size of 8."""

    def select_items(self, step: int) -> Sequence[str]:
        """The pool's part is the first of what the reference would take, the rest is drawn by learnability."""
        usual = super().select_items(step)
        explored = usual[: len(usual) - round(self.settings.share * len(usual))]
        explored = list(dict.fromkeys(explored))  # where epochs meet, an item may come twice
        rest = [item.item_id for item in self.run.items if item.item_id not in explored]
        weights = np.array([self._learnability(item_id) for item_id in rest])
        count = min(len(usual) - len(explored), len(rest))
        if count == 0:
            return explored
        drawn = self.run.random("curriculum").choice(len(rest), count, replace=False, p=weights / weights.sum())
        return [*explored, *(rest[i] for i in drawn)]

    def _learnability(self, item_id: str) -> float:
        """p (1 - p) by the item's last visits; above 0 for every item."""
        past = self.run.history(item_id)[-self.settings.visits :]
        rate = (sum(visit.correct for visit in past) + 1) / (sum(visit.n for visit in past) + 2)
        return rate * (1 - rate)
