"""The ledger of a run, written by the judge: every rollout ever drawn, kept or not, and one line of metrics per step.

Both are truncated to a checkpoint when a run resumes, so that a killed run leaves the same files as an unbroken one
(LOOP, "Exact resume").
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import RunError
from unlearnbench.io import tables
from unlearnbench.records import DRAWN
from unlearnbench.scoring.fates import visits_of

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
    """Rows wait in memory until `flush`, which a checkpoint calls; metrics are written as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: list[dict[str, Any]] = []
        self._metrics = folder / "metrics.jsonl"
        (folder / "rollouts").mkdir(parents=True, exist_ok=True)

    def record(self, rows: Sequence[dict[str, Any]]) -> None:
        """Rollouts of one step, columns as in ROLLOUTS."""
        self._waiting += rows

    def log(self, metrics: Mapping[str, float | int | None]) -> None:
        """Append a line of metrics. Raises RunError if the disk is full."""
        line = json.dumps(metrics, allow_nan=False) + "\n"
        try:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as problem:
            raise RunError(
                f"cannot write {self._metrics} ({problem.strerror}); free some space and run the same command "
                "again: it resumes"
            ) from problem

    def flush(self, steps: int) -> int:
        """Write what waits as the rollouts up to `steps`; returns how long the metrics are then, in bytes."""
        if self._waiting:
            table = pa.Table.from_pylist(self._waiting, schema=ROLLOUTS)
            path = self.folder / "rollouts" / f"{steps:06d}.parquet"
            if path.is_file():  # rollouts between two checkpoints of one step
                table = pa.concat_tables([tables.read_parquet(path).cast(ROLLOUTS), table])
            tables.write_parquet(path, table)
            self._waiting.clear()
        size = 0
        if self._metrics.is_file():
            with self._metrics.open("rb") as file:
                os.fsync(file.fileno())
            size = self._metrics.stat().st_size
        return size

    def truncate(self, steps: int, metrics_bytes: int) -> None:
        """Forget everything after a checkpoint (all of it for steps 0)."""
        self._waiting.clear()
        for path in (self.folder / "rollouts").glob("*.parquet"):
            if int(path.stem) > steps:
                path.unlink()
        if self._metrics.is_file():
            with self._metrics.open("r+b") as file:
                file.truncate(metrics_bytes)


def read_ledger(folder: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of all rollouts of a run's seed, in the order in which they were drawn."""
    wanted = {name: ROLLOUTS.field(name).type for name in columns}
    parts = [tables.read_parquet(path, wanted) for path in sorted((folder / "rollouts").glob("*.parquet"))]
    schema = pa.schema(list(wanted.items()))
    return pa.concat_tables([part.select(list(columns)) for part in parts]) if parts else schema.empty_table()


def read_visits(folder: Path, seed: int) -> pa.Table:
    """What the policy of a run's seed drew in the items' own prompts, counted by visit (`scoring.fates.VISITS`)."""
    table = read_ledger(folder, ("step", "item_id", "correct", "valid_trace", "source"))
    table = table.filter(pc.equal(table["source"], DRAWN[0]))
    return visits_of(table.append_column("seed", pa.array([seed] * table.num_rows, pa.int64())))


def drawn_items(folder: Path) -> frozenset[str] | None:
    """The items that the policy of a run's seed drew in their own prompts; None where no rollouts were kept."""
    table = read_ledger(folder, ("item_id", "source"))
    if not table.num_rows:
        return None
    return frozenset(pc.unique(table.filter(pc.equal(table["source"], DRAWN[0]))["item_id"]).to_pylist())


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics of every step of a run's seed."""
    path = folder / "metrics.jsonl"
    return list(tables.read_jsonl(path)) if path.is_file() else []
