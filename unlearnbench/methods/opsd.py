"""OPSD: the policy, given the reference solution, teaches itself without it, on its own rollouts, token by token.

Zhao et al. 2026, "Self-Distilled Reasoner: On-Policy Self-Distillation for Large Language Models" (arXiv 2601.18734):
rollouts are drawn from the problem alone; the teacher is the starting policy, which also sees the reference solution;
the loss of each token is the divergence of the two next-token distributions over the whole vocabulary, in the authors'
code (github.com/siyan-zhao/OPSD) the generalised Jensen-Shannon divergence with weight 1/2 and, as recommended there,
the starting policy as a fixed teacher. No reward is used. What differs: the authors sample with top-p and top-k, which
training here never does; the paper is reported to clip each vocabulary entry's part of the divergence, which the
released code does not do, nor this; the context's wording; and an item teaches only where the teacher has read its
solution (`read`, as in `self_distill`: shown the solution it finds it likelier than without).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field
from torch import Tensor

from unlearnbench.method import LossBatch, Method, Teacher
from unlearnbench.methods.self_distill import has_read
from unlearnbench.records import RolloutGroup


class Opsd(Method):
    """Distillation from itself shown the solution."""

    track = "solution"
    source = "arXiv 2601.18734"

    class Settings(Method.Settings):
        """Divergence and teacher of the authors' scripts; no KL term and no reward, so no group is dropped for it."""

        alpha: float = Field(default=0.5, ge=0, le=1)
        context: str = "{solution} {prompt}"
        read: bool = True
        kl: float = 0.0
        drop_zero_signal: bool = False

    def setup(self) -> None:
        self.teacher = Teacher("reference", self.settings.alpha)
        self.readable: dict[str, bool] = {}

    def augment(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """The groups of items whose solution the teacher can read, with its context."""
        taught = []
        for group in groups:
            context = self.settings.context.format(solution=self.run.solution(group.item_id), prompt=group.prompt)
            if self._reads(group, context):
                ids = self.run.encode(context)
                taught.append(replace(group, rollouts=tuple(replace(r, teacher_ids=ids) for r in group)))
        return taught

    def _reads(self, group: RolloutGroup, context: str) -> bool:
        if not self.settings.read:
            return True
        if group.item_id not in self.readable:
            tokens = self.run.written(group.item_id, self.run.solution(group.item_id), "solution").token_ids
            (without,) = self.run.logprobs(group.prompt, [tokens], policy="reference")
            self.readable[group.item_id] = has_read(self.run, context, tokens, without, "reference")
        return self.readable[group.item_id]

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """None are used."""
        return [0.0] * len(rollouts)

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """The divergence from the teacher."""
        assert batch.divergence is not None
        return batch.divergence

    def state_dict(self) -> Mapping[str, Any]:
        """Which solutions the teacher can read; it does not change."""
        return {"readable": self.readable}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.readable = dict(state["readable"])
