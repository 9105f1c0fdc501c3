"""POPE: hard items are also tried with the beginning of their solution in the prompt, which is never trained on.

Qu et al. 2026, "POPE: Learning to Reason on Hard Problems via Privileged On-Policy Exploration" (arXiv 2601.18779): of
items that the policy does not solve, guided variants join the training set one to one, whose prompt holds a prefix of
the reference solution and the instruction to complete it; the prefix is the shortest with which some rollout succeeds,
else about a quarter. Both variants are trained by GRPO in the prompt that they were drawn in: the prefix guides
exploration and is no target. What differs: which items are hard and how long their prefix is are found during training
instead of before it: an item without any success so far is guided at every other visit, by a coin, and its prefix grows
by a quarter of the worked steps, up to all of them but never the boxed answer, when all guided rollouts fail. `micro`
answers in raw text, so prompt and prefix stand there without instruction; for a policy that follows instructions set
one, as `--set instruction=" Study this partial solution and complete it from where it ends: "`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from unlearnbench.method import Method, Plan
from unlearnbench.records import RolloutGroup

BOX = "\\boxed"


class Pope(Method):
    """A solution's beginning in hard items' prompts."""

    track = "solution"
    source = "arXiv 2601.18779"

    class Settings(Method.Settings):
        """`guided` is the share of guided visits, one half in the paper; prefixes come in `parts`."""

        guided: float = Field(default=0.5, ge=0, le=1)
        parts: int = Field(default=4, ge=1)
        instruction: str = ""

    def setup(self) -> None:
        self.given: dict[str, int] = {}
        """Parts of the solution that each item's guided prompt holds."""

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """A group of each item, in its own or in its guided prompt."""
        if round > 0:
            return []
        size = self.settings.group_size
        return [Plan(item_id, size, context=self._guided(item_id)) for item_id in dict.fromkeys(selected)]

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Guided rollouts are trained on in the prompt they were drawn in; failures lengthen the prefix."""
        for group in groups:
            if any(r.source == "hinted" for r in group) and not any(r.verdict.correct for r in group):
                self.given[group.item_id] = min(self.settings.parts, self.given.get(group.item_id, 1) + 1)
        return [replace(group, rollouts=tuple(replace(r, context_ids=None) for r in group)) for group in groups]

    def _guided(self, item_id: str) -> str | None:
        """The guided prompt of an item where this visit is guided."""
        past = self.run.history(item_id)
        if not past or any(visit.correct for visit in past) or self._coin(item_id) >= self.settings.guided:
            return None
        steps = self.run.solution(item_id).split(BOX)[0]
        prefix = steps[: -(-len(steps) * self.given.get(item_id, 1) // self.settings.parts)]
        return f"{self.run.item(item_id).prompt}{self.settings.instruction}{prefix}" if prefix else None

    def _coin(self, item_id: str) -> float:
        return float(self.run.random("guided", item_id).random())

    def state_dict(self) -> Mapping[str, Any]:
        return {"given": self.given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.given = dict(state["given"])
