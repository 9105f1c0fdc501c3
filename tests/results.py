"""A result of a run as plain as it can be, for tests that change what they are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearnbench.records import (
    Conversion,
    Cost,
    CountOf,
    MethodRecord,
    NaiveConversion,
    Result,
    Retention,
    Sampling,
    SpentBudget,
)


def result_of(score: Mapping[str, Any] | None = None, **changes: Any) -> Result:
    """A comparable result of three seeds that knows of no items; `score` changes fields of its conversion."""
    stated: dict[str, Any] = {
        "gain": None,
        "interval": None,
        "interval_families": None,
        "method_rate": None,
        "null_rate": None,
        "null_hash": None,
        "null_seeds": 0,
        "rule": "",
        "scope": None,
        "naive": NaiveConversion(any_seed=None, two_seeds=None),
        "families": {},
    }
    given: dict[str, Any] = {
        "code_version": "0",
        "scorer_version": "0",
        "kind": "eval",
        "comparable": True,
        "why_not_comparable": None,
        "split": "toy",
        "split_hash": "",
        "method": MethodRecord(name="grpo", source_hash="", track="verifier"),
        "seeds": [1, 2, 3],
        "samples": 32,
        "sampling": Sampling(),
        "budget": SpentBudget(),
        "groups": {},
        "conversion": Conversion(**stated | dict(score or {})),
        "twins": {},
        "thin": CountOf(items=0, converted=0),
        "canaries": CountOf(items=0, converted=0),
        "fates": None,
        "retention": Retention(easy_items=0, easy_lost=0, easy_rate_change=None, interval=None),
        "cost": Cost(),
    }
    return Result(**given | changes)
