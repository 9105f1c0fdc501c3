"""Easy and learnable items first, then all: the paper's curriculum.

"The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787) trains on easy and learnable examples first and on all of
them afterwards, and finds that what is learned does not carry over to unlearnable ones. What differs: how long the
first phase lasts could not be found (the released code has no such script); here it is half of the budget.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from unlearnbench.method import Method


class CurriculumEasyFirst(Method):
    """Easy and learnable items first, then all."""

    track = "labels"
    source = "arXiv 2605.16787"

    class Settings(Method.Settings):
        """`first` is the share of the budget that the first phase takes."""

        first: float = Field(default=0.5, ge=0, le=1)

    def setup(self) -> None:
        """The items of the first phase. Raises ValueError where the labels name none."""
        self.solvable = [
            item.item_id for item in self.run.items if self.run.group(item.item_id) in ("easy", "learnable")
        ]
        if not self.solvable:
            raise ValueError("the split has neither easy nor learnable items")

    def select_items(self, step: int) -> Sequence[str]:
        """Epochs over the items of the phase, each in a fresh order."""
        if self.run.progress >= self.settings.first:
            return super().select_items(step)
        count = self.settings.prompts_per_step
        order: list[str] = []
        for position in range(step * count, (step + 1) * count):
            epoch, offset = divmod(position, len(self.solvable))
            order.append(self.run.shuffled(self.solvable, "first", epoch)[offset])
        return list(dict.fromkeys(order))
