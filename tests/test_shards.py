"""Measuring in shards, over several processes: the bytes of one process, also after one of them was killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_bundle import run_here

from unlearnbench.errors import RunError
from unlearnbench.io.tables import write_parquet
from unlearnbench.splits import Split
from unlearnbench.workers import measure, measure_shards, process
from unlearnbench.workers.executor import run_chains
from unlearnbench.workers.jobs import Compute, Job, MeasureTask, measure_job

N = 128


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CHUNK_ROLLOUTS", 2 * N)


def _job(split: Split, folder: Path, processes: int) -> tuple[Job, MeasureTask]:
    """Measure ten items, two a shard."""
    problems = [(item.item_id, item.prompt, item.answer) for item in split.items[::4]]
    out = str(folder / "items.parquet")
    task = MeasureTask(out=out, root="test/shards", problems=problems, key="item_id", n=N)
    compute = Compute(processes=processes)
    job = measure_job(split, split.policy_path, [task], folder / "log.txt", compute, seed=1, stage="measure")
    return job, task


@pytest.fixture(scope="module")
def whole(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one process writes that draws everything in one go."""
    from unlearnbench.policies.policy import load_policy
    from unlearnbench.policies.samplers.transformers import TransformersSampler
    from unlearnbench.verifier import Verifier

    path = tmp_path_factory.mktemp("whole") / "items.parquet"
    policy = load_policy(small_split.policy_path)
    chosen = [measure.Problem(item.item_id, item.prompt, item.answer) for item in small_split.items[::4]]
    with pytest.MonkeyPatch.context() as patch, Verifier() as verifier:
        patch.setattr(measure, "CHUNK_ROLLOUTS", 2 * N)
        rows = measure.measure(
            chosen,
            N,
            policy=policy,
            sampler=TransformersSampler(policy),
            verifier=verifier,
            sampling=small_split.config.protocol.sampling,
            root="test/shards",
        )
    write_parquet(path, rows)
    return path.read_bytes()


def test_shards_drawn_apart_and_in_another_order_join_to_the_bytes_of_one_process(
    small_split: Split, tmp_path: Path, whole: bytes
) -> None:
    job, task = _job(small_split, tmp_path, 1)
    shards = measure_shards.cut_job(job.work)  # type: ignore[arg-type]
    first, *others = shards.left
    assert len(others) == 4
    for part in ([first], others[::-1]):
        run_here(replace(job, work=job.work.model_copy(update={"tasks": part})))
        assert not (tmp_path / "items.parquet").exists()
        left = measure_shards.cut_job(job.work).left  # type: ignore[arg-type]
        assert left == (others if part == [first] else []), "a shard that is there is not drawn again"
    shards.join()
    assert (tmp_path / "items.parquet").read_bytes() == whole
    assert measure_shards.is_measured(task) and not (tmp_path / ".items.shards").exists()


@pytest.mark.slow
def test_one_of_two_processes_killed_loses_no_shard_and_two_others_end_it_to_the_byte(
    small_split: Split, tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[process.LocalProcess] = []

    class Noted(process.LocalProcess):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(process, "LocalProcess", Noted)
    job, task = _job(small_split, tmp_path, 2)
    folder = tmp_path / ".items.shards"
    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set() and not list(folder.glob("*.parquet")):
            time.sleep(0.005)
        os.kill(started[1]._process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RunError, match=r"the measuring \(measure\) of seed 1 ended with status -9"):
        run_chains([[job]], 1)
    ended.set()
    killer.join()
    done = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert 1 <= len(done) < 5
    assert not (tmp_path / "items.parquet").exists()
    monkeypatch.setattr(measure_shards, "_clear", lambda task: None)  # so that the shards can still be looked at
    run_chains([[job]], 1)
    assert len(started) == 2 + min(2, 5 - len(done))  # a process takes seconds to start: none for nothing
    assert (tmp_path / "items.parquet").read_bytes() == whole
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    assert len(after) == 5
    assert {name: after[name] for name in done} == done  # finished shards were not drawn again
    monkeypatch.undo()
    run_chains([[job]], 1)  # nothing to do but to clear away
    assert not folder.exists()
    assert measure_shards.is_measured(task)
