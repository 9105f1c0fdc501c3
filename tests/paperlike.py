"""A split released as ids, its source data and its generated problems, all made up here: 60 problems, small files."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from tiny import config

from unlearnbench.records import PolicyRef, Protocol, Samples
from unlearnbench.splits.manifest import RELEASED

SETTING = "made_level1to4"
HEAD = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
TAIL = "\nPlease reason step by step, and put your final answer within \\boxed{{}}.<|im_end|>\n<|im_start|>assistant\n"
"""As the real data has it: the braces of a format string that nobody filled in."""

HARD, EASY_TO_LEARN = (3, 8, 21, 22, 40, 57), (5, 30, 31)
"""Indices of unlearnable items; of those behind positions 20, 21 and 22. Index 21 and 22 are of other items."""
POSITIONS = (20, 21, 22, 23)
"""The last is of a problem that the source does not have."""

_SYLLABLES = [
    first + second for first in ("ba", "ko", "mi", "ru", "ze") for second in ("lan", "dor", "fip", "tusk", "wen")
]


def problem(index: int, numbers: tuple[int, int]) -> tuple[str, str]:
    """A problem with words that no other has, and its answer."""
    draw = random.Random(index)
    thing, owner = (draw.choice(_SYLLABLES) + draw.choice(_SYLLABLES) + "x" * (index % 7) for _ in range(2))
    a, b = numbers
    return f"{owner.title()} has ${a}$ {thing}s and finds ${b}$ more. How many {thing}s does {owner} have?", str(a + b)


def original(index: int) -> tuple[str, str]:
    return problem(index, (100 + index, 7 * index + 11))


def source_rows(order: dict[int, int] | None = None) -> list[dict[str, Any]]:
    """Rows as the Hub has them; `order` gives another problem's text to an index."""
    rows = []
    for index in range(60):
        text, answer = original((order or {}).get(index, index))
        rows.append(
            {
                "question": text,
                "gt_answer": answer,
                "answer": f"The sum is \\boxed{{{answer}}}.",
                "subject": "Algebra" if index % 2 else "Geometry",
                "level": 3,
                "prompt": [{"role": "user", "content": HEAD + text + TAIL}],
                "reward_model": {"style": "rule", "ground_truth": answer},
                "extra_info": {"index": index, "answer": answer, "question": text, "split": "train"},
            }
        )
    return rows


def write_source(folder: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    path = folder / SETTING / "train.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows or source_rows()), path)
    return folder


def write_artifacts(folder: Path) -> list[dict[str, Any]]:
    """Similar problems and sub-problems of both groups; returns their entries in released.json."""
    folder.mkdir(parents=True)
    numbered = {"unlearnable": {index: index for index in HARD}}
    numbered["learnable"] = dict(zip(POSITIONS, (*EASY_TO_LEARN, 999), strict=True))
    entries = []
    for group, numbers in numbered.items():
        for kind in ("similar", "sub_problems"):
            rows: list[dict[str, Any]] = []
            for number, index in numbers.items():
                for k in range(2):
                    text, answer = problem(index, (300 + index + k, 41 + k))
                    if kind == "sub_problems":
                        text, answer = (
                            f"Let {text.split()[0]} be. What is ${100 + index}$ plus ${k}$?",
                            str(100 + index + k),
                        )
                    rows.append({"id": f"{number}_{k}", "question": text, "answer": answer, "solution": "by adding"})
            if kind == "similar" and group == "unlearnable":
                repeat, answer = original(HARD[1])
                rows.append(
                    {
                        "id": f"{HARD[0]}_2",
                        "question": repeat.replace("$", " $ "),
                        "answer": int(answer),
                        "solution": "",
                    }
                )
            name, data = f"all_{kind}_{group}.json", json.dumps(rows).encode()
            (folder / name).write_bytes(data)
            means = "index" if group == "unlearnable" else "position"
            sha = hashlib.sha256(data).hexdigest()
            entries.append({"name": name, "sha256": sha, "kind": kind, "group": group, "numbers": means})
    return entries


def write_split(folder: Path, entries: list[dict[str, Any]] | None, **changes: Any) -> Path:
    """split.yaml and released.json, as the package carries them."""
    folder.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {
        "name": folder.name,
        "label_rule": "paper",
        "budget": None,
        "base_policy": PolicyRef(path="nobody/nothing"),
        "protocol": Protocol(samples=Samples(certify=0)),
    }
    made = config(**given | changes).model_dump(mode="json")
    (folder / "split.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
    release = {
        "addresses": ["http://127.0.0.1:1"],
        "licence": "Apache-2.0",
        "notice": "Made by nobody.",
        "files": entries,
    }
    told: dict[str, Any] = {
        "paper": "none",
        "source": {
            "repository": "nobody/data",
            "file": f"{SETTING}/train.parquet",
            "licence": "MIT",
            "form": "simplerl",
            "numbering": "extra_info.index",
        },
        "release": release if entries else None,
        "seeds": [1, 42, 37],
        "groups": {
            "unlearnable": {"ids": HARD, "extent": "lower bound"},
            "learnable": {"positions": POSITIONS, "extent": "sample"},
        },
        "missing": ["Everything else."],
    }
    (folder / RELEASED).write_text(json.dumps(told))
    return folder
