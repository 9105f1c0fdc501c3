"""Rollouts made anywhere, in batches of a few megabytes, every value checked: our own rows and those of trainers.

TRL writes `step, prompt, completion, reward, advantage` and what a reward function logs; verl `input, output, gts,
score, step` and what its reward function returns; OpenRLHF `input, output`; prime-rl and verifiers `prompt` and
`completion` as chats; others a list of completions per row. `NAMES` says which columns are looked for, `--column` names
another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.io import chats, rows, values
from unlearnbench.io.json_rows import CHAT, PEEK
from unlearnbench.io.rows import Rows
from unlearnbench.io.streams import is_json
from unlearnbench.io.values import Misfit

_INSIDE = ("extra_info", "metadata", "info", "doc", "task.data")
NAMES: Mapping[str, tuple[str, ...]] = {
    "item_id": ("item_id", "twin_id", *(f"{outer}.{key}" for outer in _INSIDE for key in ("item_id", "twin_id"))),
    "prompt": ("prompt", "prompts", "input", "input_prompt", "question", "problem", "query"),
    "completion": (
        *("completion", "completions", "response", "responses", "output", "outputs"),
        *("output_response", "generation", "generations"),
    ),
    "seed": ("seed",),
    "step": ("step", "global_step"),
    "finish": ("finish", "finish_reason", "stop_reason"),
    "correct": ("correct", "acc", "score", "reward"),
    "token_ids": ("token_ids", "completion_ids", "response_ids"),
    "group": ("group",),
    "count": ("count",),
}
"""The columns of a file that each of ours may be, the likeliest first."""

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("finish", pa.string()),
    ]
)
_FINISH = {"stop": "stop", "eos": "stop", "length": "length", "max_tokens": "length", "model_length": "length"}


ROWS = 16_384
"""Most rollouts of a batch."""


@dataclass(frozen=True)
class Batch:
    """Rollouts of one file that follow each other.

    `rows` has the columns of SCHEMA (item_id or prompt is there; step and finish may be null) and what else was asked
    for.
    """

    source: Path
    rows: pa.Table
    numbers: Sequence[int]
    """The file's row of each, from 1; of jsonl the line. Several rollouts may come from one row."""
    done: float = 1.0
    """Share of the file that has been read."""

    def where(self, index: int) -> str:
        """The file and row of a rollout of this batch, as errors begin."""
        return f"{self.source}, row {self.numbers[index]}"

    def select(self, kept: np.ndarray[Any, Any]) -> Batch:
        """The rollouts at these places, in their order."""
        table = self.rows.take(pa.array(kept))
        return Batch(self.source, table, [self.numbers[place] for place in kept.tolist()], self.done)


def read_rollouts(
    path: Path,
    seed: int = 0,
    *,
    columns: Mapping[str, str] | None = None,
    extra: Sequence[str] = (),
) -> Iterator[Batch]:
    """The rollouts of a file in batches, in their order; `seed` is that of rows without one.

    `columns` says which column of the file one of NAMES is, where it is not one that is looked for. `extra` are names
    of NAMES beyond SCHEMA that are read where the file has them. Raises DataError naming file, row and field: a
    missing column or value, a value of another kind (`values.py`), a file that cannot be read.
    """
    path = Path(path)
    if is_json(path) and not rows.column_names(path):
        return  # no row at all
    found = _found(path, columns or {}, extra)
    for batch in rows.read_rows(path, list(found.values())):
        yield from _slices(_Reader(batch, found).batch(seed, extra))


def _slices(batch: Batch) -> Iterator[Batch]:
    """A batch in parts of at most ROWS rollouts: short ones, and many a row, make many of a block."""
    rows_there = batch.rows.num_rows
    for start in range(0, rows_there, ROWS):
        done = batch.done if start + ROWS >= rows_there else min(batch.done, 0.999)
        yield Batch(batch.source, batch.rows.slice(start, ROWS), batch.numbers[start : start + ROWS], done)


def _found(path: Path, chosen: Mapping[str, str], extra: Sequence[str]) -> dict[str, str]:
    """The columns of a file that are to be read, by the name of ours that each is. Raises DataError where one lacks."""
    found = {name: column for name, column in find_columns(path, chosen).items() if name in (*SCHEMA.names, *extra)}
    text = ("completion", "token_ids") if "token_ids" in extra else ("completion",)
    for needed in (("item_id", "prompt"), text):
        if not any(name in found for name in needed):
            has = ", ".join(name for name in rows.column_names(path) if "." not in name)
            raise DataError(
                f"{path}: column {needed[0]!r} is missing; the file has {has}: say which of them it is with --column "
                f"{needed[0]}=NAME"
            )
    if "item_id" in found and "prompt" in found and "prompt" not in extra and _all_named(path, found["item_id"]):
        del found["prompt"]
    return found


def find_columns(path: Path, chosen: Mapping[str, str]) -> dict[str, str]:
    """Which column of a file each of NAMES is, as far as it has them. Raises DataError for a chosen one it has not."""
    present = rows.column_names(path)
    for name, column in chosen.items():
        if name not in NAMES:
            raise DataError(f"there is no column {name!r} to choose; choose one of {', '.join(NAMES)}")
        rows.require_columns(path, present, [column])
    found = dict(chosen)
    for name, likely in NAMES.items():
        there = [column for column in likely if column in present]
        if there and name not in found:
            rows.require_columns(path, present, there[:1])
            found[name] = there[0]
        elif is_json(path) and name not in ("item_id", "prompt", "completion", "token_ids"):
            found[name] = name  # rows further on may have it
    return found


def _all_named(path: Path, column: str) -> bool:
    """Whether the first rows have an id each, so that nobody has to look at their prompts."""
    for batch in rows.read_rows(path, [column]):
        first = rows.listed(batch.columns[column][:PEEK])
        return all(not _is_blank(value) for value in first)
    return True


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


class _Reader:
    """Takes the columns of one batch of a file into the form of SCHEMA."""

    def __init__(self, batch: Rows, found: Mapping[str, str]) -> None:
        self._rows, self._found = batch, found

    def batch(self, seed: int, extra: Sequence[str]) -> Batch:
        """The batch, one row a rollout."""
        texts, parents = self._completions()
        read = {
            "item_id": self._ids(),
            "prompt": self._prompts(),
            "completion": texts,
            "seed": pc.fill_null(self._column("seed", values.WHOLE), seed),
            "step": self._column("step", values.WHOLE),
            "finish": self._finishes(),
        }
        kinds = {"correct": values.FLAG, "group": values.NAME, "count": values.WHOLE}
        for name in extra:
            if name == "token_ids":
                read[name] = self._token_ids()
            elif name not in read:
                read[name] = self._column(name, kinds[name])
        numbers = self._rows.numbers
        if parents is not None:
            read = {name: column if name == "completion" else column.take(parents) for name, column in read.items()}
            numbers = [numbers[place] for place in parents.to_pylist()]
        return Batch(self._rows.source, pa.table(read), numbers, self._rows.done)

    def _column(self, name: str, kind: values.Kind) -> pa.Array:
        if name not in self._found:
            return pa.nulls(len(self._rows), kind.type)
        return values.column(self._rows, self._found[name], kind)

    def _refused(self, name: str, index: int, why: object) -> DataError:
        return DataError(f"{self._rows.where(index)}, field {self._found[name]!r}: {why}")

    def _ids(self) -> pa.Array:
        """Ids, null where a row has none and is identified by its prompt."""
        if "item_id" not in self._found:
            return pa.nulls(len(self._rows), pa.string())
        if "prompt" not in self._found:
            return values.column(self._rows, self._found["item_id"], values.NAME, required=True)
        return values.column(self._rows, self._found["item_id"], values.NAME_OR_BLANK)

    def _prompts(self) -> pa.Array:
        """What the user asked last, of prompts that are texts or chats; null where a prompt is neither."""
        if "prompt" not in self._found:
            return pa.nulls(len(self._rows), pa.string())
        column = self._rows.columns[self._found["prompt"]]
        if not isinstance(column, list):
            if values.is_text(column.type) and pc.sum(
                pc.match_substring(column.cast(pa.string()), '"role"')
            ).as_py() in (0, None):
                return values.column(self._rows, self._found["prompt"], values.TEXT)
            if column.type == CHAT and (found := _said_last(column, "user")) is not None:
                return found
        return pa.array([_asked(value) for value in rows.listed(column)], pa.string())

    def _completions(self) -> tuple[pa.Array, pa.Array | None]:
        """Texts, and the row that each is of (None: one per row)."""
        if "completion" not in self._found:
            return pa.nulls(len(self._rows), pa.string()), None
        field = self._found["completion"]
        column = self._rows.columns[field]
        if isinstance(column, list):
            if all(type(value) is str for value in column):
                return values.column(self._rows, field, values.TEXT), None
        elif values.is_text(column.type):
            return values.column(self._rows, field, values.TEXT, required="token_ids" not in self._found), None
        elif column.type == CHAT and (found := _said_last(column, "assistant")) is not None:
            return found, None
        texts: list[str | None] = []
        parents: list[int] = []
        for index, value in enumerate(rows.listed(column)):
            try:
                said = [None] if value is None and "token_ids" in self._found else _said(value)
            except Misfit as error:
                raise self._refused("completion", index, error) from error
            texts += said
            parents += [index] * len(said)
        whole = parents == list(range(len(column)))
        return pa.array(texts, pa.string()), None if whole else pa.array(parents, pa.int64())

    def _finishes(self) -> pa.Array:
        """`stop` or `length` as far as a file says it in words that are known."""
        if "finish" not in self._found:
            return pa.nulls(len(self._rows), pa.string())
        column = self._rows.columns[self._found["finish"]]
        if isinstance(column, list):
            return pa.array([_FINISH.get(value) if isinstance(value, str) else None for value in column], pa.string())
        if not values.is_text(column.type):
            return pa.nulls(len(column), pa.string())
        coded = column.dictionary_encode() if not pa.types.is_dictionary(column.type) else column
        known = [_FINISH.get(value) for value in coded.dictionary.to_pylist()]
        return pa.array(known, pa.string()).take(coded.indices)

    def _token_ids(self) -> pa.Array:
        if "token_ids" not in self._found:
            return pa.nulls(len(self._rows), pa.list_(pa.int64()))
        column = rows.listed(self._rows.columns[self._found["token_ids"]])
        for index, value in enumerate(column):
            if value is not None and not _are_tokens(value):
                found = values.shown(value)
                raise self._refused("token_ids", index, f"whole numbers from 0 were expected, but it is {found}")
        return pa.array(column, pa.list_(pa.int64()))


def _are_tokens(value: object) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(type(token) is int and 0 <= token < 1 << 31 for token in value)
    )


def _said_last(chat: pa.Array, role: str) -> pa.Array | None:
    """The content of each chat's last message, where all of those are of this role and are text; else None."""
    if chat.null_count or len(chat) == 0 or pc.any(pc.equal(pc.list_value_length(chat), 0)).as_py():
        return None
    last = chat.values.take(pc.subtract(chat.offsets[1:], 1))
    roles, said = pc.struct_field(last, "role"), pc.struct_field(last, "content")
    good = last.null_count == 0 and said.null_count == 0 and pc.all(pc.equal(roles, role)).as_py()
    return said if good else None


def _asked(prompt: object) -> str | None:
    asked = chats.asked(prompt)
    return asked if asked is not None and values.encodes(asked) else None


def _said(value: Any) -> list[str]:
    """The completions that a row has: a text, a chat, a message, or a list of these. Raises Misfit."""
    if value is None:
        raise Misfit("it is missing")
    if isinstance(value, str):
        return [values.text(value)]
    if isinstance(value, dict) and "content" in value:
        value = [{"role": "assistant", **value}]
    if chats.is_chat(value):
        said = chats.last_turn(value, "assistant")
        if said is None:
            raise Misfit("a chat with a message of the assistant was expected, and it has none")
        return [values.text(said)]
    if isinstance(value, list) and value:
        return [text for one in value for text in _said(one)]
    raise Misfit(f"text, a chat or a list of them was expected, but it is {values.shown(value)}")
