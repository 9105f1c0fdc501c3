"""More positives: oversample items that fail, and replay their past successes. The paper's own first remedy.

"The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787) gives unlearnable items more positive rollouts, by drawing
more and by replaying earlier ones, and finds that neither makes them learned. Replay in GRPO's group as in RLEP
(arXiv 2507.07451) and RePO (2506.09340): a past success joins the group, its ratio taken against the policy that
drew it. What differs: the paper knows the unlearnable items; here every item whose group has no success gets more,
so the track stays `verifier`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from unlearnbench.method import Method, Plan
from unlearnbench.records import Rollout, RolloutGroup

REPLAYED = "replay"


class Replay(Method):
    """GRPO with further rounds for items that fail, and past successes where there is still none."""

    source = "arXiv 2605.16787"

    class Settings(Method.Settings):
        """`extra` and `replayed` are ours: a group again as large, and one success in eight."""

        extra: int = 8
        replayed: int = 1
        remembered: int = 8
        """Successes kept of each item, the latest."""

    def setup(self) -> None:
        """Nothing has succeeded yet."""
        self.past: dict[str, list[Rollout]] = {}

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """One more round for items without a success in the first."""
        if round == 1:
            return [Plan(group.item_id, self.settings.extra) for group in groups if not group.rewards.any()]
        return super().plan_rollouts(step, round, selected, groups)

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Past successes for groups that have none; then remember this step's."""
        full = []
        for group in groups:
            past = self.past.get(group.item_id, [])
            if past and not group.rewards.any():
                order = self.run.shuffled(past, "replay", self.run.step, group.item_id)
                group = replace(group, rollouts=(*group.rollouts, *order[: self.settings.replayed]))
            full.append(group)
        for group in groups:
            won = [replace(rollout, source=REPLAYED) for rollout in group if rollout.verdict.correct]
            if won:
                kept = [*self.past.get(group.item_id, []), *won]
                self.past[group.item_id] = kept[-self.settings.remembered :]
        return full

    def state_dict(self) -> Mapping[str, Any]:
        """What was remembered: text, tokens and their log-probabilities."""
        return {
            item_id: [
                {
                    "completion": rollout.completion,
                    "token_ids": rollout.token_ids,
                    "logprobs": rollout.logprobs,
                    "finish": rollout.finish,
                    "reward": rollout.reward,
                    "iteration": rollout.iteration,
                    "policy_version": rollout.policy_version,
                }
                for rollout in past
            ]
            for item_id, past in self.past.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Successes as they were."""
        self.past = {
            item_id: [replace(self.run.written(item_id, entry["completion"], REPLAYED), **entry) for entry in entries]
            for item_id, entries in state.items()
        }
