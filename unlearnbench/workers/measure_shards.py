"""A measuring task in shards: each a file of its own, drawn by any process, joined to the one file that readers know.

A shard is one chunk of the task's problems (`measure.chunks`), all that the sampler is asked for at a time. So neither
a draw nor its rounding depends on how many shards are left or on who draws them, and the joined file has the bytes
that one process writes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import RunError
from unlearnbench.io.tables import read_parquet, write_parquet
from unlearnbench.workers.jobs import MeasureJob, MeasureTask
from unlearnbench.workers.measure import ROWS, chunks

LATE = 90.0
"""Seconds until a file written on another machine is surely seen here: network file systems cache what is absent."""


@dataclass(frozen=True)
class Shards:
    """The tasks of a job that are not measured yet, and the shards of each."""

    tasks: Sequence[MeasureTask]
    parts: Sequence[Sequence[MeasureTask]]

    @property
    def left(self) -> list[MeasureTask]:
        """Those that nobody has drawn yet."""
        return [shard for part in self.parts for shard in part if not is_measured(shard)]

    def join(self, patience: float = 0.0) -> None:
        """Write each task's file from its shards."""
        for task, part in zip(self.tasks, self.parts, strict=True):
            join(task, part, patience)


def cut_job(job: MeasureJob) -> Shards:
    """The shards of a job; what is left of those of finished tasks is removed."""
    tasks = []
    for task in job.tasks:
        if is_measured(task):
            _clear(task)
        else:
            tasks.append(task)
    drawn_with: dict[str, Any] = job.model_dump(mode="json", exclude={"policy", "seed", "stage", "tasks", "processes"})
    folder = Path(job.policy)
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    drawn_with["weights"] = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights]
    return Shards(tasks, [cut(task, drawn_with) for task in tasks])


def cut(task: MeasureTask, drawn_with: Mapping[str, Any]) -> list[MeasureTask]:
    """The task's shards, or the task itself where it is a single one.

    A shard's name says all that decides its rows, `drawn_with` included: one that another command left is not taken.
    """
    parts = list(chunks(task.problems, task.n))
    if len(parts) < 2:
        return [task]
    shards = []
    for number, problems in enumerate(parts):
        shard = task.model_copy(update={"problems": problems})
        decisive = shard.model_dump(mode="json", exclude={"out"}) | dict(drawn_with)
        key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
        shards.append(shard.model_copy(update={"out": str(_folder(task) / f"{number:05}-{key}.parquet")}))
    return shards


def is_measured(task: MeasureTask) -> bool:
    """Whether the file of a task, or of a shard, holds its problems."""
    path = Path(task.out)
    if not path.is_file():
        return False
    found = pc.unique(read_parquet(path, {task.key: pa.string()})[task.key])
    return set(found.to_pylist()) == {problem[0] for problem in task.problems}


def join(task: MeasureTask, shards: Sequence[MeasureTask], patience: float = 0.0) -> None:
    """Write the task's file from its shards, and remove them. Raises RunError for a shard not seen in `patience` s."""
    if [shard.out for shard in shards] == [task.out]:
        _wait_for(Path(task.out), patience)
        return
    for shard in shards:
        _wait_for(Path(shard.out), patience)
    rows = pa.concat_tables([read_parquet(Path(shard.out)) for shard in shards])
    # A list's values come back under another name than they were written with, which would show in the bytes.
    types = {name: ROWS.get(name, rows.schema.field(name).type) for name in rows.column_names}
    write_parquet(Path(task.out), rows.cast(pa.schema(types)))
    _clear(task)


def _clear(task: MeasureTask) -> None:
    """Remove what is left of the shards of a task whose file is there."""
    shutil.rmtree(_folder(task), ignore_errors=True)


def _folder(task: MeasureTask) -> Path:
    out = Path(task.out)
    return out.with_name(f".{out.stem}.shards")


def _wait_for(path: Path, patience: float) -> None:
    until = time.monotonic() + patience
    while not path.is_file():
        if time.monotonic() >= until:
            raise RunError(
                f"there is no file {path}, which a process has just written; put its folder on a disk that all "
                "machines share"
            )
        time.sleep(0.5)
