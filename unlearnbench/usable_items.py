"""Which items take part in a diagnosis: those with enough rollouts and a gradient; the others, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from unlearnbench.diagnosis_options import Options
from unlearnbench.similarity import Matrix
from unlearnbench.similarity_record import Excluded

ROLLOUT = pa.struct(
    [
        ("sample", pa.int32()),  # number within the item, in the order of sampling; of a file, the file's row
        ("origin", pa.string()),  # file or sampled
        ("completion", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("finish", pa.string()),
        ("correct", pa.bool_()),
    ]
)
USED = pa.schema(
    [
        ("item_id", pa.string()),
        ("group", pa.string()),
        ("prompt", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("found", pa.int32()),
        ("sampled", pa.int32()),
        ("responses", pa.list_(pa.list_(pa.int32()))),
        ("weights", pa.list_(pa.float64())),
        ("rollouts", pa.list_(ROLLOUT)),
    ]
)
PUBLISHED = pa.schema(
    [
        *((name, pa.string()) for name in ("item_id", "group", "prompt")),
        *((field.name, field.type) for field in ROLLOUT),
        ("weight", pa.float64()),
    ]
)
ROWS = 32
"""Items that are Python objects at once: their tokens take ten times the room there."""


def with_rollouts(
    items: Sequence[Mapping[str, Any]], gathered: Iterable[Mapping[str, Any]], options: Options
) -> tuple[pa.Table, list[Excluded]]:
    """Items that have all the rollouts that are wanted (USED), with each one's weight; and the others."""
    used: list[dict[str, Any]] = []
    excluded: list[Excluded] = []
    for item, row in zip(items, gathered, strict=True):
        reason = ""
        weights = [1.0] * len(row["rollouts"])
        if row["found"] < options.rollouts_per_item:
            reason = f"{row['found']} of {options.rollouts_per_item} {options.wanted}"
        elif options.reward == "group":
            rewards = np.array([float(rollout["correct"]) for rollout in row["rollouts"]])
            weights = ((rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)).tolist()  # as GRPO standardises
            reason = "" if rewards.std() > 0 else "all rollouts have the same reward"
        if reason:
            excluded.append(_excluded(item["item_id"], item["group"], row, reason))
        else:
            responses = [rollout["token_ids"] for rollout in row["rollouts"]]
            used.append({**item, **row, "responses": responses, "weights": weights})
    return pa.Table.from_pylist([{name: row[name] for name in USED.names} for row in used], schema=USED), excluded


def with_gradients(
    inners: Sequence[Matrix], used: Sequence[Mapping[str, Any]], parts: int
) -> tuple[list[int], list[Excluded]]:
    """Places of the items whose gradient is finite and not 0 with every adapter; and the others."""
    kept: list[int] = []
    lost: list[Excluded] = []
    own = [np.einsum("ipiq->ipq", inner.reshape(2 * (len(used), parts))) for inner in inners]
    for place, row in enumerate(used):
        squares = [float(part[place].sum()) for part in own]
        if all(np.isfinite(squares)) and min(squares) > 0:
            kept.append(place)
            continue
        reason = "its gradient is 0" if all(np.isfinite(squares)) else "its gradient is not finite"
        lost.append(_excluded(row["item_id"], row["group"], row, reason))
    return kept, lost


def published(used: pa.Table, ids: set[str]) -> pa.Table:
    """The rollouts of these items of USED, one a row (PUBLISHED)."""

    def rows(some: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        for row in some.to_pylist():
            if row["item_id"] in ids:
                head = {name: row[name] for name in ("item_id", "group", "prompt")}
                for rollout, weight in zip(row["rollouts"], row["weights"], strict=True):
                    yield {**head, **rollout, "weight": weight}

    kept = used.select(["item_id", "group", "prompt", "weights", "rollouts"])
    made = [pa.Table.from_pylist(list(rows(some)), schema=PUBLISHED) for some in kept.to_batches(ROWS)]
    return pa.concat_tables(made) if made else PUBLISHED.empty_table()


def too_few(excluded: Sequence[Excluded], label: str) -> str:
    """The sentence for fewer than two items."""
    reasons = Counter(row.reason for row in excluded).most_common(1)
    told = f" (most often: {reasons[0][0]})" if reasons else ""
    return (
        f"fewer than 2 items are left of {label}: {len(excluded)} were excluded{told}; ask for fewer "
        "--rollouts-per-item, raise --cap, or give more items"
    )


def _excluded(item_id: str, group: str, row: Mapping[str, Any], reason: str) -> Excluded:
    return Excluded(item_id=item_id, group=group, found=row["found"], sampled=row["sampled"], reason=reason)
