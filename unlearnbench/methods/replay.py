"""One success and seven failures of every prompt, by oversampling and replay: the paper's own first remedy.

"The Unlearnability Phenomenon in RLVR" (arXiv 2605.16787), section 4, gives every prompt exactly one positive: 32
rollouts are drawn and 8 kept, 1 right and 7 wrong; where none is right, one from a buffer takes its place, each used at
most twice; advantages are taken after that. Learnable items are learned more slowly, unlearnable ones no better. The
released code does something else, `--set variant=code`: 64 drawn, a past success put in the place of a failure only
where all failed (the last 5 of a prompt, each used at most 3 times), then 8 kept uniformly, so that 1 to 7 is never
enforced. What differs: a prompt with fewer than seven failures keeps those it has, and one without any is dropped (the
paper does not say). A replayed success has ratio 1, since the released code takes the old policy's log-probabilities
after it has put it into the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from unlearnbench.method import Method, Plan
from unlearnbench.records import Rollout, RolloutGroup

REPLAYED = "replay"
OVERSAMPLED = {"text": 4, "code": 8}
"""Rollouts drawn per rollout kept: 32 and 64 at a group size of 8."""
USES = {"text": 2, "code": 3}
REMEMBERED = 5  # successes kept of each item, the latest


class Replay(Method):
    """One success and seven failures per prompt."""

    source = "arXiv 2605.16787"

    class Settings(Method.Settings):
        """The paper's text, or its released code."""

        variant: Literal["text", "code"] = "text"

    def setup(self) -> None:
        self.past: dict[str, list[tuple[Rollout, int]]] = {}
        """The last successes of each item, and how often each was replayed."""

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """Several times as many as are kept."""
        drawn = self.settings.group_size * OVERSAMPLED[self.settings.variant]
        return [Plan(item_id, drawn) for item_id in selected] if round == 0 else []

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """The rollouts that are kept of each group; this step's successes are remembered for later ones."""
        kept = [replace(group, rollouts=tuple(self._kept(group))) for group in groups]
        for group in groups:
            won = [(_replayed(rollout), 0) for rollout in group if rollout.verdict.correct]
            if won:
                self.past[group.item_id] = [*self.past.get(group.item_id, []), *won][-REMEMBERED:]
        return kept

    def _kept(self, group: RolloutGroup) -> Sequence[Rollout]:
        size = self.settings.group_size
        order = self.run.shuffled(group.rollouts, "kept", self.run.step, group.item_id)
        won = [rollout for rollout in order if rollout.verdict.correct]
        lost = [rollout for rollout in order if not rollout.verdict.correct]
        if self.settings.variant == "code":
            if won or not (past := self._past(group.item_id)):
                return order[:size]
            return self.run.shuffled([*lost[1:], *past], "mixed", self.run.step, group.item_id)[:size]
        return [*(won[:1] or self._past(group.item_id)), *lost[: size - 1]]

    def _past(self, item_id: str) -> list[Rollout]:
        """One past success, or none; a success that was replayed often enough is forgotten."""
        past = self.past.get(item_id, [])
        if not past:
            return []
        chosen = self.run.shuffled(range(len(past)), "replay", self.run.step, item_id)[0]
        rollout, uses = past[chosen]
        again = [(rollout, uses + 1)] if uses + 1 < USES[self.settings.variant] else []
        self.past[item_id] = [*past[:chosen], *again, *past[chosen + 1 :]]
        return [rollout]

    def state_dict(self) -> Mapping[str, Any]:
        """What is remembered: texts, tokens, and how often each was replayed."""
        return {
            item_id: [
                {
                    "completion": r.completion,
                    "token_ids": r.token_ids,
                    "finish": r.finish,
                    "reward": r.reward,
                    "uses": n,
                }
                for r, n in past
            ]
            for item_id, past in self.past.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for item_id, entries in state.items():
            self.past[item_id] = []
            for entry in entries:
                told = {name: value for name, value in entry.items() if name != "uses"}
                rollout = replace(self.run.written(item_id, entry["completion"], REPLAYED), **told)
                self.past[item_id].append((_replayed(rollout), entry["uses"]))


def _replayed(rollout: Rollout) -> Rollout:
    """With unknown log-probabilities, so that the ratio is 1."""
    unknown = np.full(len(rollout.token_ids), np.nan, dtype=np.float32)
    return replace(rollout, source=REPLAYED, logprobs=unknown)
