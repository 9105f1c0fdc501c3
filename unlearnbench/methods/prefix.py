"""A prefix of the reference solution in the context, shortened as success grows: a reverse curriculum.

Xi et al. 2024, "Training Large Language Models for Reasoning through Reverse Curriculum Reinforcement Learning" (R3,
arXiv 2402.05808): rollouts start from states of a correct demonstration, at first near its end. What differs: R3
mixes fixed start states in stages; here each item's prefix grows by a step when all its rollouts fail and shrinks by
one when at least half succeed, so an item that needs no help gets none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unlearnbench.method import Method, Plan
from unlearnbench.records import RolloutGroup

BOX = "\\boxed"


class Prefix(Method):
    """Starts after part of the reference solution."""

    track = "solution"
    source = "arXiv 2402.05808"

    class Settings(Method.Settings):
        """Quarters of the solution, by characters, up to its boxed answer."""

        parts: int = 4
        enough: float = 0.5
        """Success rate at which the prefix is shortened."""

    def setup(self) -> None:
        """No item has had a prefix yet."""
        self.given: dict[str, int] = {}

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """A group of each item after its prefix."""
        if round > 0:
            return []
        return [Plan(item_id, self.settings.group_size, prefix=self._prefix(item_id)) for item_id in selected]

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Nothing is added; the success of each group decides the item's next prefix."""
        for group in groups:
            parts = self.given.get(group.item_id, 0)
            if not group.rewards.any():
                self.given[group.item_id] = min(self.settings.parts, parts + 1)
            elif group.rewards.mean() >= self.settings.enough:
                self.given[group.item_id] = max(0, parts - 1)
        return groups

    def _prefix(self, item_id: str) -> str:
        parts = self.given.get(item_id, 0)
        if parts == 0:
            return ""
        steps = self.run.solution(item_id).split(BOX)[0]
        return steps[: round(len(steps) * parts / self.settings.parts)]

    def state_dict(self) -> Mapping[str, Any]:
        """Parts of the solution that each item is given."""
        return {"given": self.given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Prefixes as they were."""
        self.given = dict(state["given"])
