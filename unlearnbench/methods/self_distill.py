"""SDPO: the policy, shown one of its own successes, teaches itself without having seen it, over the whole vocabulary.

Hübotter et al. 2026, "Reinforcement Learning via Self-Distillation" (arXiv 2601.20802), where the environment gives
only a right or wrong bit. For every rollout of a group with another success y+, the self-teacher is the policy averaged
over steps (average ← 0.95 average + 0.05 policy) with y+ in its context; the loss of each token is the divergence
between the policy's next-token distribution and the teacher's (alpha = 1/2: Jensen-Shannon), times the ratio to the
policy that drew the token, cut off at 2. It is mixed with GRPO: λ L_GRPO + (1 - λ) L_SDPO. Alpha, rate and cut-off are
those of the authors' scripts (github.com/lasgroup/SDPO); λ = 0.9 is what the paper is reported to use for its weakest
policy, below 1B parameters, where SDPO alone does worse than GRPO. The paper's section numbers could not be checked.
What differs: the context's wording; groups wholly right are dropped; and a success teaches only where the teacher has
read it (`read`): where, shown y+, it finds y+ likelier than the policy that drew it did without. Policies that follow
instructions nearly always do. `micro`'s base was never shown a context: it repeats a tenth of what it can do without
one, so that without this condition (`--set read=false`) it unlearns every easy item from a teacher that knows less than
it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field
from torch import Tensor

from unlearnbench.method import LossBatch, Method, Services, Teacher
from unlearnbench.records import Rollout, RolloutGroup, Tokens


class SelfDistill(Method):
    """GRPO plus distillation from itself shown a success."""

    source = "arXiv 2601.20802"

    class Settings(Method.Settings):
        """Settings of the authors' scripts, but for the wording and `read`."""

        mix: float = Field(default=0.9, ge=0, le=1)
        """λ, the weight of GRPO's loss; the authors' main experiments have 0."""
        alpha: float = Field(default=0.5, ge=0, le=1)
        rate: float = Field(default=0.05, ge=0, le=1)
        cutoff: float = Field(default=2.0, gt=0)
        context: str = "{success} {prompt}"
        read: bool = True

    def setup(self) -> None:
        self.average = self.run.averaged()
        self.teacher = Teacher("average", self.settings.alpha)

    def augment(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Each rollout is read by the teacher in the context of the first success of its group that is not itself."""
        return [self._taught(group, [r for r in group if r.verdict.correct]) for group in groups]

    def _taught(self, group: RolloutGroup, successes: Sequence[Rollout]) -> RolloutGroup:
        contexts = [self._context(group, success) for success in successes[:2]]
        rollouts = []
        for rollout in group:
            others = [k for k, success in enumerate(successes[:2]) if success is not rollout]
            rollouts.append(replace(rollout, teacher_ids=contexts[others[0]] if others else None))
        return replace(group, rollouts=tuple(rollouts))

    def _context(self, group: RolloutGroup, success: Rollout) -> Tokens | None:
        """The context in which a success is shown; None where the teacher has not read it."""
        context = self.settings.context.format(success=success.completion, prompt=group.prompt)
        if self.settings.read and not has_read(self.run, context, success.token_ids, success.logprobs, "average"):
            return None
        return self.run.encode(context)

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """λ times GRPO's."""
        mix: float = self.settings.mix
        return mix * super().policy_loss(batch)

    def auxiliary_loss(self, batch: LossBatch) -> Tensor | None:
        """(1 - λ) times the divergence from the teacher, times the ratio; and GRPO's KL term."""
        usual = super().auxiliary_loss(batch)
        if batch.divergence is None:
            return usual
        ratio = batch.ratio.detach().clamp(max=self.settings.cutoff)
        taught: Tensor = (1 - self.settings.mix) * ratio * batch.divergence
        return taught if usual is None else usual + taught

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """The teacher follows the policy."""
        self.average.update(self.settings.rate)

    def state_dict(self) -> Mapping[str, Any]:
        return {"average": self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.average.load_state_dict(state["average"])


def has_read(run: Services, context: str, shown: Tokens, without: Any, policy: str) -> bool:
    """Whether a policy finds tokens likelier in a context that shows them than they are without (log-probabilities)."""
    (inside,) = run.logprobs(context, [shown], policy=policy)
    return bool(np.sum(inside) > np.sum(without))
