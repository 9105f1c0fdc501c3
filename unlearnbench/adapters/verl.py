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
) -> dict[str, Any]:
    """The reward as `score` (1.0 if the completion states the gold answer, else 0.0), and what verl logs with it.

    verl writes all entries into the rollouts that it dumps (`trainer.rollout_data_dir`), where `item_id` lets
    `unlearnbench score` read them. It is empty for a data set that `unlearnbench export` did not write: verl wants the
    same entries from every call.

    Raises VerifierError where the verifier itself failed twice: verl has no missing reward, and a 0 would be learned
    from.
    """
    verdict = verify(str(ground_truth), solution_str)
    if verdict.correct is None:
        item = (extra_info or {}).get("item_id", "an item")
        raise VerifierError(f"the verifier failed twice on a completion of {item}; see that processes can be started")
    item_id = str((extra_info or {}).get("item_id") or "")
    return {"score": float(verdict.correct), "acc": float(verdict.correct), "item_id": item_id}
