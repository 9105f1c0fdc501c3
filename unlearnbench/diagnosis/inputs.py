"""The inputs of `diagnose`: items of some groups, from a split or a file of rollouts, and the rollouts of a file.

A file has one row a rollout in any format that `io/rollout_reader.py` reads: `item_id` (or a prompt that a split
knows), `correct`, and `completion` or `token_ids`; `prompt`, which may be left out where a split knows the item; if
wanted `group` and `finish`. Other columns are ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.adapters.problem_index import ProblemIndex
from unlearnbench.diagnosis.options import Options
from unlearnbench.diagnosis.record import Excluded
from unlearnbench.diagnosis.similarity import Matrix
from unlearnbench.errors import DataError, SplitError
from unlearnbench.harness.rollouts.files import Reading, of_one_step
from unlearnbench.io.rollout_reader import Batch, read_rollouts
from unlearnbench.records import Item
from unlearnbench.rng import shuffled
from unlearnbench.splits import Split

DEFAULT_GROUPS = ("easy", "learnable", "unlearnable")
UNGROUPED = "items"
"""The group of every item where neither file nor split names one."""

ITEMS = pa.schema([("item_id", pa.string()), ("prompt", pa.string()), ("answer", pa.string()), ("group", pa.string())])
GIVEN = pa.schema(
    [
        ("item_id", pa.string()),
        ("row", pa.int64()),
        ("completion", pa.string()),
        ("token_ids", pa.list_(pa.int64())),
        ("finish", pa.string()),
        ("correct", pa.bool_()),
    ]
)
_READ = ("item_id", "prompt", "group", "completion", "token_ids", "finish", "correct")

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


@dataclass(frozen=True)
class Pool:
    """Items (columns of ITEMS; `answer` is null where none is known) and rollouts of them (GIVEN), in file order."""

    items: pa.Table
    given: pa.Table
    split: Split | None
    file: Path | None


def read_pool(split: Split | None, file: Path | None, options: Options, reading: Reading) -> Pool:
    """The items of the requested groups, at most a given number of each: the first of a shuffle by the seed, in the
    pool's order.

    Groups default to those of DEFAULT_GROUPS that are there. Raises DataError naming file, row and field, or the groups
    that are there where none of those asked for is; SplitError for an unlabelled split.
    """
    given: list[dict[str, Any]] = []
    found: dict[str, dict[str, Any]] = {}
    if file is not None:
        for row in _rows(file, split, reading):
            place = found.setdefault(row["item_id"], {name: row[name] for name in ITEMS.names})
            for name in ("prompt", "group"):
                if place[name] != row[name]:
                    raise DataError(
                        f"{file}, row {row['row']}, field {name!r}: item {row['item_id']!r} has another {name} in an "
                        "earlier row; give each item one"
                    )
            given.append(row)
    elif split is not None:
        if all(item.group is None for item in split.items):
            raise SplitError(f"split {split.name} has no labels to compare by; label it with `unlearnbench curate`")
        found = {
            item.item_id: {"item_id": item.item_id, "prompt": item.prompt, "answer": item.answer, "group": item.group}
            for item in split.items
        }
    source = str(file or (split.path if split is not None else "the pool"))
    chosen = _chosen(source, list(found.values()), options)
    ids = {item["item_id"] for item in chosen}
    return Pool(
        pa.Table.from_pylist(chosen, schema=ITEMS),
        pa.Table.from_pylist([row for row in given if row["item_id"] in ids], schema=GIVEN),
        split,
        file,
    )


def skill_of(family: str) -> str:
    """The skill that a family's name ends in, after its cause and number: of private/low and rare/08-low, `low`."""
    return re.sub(r"^\d+-", "", family.rsplit("/", 1)[-1])


def _chosen(source: str, items: Sequence[dict[str, Any]], options: Options) -> list[dict[str, Any]]:
    groups, most = options.groups, options.items_per_group
    there = list(dict.fromkeys(str(item["group"]) for item in items if item["group"] is not None))
    wanted = groups or ([UNGROUPED] if there == [UNGROUPED] else DEFAULT_GROUPS)
    used = [name for name in wanted if name in there]
    if missing := [name for name in groups or () if name not in there] or ([] if used else list(wanted)):
        told = ", ".join(there) or "no groups"
        raise DataError(f"{source} has no items of group {' or '.join(missing)}; it has {told}: choose with --groups")
    kept: set[str] = set()
    for name in used:
        ids = [item["item_id"] for item in items if item["group"] == name]
        kept.update(ids if most is None else shuffled(ids, "diagnose", options.seed, name)[:most])
    return [item for item in items if item["item_id"] in kept]


def _rows(file: Path, split: Split | None, reading: Reading) -> Iterator[dict[str, Any]]:
    """Rows with the fields of ITEMS and GIVEN, each checked."""
    known = {} if split is None else {item.item_id: item for item in split.items}
    index = None if split is None else ProblemIndex(split)
    empty = True
    read = read_rollouts(file, columns=reading.columns, extra=("prompt", "correct", "token_ids", "group", "count"))
    for batch in of_one_step((_named(batch, index) for batch in read), reading.step):
        for place, row in enumerate(batch.rows.to_pylist()):
            empty = False
            yield _row(batch.where(place), batch.numbers[place], row, known)
    if empty:
        raise DataError(f"{file} has no rollouts; give a file with a row for each")


def _named(batch: Batch, index: ProblemIndex | None) -> Batch:
    if index is not None:
        return index.named(batch)
    missing = pc.index(pc.is_null(batch.rows["item_id"]), True).as_py()
    if missing >= 0:
        raise DataError(
            f"{batch.where(missing)}, field 'item_id': it is missing; add it, or name with --split the split that "
            "knows the prompt"
        )
    return batch


def _row(where: str, number: int, row: Mapping[str, Any], known: Mapping[str, Item]) -> dict[str, Any]:
    if row["count"] is not None:
        raise DataError(
            f"{where}, field 'count': the file has different completions with counts, whose order of sampling is "
            "lost; give one row a rollout"
        )
    item = known.get(row["item_id"])
    # The split's text is what the policy is asked; a trainer logs it in its chat template.
    prompt = row["prompt"] or None if item is None else item.prompt
    if prompt is None:
        raise DataError(
            f"{where}, field 'prompt': item {row['item_id']!r} has none; add it, or name with --split the split that "
            "knows this item"
        )
    if row["correct"] is None:
        raise DataError(
            f"{where}, field 'correct': it is missing; give each rollout its verdict, or name its column with --column "
            "correct=NAME"
        )
    if row["token_ids"] is None and row["completion"] is None:
        raise DataError(f"{where}: neither 'completion' nor 'token_ids' is there; give one of them")
    return {
        "item_id": row["item_id"],
        "row": number,
        "prompt": prompt,
        "answer": item.answer if item else None,
        "group": row["group"] if row["group"] is not None else (item.group if item else UNGROUPED),
        "completion": row["completion"],
        "token_ids": row["token_ids"],
        "finish": row["finish"],
        "correct": row["correct"],
    }


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
    """The rollouts of these items of USED, one per row (PUBLISHED)."""

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
