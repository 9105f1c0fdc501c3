"""Steps towards the unlearnable items join the pool: the paper's second augmentation.

"The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787) decomposes each unlearnable item into simpler problems and
trains on them as well. As `similar_problems`, with sub-problems.
"""

from __future__ import annotations

from collections.abc import Sequence

from unlearnbench.method import PoolItem
from unlearnbench.methods.similar_problems import SimilarProblems


class SubProblems(SimilarProblems):
    """Sub-problems of unlearnable items join training."""

    source = "arXiv 2605.16787"

    def _related(self, item_id: str) -> Sequence[PoolItem]:
        """Which problems join for an item."""
        return self.run.sub_problems(item_id)
