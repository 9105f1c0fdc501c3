"""Methods, rollouts and groups made up of outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from unlearnbench.method import Method, settings_of
from unlearnbench.records import Recipe, Rollout, RolloutGroup, Verdict


def method_of(cls: type[Method], **changes: Any) -> Any:
    return cls(settings_of(cls, Recipe(), changes))


def rollout_of(
    right: bool, answer: str | None = "1", item_id: str = "a", index: int = 0, source: str = "policy"
) -> Rollout:
    tokens = np.arange(3, dtype=np.int32)
    verdict = Verdict(right, answer, "match" if right else "mismatch")
    scores = np.full(3, -1.0, dtype=np.float32)
    context = np.arange(2, dtype=np.int32)
    return Rollout(item_id, index, context, tokens, scores, f"{index}", "stop", verdict, float(right), source=source)


def group_of(outcomes: Sequence[Any], item_id: str = "a", source: str = "policy") -> RolloutGroup:
    rollouts = [rollout_of(bool(r), item_id=item_id, index=k, source=source) for k, r in enumerate(outcomes)]
    return RolloutGroup(item_id, "1+1=", 0, tuple(rollouts))


# --- replay -------------------------------------------------------------------------------------------------------


def outcome_counts(group: RolloutGroup) -> Counter[tuple[str, bool]]:
    return Counter((rollout.source, bool(rollout.verdict.correct)) for rollout in group)
