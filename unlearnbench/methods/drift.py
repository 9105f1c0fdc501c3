"""DRIFT: each item's running pass rate decides what teaches it: itself with a past success, GRPO, or little of either.

Luo et al. 2026, "DRIFT: Difficulty Routing Self-Distillation with Rhythm-Gated Exploration and Success Buffer Training"
(arXiv 2606.30345), by the pseudocode that the authors released (github.com/LianjiaTech/drift). An item's successes and
failures decay by 0.85 per step; its smoothed pass rate is (s + 1) / (s + f + 2), drawn to 1/2 by the confidence n / (n
+ 8). Soft gates sigmoid((0.3 - p) / 0.08) and sigmoid((p - 0.7) / 0.08) make it hard, medium or easy in shares that add
to 1. A failure for which there is a demonstration (a success of its group, else one of the item's last four) is
self-distilled as in SDPO, weighted 1, 0, 0.35 for hard, medium, easy; a success is reinforced by GRPO, weighted 0.3, 1,
0.05; a rollout without demonstration is GRPO's alone. Of medium successes, tokens that the policy gives a higher
probability than the teacher, log p - log q > 0.2, count up to twice: min(exp(log p - log q - 0.2), 2). First, for a
share of the budget, whatever has a demonstration is distilled. What differs: the rhythm gate (which tokens may count
twice) and the entropy weighting of the first stage are not in the released pseudocode, so all tokens may, and that
stage is plain SDPO; how long it lasts is ours, and its linear transition is left out, as is the periodic reset of the
pass rates; groups wholly right are dropped; and the teacher must have read the demonstration (`read`, as in
`self_distill`, whose divergence, teacher and settings these are).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from unlearnbench.method import ZERO_SIGNAL, LossBatch, Method
from unlearnbench.methods.self_distill import SelfDistill
from unlearnbench.records import Rollout, RolloutGroup

DECAY, CONFIDENCE, TEMPERATURE, HARD, EASY = 0.85, 8.0, 0.08, 0.3, 0.7
DISTILLED = np.array([1.0, 0.0, 0.35])
"""Weight of a failure's divergence where its item is hard, medium, easy."""
REINFORCED = np.array([0.3, 1.0, 0.05])
"""Weight of a success's advantage."""
MARGIN, MOST = 0.2, 2.0
REMEMBERED = 4


def gates(pass_rate: float) -> NDArray[np.float64]:
    """How hard, medium and easy an item is, (3,), adding to 1."""
    hard = 1 / (1 + math.exp((pass_rate - HARD) / TEMPERATURE))
    easy = 1 / (1 + math.exp((EASY - pass_rate) / TEMPERATURE))
    shares = np.array([hard, (1 - hard) * (1 - easy), easy])
    return np.asarray(shares / shares.sum())


class Drift(SelfDistill):
    """Pass rate routes between self-distillation and GRPO."""

    source = "arXiv 2606.30345"

    class Settings(Method.Settings):
        """Those of `self_distill` without its mix; `warm_up` is a share of the budget, and ours."""

        alpha: float = Field(default=0.5, ge=0, le=1)
        rate: float = Field(default=0.05, ge=0, le=1)
        cutoff: float = Field(default=2.0, gt=0)
        context: str = "{success} {prompt}"
        read: bool = True
        warm_up: float = Field(default=0.1, ge=0, le=1)
        drop_zero_signal: bool = False

    def setup(self) -> None:
        super().setup()
        self.counts: dict[str, tuple[float, float, int]] = {}
        """Decayed successes and failures of each item, and the step of the last."""
        self.past: dict[str, list[Rollout]] = {}
        self.routes: dict[str, NDArray[np.float64]] = {}

    def pass_rate(self, item_id: str) -> float:
        """The smoothed pass rate by the rollouts seen so far."""
        won, lost, _ = self.counts.get(item_id, (0.0, 0.0, 0))
        confidence = (won + lost) / (won + lost + CONFIDENCE)
        return confidence * (won + 1) / (won + lost + 2) + (1 - confidence) * 0.5

    def inject(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """Nothing is added; pass rates, routes and the buffer of successes are brought up to date."""
        step = self.run.step
        for group in groups:
            won, lost, last = self.counts.get(group.item_id, (0.0, 0.0, step))
            right = [rollout for rollout in group if rollout.verdict.correct]
            kept = DECAY ** (step - last)
            self.counts[group.item_id] = (kept * won + len(right), kept * lost + len(group) - len(right), step)
            self.routes[group.item_id] = gates(self.pass_rate(group.item_id))
        return groups

    def keep(self, rollouts: RolloutGroup) -> bool:
        """Groups with a signal, and failures that a past success can be shown to."""
        failed = not any(rollout.verdict.correct for rollout in rollouts)
        return bool(np.ptp(rollouts.rewards) > ZERO_SIGNAL) or (failed and rollouts.item_id in self.past)

    def augment(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """As in SDPO, with a past success where the group has none; then this step's successes are remembered."""
        taught = []
        for group in groups:
            successes = [rollout for rollout in group if rollout.verdict.correct]
            one = self._taught(group, successes or self.past.get(group.item_id, [])[-1:])
            if successes or any(rollout.teacher_ids is not None for rollout in one):
                taught.append(one)
        for group in groups:
            successes = [rollout for rollout in group if rollout.verdict.correct]
            if successes:
                known = {r.completion: r for r in (*self.past.get(group.item_id, []), *successes)}
                self.past[group.item_id] = list(known.values())[-REMEMBERED:]
        return taught

    def advantages(self, rollouts: RolloutGroup) -> Any:
        """GRPO's, (n,), by the route of each rollout; 0 for a failure that is distilled."""
        usual = np.asarray(Method.advantages(self, rollouts))
        shown = np.array([rollout.teacher_ids is not None for rollout in rollouts])
        right = np.array([bool(rollout.verdict.correct) for rollout in rollouts])
        weight = 0.0 if self._warming_up else float(REINFORCED @ self.routes[rollouts.item_id])
        return usual * np.where(shown, np.where(right, weight, 0.0), 1.0)

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """The clipped surrogate; tokens that the teacher finds less likely than the policy does count more."""
        loss = Method.policy_loss(self, batch)
        if batch.teacher is None or self._warming_up:
            return loss
        medium = torch.tensor([self.routes[item][1] for item in batch.item_ids], dtype=loss.dtype, device=loss.device)
        rewarded = (batch.advantages > 0) & (batch.teacher != 0).any(1, keepdim=True)
        gap = (batch.logprobs - batch.teacher).detach() - MARGIN
        more = torch.exp(gap.clamp(min=0)).clamp(max=MOST) - 1
        return loss * torch.where(rewarded, 1 + medium[:, None] * more, torch.ones_like(more))

    def auxiliary_loss(self, batch: LossBatch) -> Tensor | None:
        """The divergence of failures from their teacher, by the route of their item; and GRPO's KL term."""
        usual = Method.auxiliary_loss(self, batch)
        if batch.divergence is None:
            return usual
        weights = [1.0 if self._warming_up else float(DISTILLED @ self.routes[item]) for item in batch.item_ids]
        weight = torch.tensor(weights, dtype=batch.divergence.dtype, device=batch.divergence.device)[:, None]
        if not self._warming_up:
            weight = weight * ((batch.advantages * batch.mask).sum(1, keepdim=True) <= 0)
        taught = weight * batch.ratio.detach().clamp(max=self.settings.cutoff) * batch.divergence
        return taught if usual is None else usual + taught

    @property
    def _warming_up(self) -> bool:
        return bool(self.run.progress < self.settings.warm_up)

    def state_dict(self) -> Mapping[str, Any]:
        """The teacher, pass rates, and the successes that are remembered."""
        past = {
            item_id: [{"completion": r.completion, "token_ids": r.token_ids, "logprobs": r.logprobs} for r in rollouts]
            for item_id, rollouts in self.past.items()
        }
        return {**super().state_dict(), "counts": {k: list(v) for k, v in self.counts.items()}, "past": past}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.counts = {item_id: (won, lost, int(step)) for item_id, (won, lost, step) in state["counts"].items()}
        self.past = {
            item_id: [replace(self.run.written(item_id, one["completion"], "policy"), **one) for one in entries]
            for item_id, entries in state["past"].items()
        }
