"""The verifier as verl's reward: `custom_reward_function.path` is this file, `.name` is compute_score.

The data set is that of `unlearnbench export --format verl`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearnbench.errors import VerifierError
from unlearnbench.verifier import verify


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **more: Any
) -> float:
    """1 if the completion states the gold answer, else 0.

    Raises VerifierError where the verifier itself failed twice: verl knows no reward that is not a number, and a 0
    would teach.
    """
    verdict = verify(str(ground_truth), solution_str)
    if verdict.correct is None:
        item = (extra_info or {}).get("item_id", "an item")
        raise VerifierError(f"the verifier failed twice on a completion of {item}; see that processes can be started")
    return float(verdict.correct)
