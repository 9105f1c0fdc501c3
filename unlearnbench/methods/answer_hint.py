"""Rationalise: where no rollout succeeds, sample with the answer in the context and learn without it.

Zelikman et al. 2022, "STaR" (arXiv 2203.14465), section 3.2: a problem that was not solved is tried again with its
answer as a hint, and a rationale that leads to the answer is learned as if it had been found without. What differs:
STaR fine-tunes from the start again after each round of a whole data set; here hinted successes join their group in
GRPO, accepted by the verifier, with ratio 1 in the item's own prompt (the hint is not what their ratio should
correct for).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unlearnbench.method import Method, Plan
from unlearnbench.records import Rollout, RolloutGroup


class AnswerHint(Method):
    """Failed items again with the answer shown."""

    track = "answer"
    source = "arXiv 2203.14465"

    class Settings(Method.Settings):
        """One hinted rollout per failed item, as STaR rationalises a failed problem once; the wording is ours.

        With four of them a policy that cannot use the answer learns guesses: on micro at 0.25x it lost 65 of the 257
        easy items, with one 12.
        """

        hinted: int = 1
        hint: str = "answer: {answer}; {prompt}"

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """The usual rollouts; then hinted ones for items that had no success."""
        if round != 1:
            return super().plan_rollouts(step, round, selected, groups)
        return [
            Plan(group.item_id, self.settings.hinted, context=self._hint(group))
            for group in groups
            if not group.rewards.any()
        ]

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Of the hinted rollouts only successes stay: a failure with the answer at hand says nothing about the item."""
        return [
            replace(group, rollouts=tuple(_unhinted(r) for r in group if r.source != "hinted" or r.verdict.correct))
            for group in groups
        ]

    def _hint(self, group: RolloutGroup) -> str:
        return str(self.settings.hint).format(answer=self.run.answer(group.item_id), prompt=group.prompt)


def _unhinted(rollout: Rollout) -> Rollout:
    """With unknown log-probabilities, so that the ratio is 1 where the loss is computed."""
    if rollout.source != "hinted":
        return rollout
    return replace(rollout, logprobs=np.full(len(rollout.token_ids), np.nan, dtype=np.float32))
