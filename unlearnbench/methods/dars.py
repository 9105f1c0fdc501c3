"""DARS: more rollouts for items that mostly fail, until their group weighs as much as a half-solved item's.

Yang et al. 2025, "Depth-Breadth Synergy in RLVR" (arXiv 2508.13755), difficulty-adaptive rollout sampling. A group of
n rollouts with success rate u has the cumulative advantage Σ|A_i| = 2 n u (1 - u) (with A = r - mean), which is
largest at u = 1/2. Phase 1 draws the usual rollouts and measures u; phase 2 draws further ones for items below 1/2,
up to `most` in all, so that the sum reaches that of u = 1/2 (schedule `equal`), or more the lower u is (`hardness`:
1.5 (1 - u) times that, where this is above 1). Factor and rounding are those that give the two tables in the authors'
code: for 0 to 3 right of 8 in all 32, 18, 11, 9 (`equal`) and 48, 24, 12, 9 (`hardness`).
Differs from the paper: its breadth part (one update a step on thousands of prompts) and its learning rate belong to
the split's recipe, and the split's KL stays. `stages` above 1 measure again and go on, within `max_rounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from unlearnbench.method import Method, Plan
from unlearnbench.records import RolloutGroup


class Dars(Method):
    """More rollouts for items that mostly fail."""

    source = "arXiv 2508.13755"

    class Settings(Method.Settings):
        """The limit in the authors' code is 32; with `--set schedule=hardness` it is 48, so add `--set most=48`."""

        standardise: bool = False
        schedule: Literal["equal", "hardness"] = "equal"
        most: int = Field(default=32, ge=1)
        stages: int = Field(default=1, ge=0)

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """Phase 1 in round 0, phase 2 in the `stages` rounds after it."""
        if round == 0:
            return super().plan_rollouts(step, round, selected, groups)
        if round > self.settings.stages:
            return []
        further = {group.item_id: self._total(group) - len(group) for group in groups}
        return [Plan(item_id, n) for item_id, n in further.items() if n > 0]

    def _total(self, group: RolloutGroup) -> int:
        """Rollouts that an item should have in all, by the success rate of those it has."""
        rate = sum(bool(rollout.verdict.correct) for rollout in group) / len(group)
        if rate >= 0.5:
            return len(group)
        target = self.settings.group_size * 2 * 0.5 * 0.5
        if self.settings.schedule == "hardness":
            target *= max(1.0, 1.5 * (1 - rate))
        share = 2 * rate * (1 - rate)  # cumulative advantage a rollout adds
        most: int = self.settings.most
        return min(round(target / share), most) if share > 0 else most
