"""The reference GRPO on the pool less its unlearnable items: does training on them hurt the rest?"""

from __future__ import annotations

from collections.abc import Sequence

from unlearnbench.method import Method


class WithoutUnlearnable(Method):
    """GRPO that never sees an unlearnable item."""

    track = "labels"
    source = "this project"

    def setup(self) -> None:
        """The rest of the pool."""
        self.rest = [item.item_id for item in self.run.items if self.run.group(item.item_id) != "unlearnable"]

    def select_items(self, step: int) -> Sequence[str]:
        """Epochs over the rest, each in a fresh order."""
        count = self.settings.prompts_per_step
        chosen: list[str] = []
        for position in range(step * count, (step + 1) * count):
            epoch, offset = divmod(position, len(self.rest))
            chosen.append(self.run.shuffled(self.rest, "epoch", epoch)[offset])
        return list(dict.fromkeys(chosen))
