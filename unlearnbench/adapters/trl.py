"""The verifier as a reward function of TRL's GRPOTrainer.

    from unlearnbench.adapters.trl import reward

    GRPOTrainer(model=..., reward_funcs=reward, train_dataset=load_dataset("parquet", data_files=...))

The data set is that of `unlearnbench export --format trl`: TRL passes its columns to the reward function by name. With
`log_completions=True` each logged completion has its `item_id`, and `unlearnbench score` reads these logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unlearnbench.errors import DataError
from unlearnbench.io.chats import last_turn
from unlearnbench.verifier import gold_texts, verify_golds

Completion = str | Sequence[Mapping[str, Any]]
"""A text, or the turns of a chat of which the policy wrote the last."""


def reward(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    answer: Sequence[Any] | None = None,
    item_id: Sequence[str] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 for each completion that states the gold `answer`, or one of them where that is a list, else 0, in their order.

    `log_extra` is TRL's: what is passed to it becomes a column of the completions that TRL logs.

    None where the verifier itself failed twice: TRL leaves such a completion out of the baseline and the loss. Raises
    DataError if the data set has no column `answer`, or one of another length, or if a gold is not an answer (None,
    empty, a dict).
    """
    if answer is None:
        raise DataError(
            "the data set has no column 'answer', the gold; write it with `unlearnbench export --format trl`"
        )
    if len(answer) != len(completions):
        raise DataError(f"{len(completions)} completions and {len(answer)} gold answers do not belong together")
    if item_id is not None and log_extra is not None:
        log_extra("item_id", list(item_id))
    items = item_id or [f"row {row} of the batch" for row in range(1, len(answer) + 1)]
    golds = [gold_texts(gold, str(item)) for gold, item in zip(answer, items, strict=True)]
    verdicts = verify_golds(golds, [text_of(turns) for turns in completions])
    return [None if verdict.correct is None else float(verdict.correct) for verdict in verdicts]


def text_of(completion: Completion) -> str:
    """What the policy wrote: the text, or that of the last turn of the assistant's, in one or in several parts."""
    return completion if isinstance(completion, str) else last_turn(completion, "assistant") or ""
