"""The ledger of a run: every rollout it ever drew, kept or not, and one line of metrics a step.

Both are truncated to a checkpoint's offsets when a run resumes, so that a killed run leaves the same files as an
unbroken one (LOOP, "Exact resume").
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from unlearnbench.errors import RunError
from unlearnbench.io import tables
from unlearnbench.records import Rollout

ROLLOUTS = pa.schema(
    [
        ("step", pa.int32()),
        ("round", pa.int32()),
        ("item_id", pa.string()),
        ("rollout", pa.int32()),
        ("source", pa.string()),
        ("policy_version", pa.int32()),
        ("completion", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("finish", pa.string()),
        ("correct", pa.bool_()),
        ("answer", pa.string()),
        ("reason", pa.string()),
        ("reward", pa.float64()),
        ("valid_trace", pa.bool_()),
        ("kept", pa.bool_()),
    ]
)


class Ledger:
    """Rollouts wait in memory until `flush`, which a checkpoint calls; metrics are written as they come.

    Of several processes that train together only the first one `writes`.
    """

    def __init__(self, folder: Path, solutions: Mapping[str, str] | None, *, writes: bool = True) -> None:
        self.folder = folder
        self._writes = writes
        self._solutions = solutions
        self._waiting: list[dict[str, Any]] = []
        self._metrics = folder / "metrics.jsonl"
        (folder / "rollouts").mkdir(parents=True, exist_ok=True)

    def valid_trace(self, rollout: Rollout) -> bool | None:
        """Whether a rewarded rollout reads as its reference solution; None where the split cannot tell."""
        if self._solutions is None:
            return None
        return bool(rollout.verdict.correct) and rollout.completion.strip() == self._solutions.get(rollout.item_id)

    def record(self, rollouts: Sequence[Rollout], kept: Sequence[bool]) -> None:
        if not self._writes:
            return
        for rollout, was_kept in zip(rollouts, kept, strict=True):
            self._waiting.append(
                {
                    "step": rollout.iteration,
                    "round": rollout.round,
                    "item_id": rollout.item_id,
                    "rollout": rollout.index,
                    "source": rollout.source,
                    "policy_version": rollout.policy_version,
                    "completion": rollout.completion,
                    "token_ids": rollout.token_ids,
                    "finish": rollout.finish,
                    "correct": rollout.verdict.correct,
                    "answer": rollout.verdict.answer,
                    "reason": rollout.verdict.reason,
                    "reward": rollout.reward,
                    "valid_trace": self.valid_trace(rollout),
                    "kept": was_kept,
                }
            )

    def log(self, metrics: Mapping[str, float | int | None]) -> None:
        if not self._writes:
            return
        line = json.dumps(metrics, allow_nan=False) + "\n"
        try:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as problem:
            raise RunError(
                f"cannot write {self._metrics} ({problem.strerror}); free some space and run the same command "
                "again: it resumes"
            ) from problem

    def flush(self, steps: int) -> dict[str, int]:
        """Write what waits as the rollouts up to `steps`; returns the offsets that a checkpoint keeps."""
        if self._waiting:
            table = pa.Table.from_pylist(self._waiting, schema=ROLLOUTS)
            tables.write_parquet(self.folder / "rollouts" / f"{steps:06d}.parquet", table)
            self._waiting.clear()
        size = 0
        if self._metrics.is_file():
            with self._metrics.open("rb") as file:
                os.fsync(file.fileno())
            size = self._metrics.stat().st_size
        return {"steps": steps, "metrics_bytes": size}

    def truncate(self, offsets: Mapping[str, int]) -> None:
        """Forget everything after a checkpoint (all of it for steps 0)."""
        self._waiting.clear()
        if not self._writes:
            return
        for path in (self.folder / "rollouts").glob("*.parquet"):
            if int(path.stem) > offsets["steps"]:
                path.unlink()
        if self._metrics.is_file():
            with self._metrics.open("r+b") as file:
                file.truncate(offsets["metrics_bytes"])


def read_ledger(folder: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of all rollouts of a run's seed, in the order in which they were drawn."""
    wanted = {name: ROLLOUTS.field(name).type for name in columns}
    parts = [tables.read_parquet(path, wanted) for path in sorted((folder / "rollouts").glob("*.parquet"))]
    schema = pa.schema(list(wanted.items()))
    return pa.concat_tables([part.select(list(columns)) for part in parts]) if parts else schema.empty_table()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics of every step of a run's seed."""
    path = folder / "metrics.jsonl"
    return list(tables.read_jsonl(path)) if path.is_file() else []
