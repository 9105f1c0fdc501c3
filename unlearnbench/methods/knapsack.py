"""Knapsack RL: a step's rollouts are shared out where they are likeliest to bring a gradient that helps.

Li et al. 2025, "Knapsack RL: Unlocking Exploration of LLMs via Optimizing Budget Allocation" (arXiv 2509.25849): N
rollouts of an item with success rate p bring a gradient with probability P(N, p) = 1 - p^N - (1 - p)^N, and a step
along it raises p by about p (1 - p)^2; the product is the value of giving the item N. Total value is maximised over the
items of a step, every item getting 2 to 128, at the cost of as many rollouts as an even share. P grows by less with
each rollout, so taking the most valuable next rollout again and again is the exact maximum (the paper solves it by
dynamic programming). p is measured on the item's last visits. What differs: p = (right + 1) / (rollouts + 2), so that
no item has a value of 0 for ever, where the paper gives such items what is left over; an item that was never visited
counts as p = 1/2.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from pydantic import Field

from unlearnbench.method import Method, Plan
from unlearnbench.records import RolloutGroup


def next_value(rate: float, n: int) -> float:
    """What the rollout after the n-th adds to P(n, p) p (1 - p)^2."""
    more = rate**n * (1 - rate) + (1 - rate) ** n * rate
    return more * rate * (1 - rate) ** 2


def allocate(rates: Sequence[float], total: int, least: int, most: int) -> list[int]:
    """Rollouts of each item, least to most, adding to `total` where that is possible, of the greatest total value."""
    counts = [least] * len(rates)
    heap = [(-next_value(rate, least), k) for k, rate in enumerate(rates)]
    heapq.heapify(heap)
    left = total - sum(counts)
    while left > 0 and heap:
        _, k = heapq.heappop(heap)
        counts[k] += 1
        left -= 1
        if counts[k] < most:
            heapq.heappush(heap, (-next_value(rates[k], counts[k]), k))
    return counts


class Knapsack(Method):
    """Rollouts go where a gradient is likely."""

    source = "arXiv 2509.25849"

    class Settings(Method.Settings):
        """The paper's bounds; p from the last three visits."""

        least: int = Field(default=2, ge=1)
        most: int = Field(default=128, ge=1)
        visits: int = Field(default=3, ge=1)

    def plan_rollouts(
        self, step: int, round: int, selected: Sequence[str], groups: Sequence[RolloutGroup]
    ) -> Sequence[Plan]:
        """As many rollouts in all as the reference draws."""
        if round > 0:
            return []
        settings, items = self.settings, list(dict.fromkeys(selected))  # where epochs meet, an item may come twice
        rates = [self._rate(item_id) for item_id in items]
        counts = allocate(rates, len(selected) * settings.group_size, settings.least, settings.most)
        return [Plan(item_id, n) for item_id, n in zip(items, counts, strict=True)]

    def _rate(self, item_id: str) -> float:
        past = self.run.history(item_id)[-self.settings.visits :]
        return (sum(visit.correct for visit in past) + 1) / (sum(visit.n for visit in past) + 2)
