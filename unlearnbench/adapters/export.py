"""A split as files that other trainers read as they are: TRL, verl, or plain jsonl.

Rows are the pool in the order of its items: prompts and gold answers, no group, family, twin or control, since a method
may not see those. Prompts are what the base policy is shown: a text where the split's prompt format is `raw`, a chat
of one user's turn where it is `chat` (verl takes chats alone).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa

from unlearnbench.errors import SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import Canary, Item, Twin
from unlearnbench.splits import Split
from unlearnbench.splits.split import PARTS

Rows = Sequence[Item | Canary | Twin]
Format = Literal["trl", "verl", "jsonl"]
TWINS = "twins"
FORMATS: tuple[Format, ...] = get_args(Format)

_CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_VERL = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", _CHAT),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        ("extra_info", pa.struct([("index", pa.int64()), ("item_id", pa.string()), ("split", pa.string())])),
    ]
)


def export(split: Split, format: Format, out: Path, *, part: str = "train", canaries: bool = False) -> Path:
    """Write one part of a split as OUT/<part>.parquet or .jsonl; returns the file.

    A part is `train` (all items), a group, or `twins`: those that a score needs, which are for evaluation alone; their
    `item_id` is the twin's own, and they have no solution. `canaries` mixes the split's canaries in, by id, so that
    reading the gold can be found out. Raises SplitError for an unknown or empty part, RunError if the disk is full.
    """
    if part not in (*PARTS, TWINS):
        raise SplitError(f"there is no part {part!r}; parts are {', '.join((*PARTS, TWINS))}")
    rows: list[Item | Canary | Twin]
    if part == TWINS:
        needed = {problem[0] for problem in split.problems("twin")}
        rows = [twin for twin in split.twins if twin.twin_id in needed]
    else:
        rows = [item for item in split.items if part in ("train", item.group)]
    if not rows:
        raise SplitError(f"split {split.name} has no items in {part}; it has {_filled(split)}")
    if canaries:
        rows = sorted([*rows, *split.canaries], key=_id)
    chat = split.config.prompt_format == "chat"
    write: Callable[..., Path] = {"trl": _trl, "verl": _verl, "jsonl": _jsonl}[format]
    return write(out / part, rows, split.name, part, chat)


def _trl(file: Path, rows: Rows, name: str, part: str, chat: bool) -> Path:
    """`prompt`, which GRPOTrainer reads, and columns that it hands to reward functions."""
    content = [_plain(row, chat) for row in rows]
    text = pa.string()
    prompt = _CHAT if chat else text
    schema = pa.schema([("prompt", prompt), ("answer", text), ("solution", text), ("item_id", text)])
    return _parquet(file, pa.Table.from_pylist(content, schema=schema))


def _verl(file: Path, rows: Rows, name: str, part: str, chat: bool) -> Path:
    """The columns of verl's data sets; `index` is the place in the file."""
    content = [
        {
            "data_source": f"unlearnbench/{name}",
            "prompt": _turn(row.prompt),
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": row.answer},
            "extra_info": {"index": index, "item_id": _id(row), "split": part},
        }
        for index, row in enumerate(rows)
    ]
    return _parquet(file, pa.Table.from_pylist(content, schema=_VERL))


def _jsonl(file: Path, rows: Rows, name: str, part: str, chat: bool) -> Path:
    """One object a line: item_id, prompt, answer, solution."""
    path = file.with_name(f"{file.name}.jsonl")
    lines = (json.dumps(_plain(row, chat), ensure_ascii=False) + "\n" for row in rows)
    files.write_text(path, "".join(lines))
    return path


def _plain(row: Item | Canary | Twin, chat: bool) -> Mapping[str, Any]:
    prompt = _turn(row.prompt) if chat else row.prompt
    solution = "" if isinstance(row, Twin) else row.solution
    return {"prompt": prompt, "answer": row.answer, "solution": solution, "item_id": _id(row)}


def _id(row: Item | Canary | Twin) -> str:
    return row.twin_id if isinstance(row, Twin) else row.item_id


def _turn(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _parquet(file: Path, table: pa.Table) -> Path:
    path = file.with_name(f"{file.name}.parquet")
    tables.write_parquet(path, table)
    return path


def _filled(split: Split) -> str:
    groups = sorted({item.group for item in split.items if item.group})
    return ", ".join(["train", *groups]) if split.items else "no items"
