"""Hints only where all rollouts fail: knowledge, then a plan, then steps, until one succeeds; or a hint of its own.

Zhang et al. 2025, "Scaf-GRPO: Scaffolded Group Relative Policy Optimization" (arXiv 2510.19807): after the first 15 %
of training, an item whose rollouts all failed is tried again with a hint in its prompt, from abstract to concrete; the
first success takes the place of one failure, advantages are taken anew, and its ratio is that of the hinted prompt (eq.
4). The authors have hints written by a stronger model from the reference solution; here they are cut from it without
one: its words and signs without numbers (knowledge), its worked steps with every number masked (plan), half of the
steps (steps); never the boxed answer. `--set variant=self` is Chen et al. 2025, "Nudging the Boundaries of LLM
Reasoning" (NuRL, 2509.25666): the policy itself writes an explanation from the gold answer and an abstract hint from
that, once per item; where all fail, all but one of the group are drawn again with the hint. What differs there: the
paper writes all hints before training, with the policy that a first stage of GRPO left; here each is written when it is
first needed. Reading the answer for it is noted, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from unlearnbench.method import Method, Plan
from unlearnbench.records import Rollout, RolloutGroup

BOX = "\\boxed"


class Hints(Method):
    """Hints in the prompt where all fail."""

    track = "solution"
    source = "arXiv 2510.19807"

    class Settings(Method.Settings):
        """`exempt` is Scaf-GRPO's share of training without hints; `hinted` rollouts per tier are ours."""

        variant: Literal["tiers", "self"] = "tiers"
        exempt: float = Field(default=0.15, ge=0, le=1)
        hinted: int = Field(default=4, ge=1)
        context: str = "{hint} {prompt}"
        explain: str = "{prompt} answer: {answer}; explain: "
        abstract: str = "{explanation} hint: "

    def setup(self) -> None:
        self.written: dict[str, str] = {}
        """The hints that the policy wrote itself."""

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """Round 0: the usual. Then one tier per round for items without a success, or all but one with its own hint."""
        if round == 0:
            return super().plan_rollouts(step, round, selected, groups)
        if self.run.progress < self.settings.exempt:
            return []
        failed = [group for group in groups if not any(rollout.verdict.correct for rollout in group)]
        if self.settings.variant == "self":
            n = max(1, self.settings.group_size - 1)
            hinted = [(group, n, self._own(group)) for group in failed] if round == 1 else []
        else:
            hinted = [(group, self.settings.hinted, self._tier(group.item_id, round)) for group in failed]
        return [Plan(group.item_id, n, context=self._context(group, hint)) for group, n, hint in hinted if hint]

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """What of the hinted rollouts joins its group; it is trained on in the hinted prompt."""
        return [replace(group, rollouts=tuple(self._joined(group))) for group in groups]

    def _joined(self, group: RolloutGroup) -> Sequence[Rollout]:
        own = [rollout for rollout in group if rollout.source != "hinted"]
        hinted = [replace(rollout, context_ids=None) for rollout in group if rollout.source == "hinted"]
        if not hinted:
            return own
        if self.settings.variant == "self":
            return [*own[:1], *hinted]
        first = [rollout for rollout in hinted if rollout.verdict.correct][:1]  # of the most abstract tier that helped
        return [*own[: len(own) - len(first)], *first]

    def _context(self, group: RolloutGroup, hint: str) -> str:
        return str(self.settings.context.format(hint=hint, prompt=group.prompt))

    def _tier(self, item_id: str, round: int) -> str:
        tiers = tiers_of(self.run.solution(item_id).split(BOX)[0])
        return tiers[round - 1] if round <= len(tiers) else ""

    def _own(self, group: RolloutGroup) -> str:
        """The hint that the policy wrote for an item, from its answer."""
        if group.item_id not in self.written:
            answer = self.run.answer(group.item_id)
            explanation = self._generated(self.settings.explain.format(prompt=group.prompt, answer=answer))
            self.written[group.item_id] = self._generated(self.settings.abstract.format(explanation=explanation))
        return self.written[group.item_id]

    def _generated(self, context: str) -> str:
        drawn = self.run.generate(context, 1)
        return self.run.decode(drawn.tokens[0, : drawn.lengths[0]]).split(BOX)[0]

    def state_dict(self) -> Mapping[str, Any]:
        return {"written": self.written}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.written = dict(state["written"])


def tiers_of(steps: str) -> tuple[str, str, str]:
    """Knowledge, plan and steps, as far as worked steps hold them."""
    words = dict.fromkeys(re.findall(r"[^\W\d_]+|[^\w\s]", steps))
    return " ".join(words), re.sub(r"\d+", "n", steps), steps[: -(-len(steps) // 2)]
