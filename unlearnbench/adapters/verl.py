"""The verifier as verl's reward: `custom_reward_function.path` is this file, `.name` is compute_score.

The data set is that of `unlearnbench export --format verl`, or any other with golds in `reward_model.ground_truth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearnbench.errors import VerifierError
from unlearnbench.verifier import gold_texts, verify_golds


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The reward as `score` (1.0 if the completion states the gold answer, or one of them where `ground_truth` is a
    list; else 0.0), and what verl logs with it.

    verl writes all entries into the rollouts that it dumps (`trainer.rollout_data_dir`), where `item_id` lets
    `unlearnbench score` read them. It is empty for a data set that `unlearnbench export` did not write: verl wants the
    same entries from every call.

    Raises DataError, naming the item, where `ground_truth` is not an answer (None, empty, a dict); VerifierError where
    the verifier itself failed twice: verl has no missing reward, and a 0 would be learned from.
    """
    told = extra_info or {}
    item = next((f"item {told[key]!r}" for key in ("item_id", "index") if told.get(key) is not None), "an item")
    (verdict,) = verify_golds([gold_texts(ground_truth, f"{item} of {data_source}")], [solution_str])
    if verdict.correct is None:
        raise VerifierError(f"the verifier failed twice on a completion of {item}; check that processes can be started")
    item_id = str(told.get("item_id") or "")
    return {"score": float(verdict.correct), "acc": float(verdict.correct), "item_id": item_id}
