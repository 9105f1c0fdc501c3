"""Problems like the unlearnable ones join the pool: the paper's first augmentation.

"The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787) adds generated problems that resemble each unlearnable item
to training and finds gradient similarity and success unchanged. Problems that are an item or a twin are left out by
the split. What differs: a few problems an item, so that the pool does not grow beyond what the budget goes over.
"""

from __future__ import annotations

from collections.abc import Sequence

from unlearnbench.method import Method, PoolItem


class SimilarProblems(Method):
    """Problems similar to unlearnable items join training."""

    track = "labels"
    source = "arXiv 2605.16787"

    class Settings(Method.Settings):
        """Four problems an item double the pool of `micro`."""

        per_item: int = 4

    def setup(self) -> None:
        """The pool with its additions. Raises ValueError where the labels name no unlearnable item."""
        self.added = [
            problem.item_id
            for item in self.run.items
            if self.run.group(item.item_id) == "unlearnable"
            for problem in self._related(item.item_id)[: self.settings.per_item]
        ]
        if not self.added:
            raise ValueError("the split has no problems related to unlearnable items")

    def _related(self, item_id: str) -> Sequence[PoolItem]:
        """Which problems join for an item."""
        return self.run.similar(item_id)

    def select_items(self, step: int) -> Sequence[str]:
        """Epochs over items and additions together, each in a fresh order."""
        pool = [*(item.item_id for item in self.run.items), *self.added]
        count = self.settings.prompts_per_step
        chosen: list[str] = []
        for position in range(step * count, (step + 1) * count):
            epoch, offset = divmod(position, len(pool))
            chosen.append(self.run.shuffled(pool, "epoch", epoch)[offset])
        return list(dict.fromkeys(chosen))
