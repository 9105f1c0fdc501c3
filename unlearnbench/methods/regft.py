"""ReGFT: fine-tune on own traces, of hard items drawn with part of the reference solution at hand, then GRPO.

Wu et al. 2026, "Learn Hard Problems During RL with Reference Guided Fine-tuning" (arXiv 2603.01223): items that the
starting policy solves in less than a quarter of its attempts are tried again with the first 80 % of their reference
solution as a hint, the policy reasoning from the start on its own; right rollouts of both kinds are learned by maximum
likelihood in the item's own prompt, and reinforcement learning goes on from there. What differs: as many rollouts per
item as the reference draws (16 in the paper), so that collecting leaves some of the budget; 80 % of the worked steps,
so that no part of the boxed answer is shown; GRPO where the paper has DAPO; one budget and one optimiser for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from unlearnbench.method import Method, Plan
from unlearnbench.methods.sft_unlearnable import SftUnlearnable
from unlearnbench.records import RolloutGroup

BOX = "\\boxed"


class Regft(SftUnlearnable):
    """Fine-tunes on own hinted traces, then GRPO."""

    track = "solution"  # type: ignore[assignment]  # it reads no labels, unlike what it builds on
    source = "arXiv 2603.01223"

    class Settings(Method.Settings):
        """`hard` and `shown` are the paper's; epochs and traces per item are those of `sft_unlearnable`."""

        rollouts: int = Field(default=8, ge=1)
        hard: float = Field(default=0.25, ge=0, le=1)
        shown: float = Field(default=0.8, ge=0, le=1)
        epochs: int = 4
        most: int = 8
        context: str = "{hint} {prompt}"
        drop_zero_signal: bool = False

    def setup(self) -> None:
        """All items are collected from."""
        self.chosen = [item.item_id for item in self.run.items]
        self.successes: list[tuple[str, str]] = []

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """While collecting: some of each item, then as many of hard ones with the hint."""
        if self.phase != "collect" or round != 1:
            return super().plan_rollouts(step, round, selected, groups)
        return [
            Plan(group.item_id, self.settings.rollouts, context=self._hinted(group))
            for group in groups
            if group.rewards.mean() < self.settings.hard
        ]

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """While collecting, only what hard items brought is remembered."""
        if self.phase != "collect":
            return super().inject(groups)
        plain = {g.item_id: [bool(r.verdict.correct) for r in g if r.source != "hinted"] for g in groups}
        hard = [g for g in groups if sum(plain[g.item_id]) < self.settings.hard * len(plain[g.item_id])]
        return super().inject(hard)

    def _hinted(self, group: RolloutGroup) -> str:
        steps = self.run.solution(group.item_id).split(BOX)[0]
        hint = steps[: round(self.settings.shown * len(steps))]
        return str(self.settings.context.format(hint=hint, prompt=group.prompt))
