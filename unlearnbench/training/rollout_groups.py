"""What a step draws, group by group: several rounds of an item, several plans of it, and rollouts without a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from unlearnbench.method import Plan
from unlearnbench.records import RolloutGroup


def repeats(plans: Sequence[Plan]) -> list[int]:
    """How often each plan's item was planned before it in the same round, so that every plan has its own draws."""
    seen: Counter[str] = Counter()
    repeats = []
    for plan in plans:
        repeats.append(seen[plan.item_id])
        seen[plan.item_id] += 1
    return repeats


def merged(groups: Sequence[RolloutGroup], drawn: Sequence[RolloutGroup]) -> list[RolloutGroup]:
    """One group an item: what later rounds draw of an item joins what it has."""
    merged: dict[str, RolloutGroup] = {}
    for group in (*groups, *drawn):
        if group.item_id in merged:
            earlier = merged[group.item_id].rollouts
            late = tuple(replace(r, index=len(earlier) + k) for k, r in enumerate(group.rollouts))
            merged[group.item_id] = replace(group, rollouts=earlier + late)
        else:
            merged[group.item_id] = group
    return list(merged.values())


def without_failures(group: RolloutGroup) -> RolloutGroup:
    """The group without rollouts that the verifier failed on: they count in no baseline (LOOP 9)."""
    judged = tuple(rollout for rollout in group if rollout.verdict.correct is not None)
    return group if len(judged) == len(group) else replace(group, rollouts=judged)
