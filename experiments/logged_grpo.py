"""GRPO that logs, for each item of a step, what a run's own files hold of whole batches only.

The training is that of `grpo`: the loss is untouched. One line of JSON per step goes to standard error, which is the
run's log.txt; `experiments.update_statistics` reads it. A line that a resumed run writes again replaces the first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from unlearnbench.method import LossBatch, Method


class LoggedGrpo(Method):
    """GRPO; by item: tokens outside the clip range, and what the reference policy thinks of correct rollouts."""

    source = "arXiv 2605.16787"

    def setup(self) -> None:
        super().setup()
        self.seen: dict[str, list[float]] = {}
        """By item: tokens outside the clip range, tokens, sum of reference probabilities, correct rollouts."""

    def policy_loss(self, batch: LossBatch) -> Tensor:
        """GRPO's, after its rows were counted."""
        self._count(batch)
        return super().policy_loss(batch)

    @torch.no_grad()
    def _count(self, batch: LossBatch) -> None:
        used = batch.mask > 0
        ratio = batch.ratio
        outside = used & ((ratio < 1 - self.settings.clip_low) | (ratio > 1 + self.settings.clip_high))
        tokens = used.sum(1)
        correct = (batch.advantages * used).sum(1) > 0  # of a group with signal, rewards 1 and 0
        likely = torch.zeros(len(tokens))
        if batch.reference is not None:
            likely = torch.exp((batch.reference * used).sum(1) / tokens.clamp(min=1))
        rows = zip(batch.item_ids, outside.sum(1), tokens, likely * correct, correct, strict=True)
        for item_id, *figures in rows:
            kept = self.seen.setdefault(item_id, [0.0] * len(figures))
            for place, figure in enumerate(figures):
                kept[place] += float(figure)

    def on_step_end(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the step's line."""
        super().on_step_end(step, metrics)
        rounded = {item_id: [round(value, 4) for value in figures] for item_id, figures in self.seen.items()}
        print(json.dumps({"step": step, "items": rounded}), file=sys.stderr, flush=True)
        self.seen = {}
