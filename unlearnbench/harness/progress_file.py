"""progress.json: how far a run is, written now and then so that `unlearnbench status` can say so from anywhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from unlearnbench.errors import DataError, RunError
from unlearnbench.harness.run_config import BEGUN
from unlearnbench.io import tables
from unlearnbench.io.files import write_json
from unlearnbench.records import Record
from unlearnbench.workers.jobs import Watch
from unlearnbench.workers.messages import Event, Progress

NAME = "progress.json"
EVERY = 2.0
"""Seconds between two writes."""


class StageProgress(Record):
    """One stage of one seed; `rate` is in steps, or rollouts, per second."""

    seed: int
    stage: str
    done: float
    rate: float
    step: int | None
    reward: float | None
    began: float
    """Seconds since 1970, as `seen` of the last report."""
    seen: float


class RunProgress(Record):
    """progress.json of a run's folder."""

    schema_version: Literal[1] = 1
    what: str
    seeds: Sequence[int]
    began: float
    stages: Sequence[StageProgress]


class ProgressFile:
    """Takes the events of worker processes, writes progress.json, and passes the events on."""

    def __init__(self, folder: Path, what: str, seeds: Sequence[int], watch: Watch | None) -> None:
        self._path, self._watch = folder / NAME, watch
        self._state = RunProgress(what=what, seeds=list(seeds), began=time.time(), stages=())
        self._stages = {(stage.seed, stage.stage): stage for stage in _earlier(self._path, what)}
        self._written = 0.0
        self._lock = threading.Lock()  # seeds report from threads of their own
        self._write()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            now, key = time.time(), (event.seed, event.stage)
            began = self._stages[key].began if key in self._stages else now
            self._stages[key] = StageProgress(
                seed=event.seed,
                stage=event.stage,
                done=event.done,
                rate=event.rate,
                step=event.step,
                reward=event.reward,
                began=began,
                seen=now,
            )
            with self._lock:
                if now - self._written >= EVERY or event.done >= 1:
                    self._write()
        if self._watch is not None:
            self._watch(event)

    def _write(self) -> None:
        self._state = self._state.model_copy(update={"stages": list(self._stages.values())})
        self._written = time.time()
        try:
            write_json(self._path, self._state)
        except RunError:  # a full disk stops the run where it matters, not here
            return


def _earlier(path: Path, what: str) -> Sequence[StageProgress]:
    """Stages that an earlier command of the same run has reported."""
    try:
        found = tables.read_json_record(path, RunProgress) if path.is_file() else None
    except DataError:  # it is rewritten
        return ()
    return found.stages if found is not None and found.what == what else ()


def restarts(folder: Path) -> str | None:
    """A sentence where an earlier command of the run in `folder` ended before a checkpoint; None elsewhere."""
    found = read_progress(folder)
    begun = [] if found is None else [of.seed for of in found.stages if of.stage == "train" and 0 < of.done < 1]
    lost = [str(seed) for seed in begun if not any((folder / str(seed) / name).exists() for name in BEGUN)]
    if not lost:
        return None
    seeds = f"seed {lost[0]}" if len(lost) == 1 else f"seeds {', '.join(lost)}"
    return f"the training of {seeds} was interrupted before its first checkpoint and starts again"


def read_progress(folder: Path) -> RunProgress | None:
    """What a run's folder says of its progress; None where no run has begun. Raises DataError if it is malformed."""
    path = Path(folder) / NAME
    return tables.read_json_record(path, RunProgress) if path.is_file() else None
