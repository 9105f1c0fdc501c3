"""The files of a finished run as `eval` leaves them, drawn without training, and the bundle made of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_run import SAMPLES, SEEDS

from unlearnbench.harness.evaluate import score_run
from unlearnbench.harness.run_config import RunConfig
from unlearnbench.io import files, tables
from unlearnbench.io.safe_zip import read_archive
from unlearnbench.leaderboard.bundle import Statement, member_limit, repack, write_bundle
from unlearnbench.methods import MethodSource
from unlearnbench.splits import Split
from unlearnbench.training.ledger import ROLLOUTS

METHOD = '''"""A method of the test."""

from unlearnbench import Method


class Mine(Method):
    track = "verifier"
'''
Members = dict[str, bytes]
Refused = Callable[[Callable[[Members], None]], dict[str, str]]
"""The first reason of each check against the made bundle with a change."""


def make_run(
    folder: Path, split: Split, *, converts: int = 12, seeds: tuple[int, ...] = SEEDS, quick: bool = False
) -> Path:
    """A run whose first `converts` items have a rate of 0.7, easy ones 0.95, the rest 0.05; scored by `score_run`."""
    source = folder.parent / "my_algo.py"
    files.write_text(source, METHOD)
    samples = 8 if quick else SAMPLES
    config = RunConfig(
        split=split,
        method=MethodSource("my_algo", str(source), None, None),
        seeds=seeds,
        samples=samples,
        multiple=1.0,
        quick=quick,
    )
    for seed in seeds:
        _write_seed(folder / str(seed), config, seed, converts)
    score_run(config, folder)
    return folder


def _write_seed(place: Path, config: RunConfig, seed: int, converts: int) -> None:
    draw = np.random.default_rng(seed)
    split = config.split
    files.write_json(place / "config.json", config.configuration() | {"seed": seed})
    files.write_json(place / "environment.json", {"python": "3.11", "packages": {"torch": "2.9"}})
    files.write_text(place / "method.py", METHOD)
    method = {"name": "my_algo", "class": "Mine", "source_hash": config.method.hash, "track": "verifier", "reads": []}
    files.write_json(place / "method.json", method | {"settings": {"kl": 0.001}, "hooks": [], "start": "base"})
    cost = {"generated_tokens": 10_000, "trained_tokens": 10_000, "forward_tokens": 10_000, "flops": 999 * 10**9}
    cost |= {"verifier_calls": 640, "ungradable": 0}
    files.write_json(place / "cost.json", cost | {"seconds": 12.5, "device": "CPU (x86_64, 1 thread a process)"})
    problems = [
        (item.item_id, item.answer, _rate(number, item.group, converts)) for number, item in enumerate(split.items)
    ]
    canaries = [(canary.item_id, canary.answer, 0.0) for canary in split.canaries]
    for name, rows in (("items", problems), ("canaries", canaries)):
        drawn = [row for problem in rows for row in _rollouts(*problem, config.samples, draw)]
        tables.write_parquet(place / f"evaluation/{name}.parquet", pa.Table.from_pylist(drawn))
    _write_training(place, split, draw)


def _rate(number: int, group: str | None, converts: int) -> float:
    return 0.7 if number < converts else 0.95 if group == "easy" else 0.05


def _rollouts(name: str, gold: str, rate: float, samples: int, draw: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for sample in range(samples):
        right = bool(draw.random() < rate)
        stated = gold if right else str(1000 + int(draw.integers(0, 50)))
        text = f"{draw.integers(1, 9)}+{draw.integers(1, 9)}>\\boxed{{{stated}}}"
        row = {"item_id": name, "sample": sample, "completion": text, "token_ids": [1, 2, 3], "finish": "stop"}
        rows.append(row | {"correct": right, "answer": stated, "reason": "match" if right else "mismatch"})
    return rows


def _write_training(place: Path, split: Split, draw: np.random.Generator) -> None:
    rows: list[dict[str, Any]] = []
    for step in range(3):
        for item in split.items:
            row = {"step": step, "round": 0, "item_id": item.item_id, "rollout": 0, "source": "policy"}
            row |= {"policy_version": step, "completion": "", "token_ids": [1, 2], "finish": "stop", "reward": 0.0}
            correct = bool(draw.random() < 0.3)
            rows.append(
                row | {"correct": correct, "answer": None, "reason": "match", "valid_trace": None, "kept": True}
            )
    tables.write_parquet(place / "rollouts/000003.parquet", pa.Table.from_pylist(rows, schema=ROLLOUTS))
    lines = [{"step": step, "flops": (step + 1) * 333 * 10**9} for step in range(3)]
    files.write_text(place / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def make_bundle(run: Path, out: Path, **stated: Any) -> Path:
    write_bundle(run, out, Statement(**({"name": "Mine", "tried": 1} | stated)))
    return out


def altered(bundle: Path, out: Path, change: Callable[[Members], None]) -> Path:
    """The bundle with some members changed, and a manifest that is true of them."""
    members = read_archive(bundle, member_limit)
    change(members)
    repack(members, out)
    return out


def in_json(members: Members, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(members[name])
    change(content)
    members[name] = json.dumps(content).encode()


def in_table(members: Members, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the rows of a table as dicts; `change` may return other rows."""
    table = pq.read_table(io.BytesIO(members[name]))
    rows = table.to_pylist()
    rows = change(rows) or rows
    members[name] = parquet(pa.Table.from_pylist(rows, schema=table.schema))


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **({"compression": "zstd"} | options))
    return sink.getvalue()


def told(found: Any) -> Mapping[str, str]:
    """The first reason of each check."""
    first: dict[str, str] = {}
    for reason in found.reasons:
        first.setdefault(reason.check, reason.reason)
    return first
