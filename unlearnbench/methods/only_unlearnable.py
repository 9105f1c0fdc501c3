"""The unlearnable items alone, with many rollouts each: all of the budget goes where nothing was learned.

"The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787) trains on the unlearnable items alone with 64 rollouts a
prompt. What differs: as many rollouts a step as the reference, so fewer prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

from unlearnbench.method import Method, Plan
from unlearnbench.records import RolloutGroup


class OnlyUnlearnable(Method):
    """Unlearnable items alone, 64 rollouts each."""

    track = "labels"
    source = "arXiv 2605.16787"

    class Settings(Method.Settings):
        """The paper's 64; the reference's prompts and group size give the rollouts of a step."""

        rollouts: int = 64

    def setup(self) -> None:
        """The items to train on. Raises ValueError where the labels name none."""
        self.chosen = [item.item_id for item in self.run.items if self.run.group(item.item_id) == "unlearnable"]
        if not self.chosen:
            raise ValueError("the split has no unlearnable items")

    def select_items(self, step: int) -> Sequence[str]:
        """Epochs over the unlearnable items, as many a step as rollouts allow."""
        settings = self.settings
        count = max(1, settings.prompts_per_step * settings.group_size // settings.rollouts)
        order: list[str] = []
        for position in range(step * count, (step + 1) * count):
            epoch, offset = divmod(position, len(self.chosen))
            order.append(self.run.shuffled(self.chosen, "epoch", epoch)[offset])
        return list(dict.fromkeys(order))

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """64 rollouts of each."""
        return [Plan(item_id, self.settings.rollouts) for item_id in selected] if round == 0 else []
