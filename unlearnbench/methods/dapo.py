"""DAPO: GRPO with a higher upper clip, token-level loss, no KL, a soft punishment of length, and dynamic sampling.

Yu et al. 2025, "DAPO: An Open-Source LLM Reinforcement Learning System at Scale" (arXiv 2503.14476): eq. 8 (the
objective), eq. 9 (the advantage), eq. 10 (clip-higher), eq. 11 (dynamic sampling), eq. 12 (token-level loss),
eq. 13 (soft overlong punishment), eq. 7 (reward 1 or -1), section 2.3 (no KL). Dynamic sampling goes on drawing
prompts until a batch of them has both right and wrong rollouts. Differs from the paper: the number of rounds is
limited (`max_rounds`), so a batch may stay below its size, and what the last round brings above it is trained on
instead of thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from unlearnbench.method import Method, Plan
from unlearnbench.records import Rollout, RolloutGroup


class Dapo(Method):
    """Higher clip, dynamic sampling, token loss, length penalty."""

    source = "arXiv 2503.14476"

    class Settings(Method.Settings):
        """Section 4.1, but for what the split fixes (group size, learning rate, updates a batch)."""

        clip_low: float = 0.2
        clip_high: float = 0.28
        kl: float = 0.0
        entropy: float = 0.0
        aggregation: Literal["token_mean"] = "token_mean"
        overlong_share: float = 0.2
        """Share of max_tokens in which punishment grows: 4,096 of 20,480 tokens in the paper."""
        oversample: float = 3.0
        """Prompts of a further round, at most, as a multiple of prompts_per_step: the authors' code draws 3 times."""

    def setup(self) -> None:
        self.position = 0

    def select_items(self, step: int) -> Sequence[str]:
        """The next items of the epochs, which a step's further rounds consume too."""
        return self._next(self.settings.prompts_per_step, [])

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """Round 0: the selected items; then as many others as the missing groups need at the rate seen so far."""
        wanted, size = self.settings.prompts_per_step, self.settings.group_size
        if round == 0:
            return [Plan(item_id, size) for item_id in selected]
        found = sum(self.keep(group) for group in groups)
        if found >= wanted:
            return []
        needed = math.ceil((wanted - found) * len(groups) / max(found, 1))
        count = min(needed, int(self.settings.oversample * wanted))
        return [Plan(item_id, size) for item_id in self._next(count, [group.item_id for group in groups])]

    def reward(self, rollout: Rollout) -> float:
        """1 or -1 (eq. 7), and from 0 down to -1 over the last tokens that the limit allows (eq. 13)."""
        limit = self.settings.max_tokens
        cache = self.settings.overlong_share * limit
        excess = len(rollout.token_ids) - (limit - cache)
        punishment = -min(1.0, max(0.0, excess / cache)) if cache > 0 else 0.0
        return (1.0 if rollout.verdict.correct else -1.0) + punishment

    def keep(self, rollouts: RolloutGroup) -> bool:
        """Eq. 11: some rollouts are right and some are wrong, whatever their lengths."""
        correct = sum(bool(rollout.verdict.correct) for rollout in rollouts)
        return 0 < correct < len(rollouts)

    def state_dict(self) -> Mapping[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = state["position"]

    def _next(self, count: int, drawn: Sequence[str]) -> list[str]:
        """The next items of the epochs that this step has not drawn, as far as the pool has them."""
        ids = [item.item_id for item in self.run.items]
        taken = dict.fromkeys(drawn)
        enough = min(count + len(taken), len(ids))
        while len(taken) < enough:
            epoch, offset = divmod(self.position, len(ids))
            rest = self.run.shuffled(ids, "epoch", epoch)[offset:]
            for item_id in rest:
                if len(taken) == enough:
                    break
                taken.setdefault(item_id)
                self.position += 1
        return list(taken)[len(drawn) :]
