"""What is logged of a step: of its rollouts, and of its updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from unlearnbench.method import LossBatch
from unlearnbench.records import Recipe, RolloutGroup
from unlearnbench.training.batch import TokenBatch
from unlearnbench.training.data_parallel import Processes

Metrics = dict[str, float | int | None]


def step_metrics(step: int, groups: Sequence[RolloutGroup], kept: Sequence[RolloutGroup]) -> Metrics:
    """Counts of a step's groups, and means over its rollouts."""
    rollouts = [rollout for group in groups for rollout in group]
    count = max(1, len(rollouts))
    return {
        "step": step,
        "rollouts": len(rollouts),
        "groups": len(groups),
        "kept_groups": len(kept),
        "reward": sum(rollout.reward for rollout in rollouts) / count,
        "correct": sum(bool(rollout.verdict.correct) for rollout in rollouts) / count,
        "truncated": sum(rollout.finish == "length" for rollout in rollouts) / count,
        "length": sum(len(rollout.token_ids) for rollout in rollouts) / count,
    }


class UpdateSums:
    """Sums over the micro-batches of one update, weighted as its loss is."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.sums = {"loss": 0.0, "kl": 0.0, "entropy": 0.0, "clipped": 0.0, "sampler_kl": 0.0}
        self.mismatch, self.unknown = 0.0, 0

    @torch.no_grad()
    def add(self, loss: Tensor, part: TokenBatch, batch: LossBatch, behaviour: Tensor) -> None:
        """One micro-batch; `behaviour` (rows, tokens) are the sampler's log-probabilities where it gave any."""
        used = part.weights > 0
        self.sums["loss"] += loss.item()
        gap = (batch.logprobs - behaviour) * (used & part.comparable)
        self.mismatch = max(self.mismatch, float(gap.abs().max()))
        self.sums["sampler_kl"] += float((part.weights * (gap.exp() - gap - 1)).sum())
        self.unknown += int((used & ~torch.isfinite(part.behaviour)).sum())
        ratio = batch.ratio
        outside = (ratio < 1 - self.recipe.clip_low) | (ratio > 1 + self.recipe.clip_high)
        self.sums["clipped"] += float((part.weights * outside).sum())
        if batch.reference is not None:
            d = (batch.reference - batch.logprobs) * used
            self.sums["kl"] += float((part.weights * (d.exp() - d - 1)).sum())
        if batch.entropy is not None:
            self.sums["entropy"] += float((part.weights * batch.entropy).sum())

    def over(self, processes: Processes) -> Metrics:
        """The sums over all processes; the largest mismatch of any of them."""
        mine = {**self.sums, "sampler_mismatch": self.mismatch, "unknown_logprobs": float(self.unknown)}
        found = processes.everybody(mine)
        metrics: Metrics = {name: sum(one[name] for one in found) for name in found[0]}
        metrics["sampler_mismatch"] = max(one["sampler_mismatch"] for one in found)
        metrics["unknown_logprobs"] = round(sum(one["unknown_logprobs"] for one in found))
        if self.recipe.kl == 0:
            del metrics["kl"]
        if self.recipe.entropy == 0:
            del metrics["entropy"]
        return metrics


def averaged(seen: Sequence[Mapping[str, float | int | None]], updates: int) -> Metrics:
    """Means over a step's updates (None where a term is off); sampler and trainer are compared in the first alone."""
    names = ("loss", "kl", "entropy", "clipped", "gradient_norm", "unknown_logprobs")
    means: Metrics = {
        name: float(np.mean([float(entry[name] or 0.0) for entry in seen])) if seen and name in seen[0] else None
        for name in names
    }
    first = {name: seen[0][name] if seen else None for name in ("sampler_mismatch", "sampler_kl")}
    return {**means, **first, "updates": updates}
