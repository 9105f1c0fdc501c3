"""ReMind: items that were once wholly solved wait in a queue and are reviewed now and then, in place of new ones.

Qin et al. 2026, "Learning to Solve, Forgetting to Retain: Correct-Set Turnover in RLVR" (arXiv 2606.03087), by the
authors' read-me (github.com/cyuQ1n/Correct-Set-Turnover-in-RLVR). An item whose rollouts are all right joins the queue
with probability 1/4; every fifth step the last tenth of the batch is replaced by the items that have waited longest; a
reviewed item that is wholly right again leaves, one that is not goes back to the end of the queue and is trained on as
any other. No further rollouts are drawn. What differs: reviews begin after a tenth of the budget, where the authors
have step 50 of their run; and the queue is not bounded (theirs holds 20,000 items, more than the pools here).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from unlearnbench.method import Method
from unlearnbench.records import RolloutGroup


class Remind(Method):
    """A review queue of items once solved."""

    source = "arXiv 2606.03087"

    class Settings(Method.Settings):
        """The authors' defaults, but for `first`, a share of the budget."""

        joins: float = Field(default=0.25, ge=0, le=1)
        every: int = Field(default=5, ge=1)
        share: float = Field(default=0.1, ge=0, le=1)
        first: float = Field(default=0.1, ge=0, le=1)

    def setup(self) -> None:
        self.queue: list[str] = []

    def select_items(self, step: int) -> Sequence[str]:
        """The reference's; in a review the last of them give way to the first of the queue."""
        usual = list(super().select_items(step))
        self.reviewed: list[str] = []
        if step % self.settings.every or self.run.progress < self.settings.first:
            return usual
        count = min(round(self.settings.share * len(usual)), len(self.queue))
        self.reviewed, self.queue = self.queue[:count], self.queue[count:]
        kept = usual[: len(usual) - count]
        return [*kept, *(item_id for item_id in self.reviewed if item_id not in kept)]

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Nothing is added; the queue follows what was seen."""
        waiting = set(self.queue)
        for group in groups:
            mastered = all(rollout.verdict.correct for rollout in group)
            if group.item_id in self.reviewed:
                joins = not mastered
            else:
                joins = mastered and self.run.random("joins", group.item_id).random() < self.settings.joins
            if joins and group.item_id not in waiting:
                self.queue.append(group.item_id)
        return groups

    def state_dict(self) -> Mapping[str, Any]:
        return {"queue": self.queue}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.queue = list(state["queue"])
