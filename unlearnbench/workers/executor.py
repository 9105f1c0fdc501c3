"""Runs chains of jobs side by side, on this machine or on a cluster; stops them together, and leaves no orphan."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from unlearnbench.errors import RunError
from unlearnbench.workers import measure_shards
from unlearnbench.workers.jobs import Compute, Job, MeasureJob, Watch
from unlearnbench.workers.messages import Event
from unlearnbench.workers.process import NodeLost, Process, start_here
from unlearnbench.workers.worker_group import WorkerGroup

MOST_LOSSES = 5
"""Machines that may be lost under one job before the command gives up."""


class Executor(Protocol):
    """Where the processes of jobs run."""

    def start(self, job: Job) -> Sequence[Process]:
        """Start the processes of a job; waits for a place."""

    def at_once(self, chains: int, compute: Compute) -> int:
        """How many of `chains` run at once, unless `compute` states it."""

    def require(self, folder: Path, processes: int) -> None:
        """Raises RunError if jobs with this many processes, with files under `folder`, cannot run."""


class Local:
    """Worker processes of this machine."""

    def start(self, job: Job) -> Sequence[Process]:
        return start_here(job)

    def at_once(self, chains: int, compute: Compute) -> int:
        """As many as the cores allow for."""
        return compute.workers or max(1, min(chains, (os.cpu_count() or 1) // compute.processes))

    def require(self, folder: Path, processes: int) -> None:
        return


def executor_of(compute: Compute) -> Executor:
    """This machine, or the Ray cluster that `compute` names. Raises RunError if it cannot be reached."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RunError(
            f"this command was started {os.environ['WORLD_SIZE']} times by a launcher such as torchrun; start it once, "
            "with --processes for several processes of this machine, or with --ray for several machines"
        )
    if compute.ray is None:
        return Local()
    from unlearnbench.workers.ray_cluster import cluster  # an extra

    return cluster(compute.ray)


def run_chains(
    chains: Sequence[Sequence[Job]], at_once: int, watch: Watch | None = None, executor: Executor | None = None
) -> None:
    """Run chains of jobs, `at_once` of them; the jobs of a chain one after the other. What is done is passed over.

    A job whose machine is lost is done again elsewhere, from its last checkpoint or shard. Any other failure, or
    Ctrl-C, ends all other workers (run again, they resume) and is raised: the error that a worker reported, or RunError
    if it died without a word.
    """
    where = executor or Local()
    alive: set[WorkerGroup] = set()
    stopping = threading.Event()
    lock = threading.Lock()

    def work(job: Job) -> None:
        group = WorkerGroup(job, watch, where.start)
        with lock:
            alive.add(group)
        try:
            group.work(stopping)
        finally:
            with lock:
                alive.discard(group)

    def attempt(job: Job) -> None:
        if not isinstance(job.work, MeasureJob):
            if job.judge is None or not job.judge.finished:
                work(job)
            return
        shards = measure_shards.cut_job(job.work)
        if shards.left:  # a process takes seconds to start: none for what an earlier command measured
            count = min(job.processes, len(shards.left))
            update = {"tasks": shards.left, "processes": count}
            work(replace(job, work=job.work.model_copy(update=update), processes=count))
        if not stopping.is_set():
            shards.join()

    def run_chain(chain: Sequence[Job]) -> None:
        for job in chain:
            for losses in range(MOST_LOSSES + 1):
                if stopping.is_set():
                    return
                try:
                    attempt(job)
                    break
                except NodeLost as problem:
                    if losses == MOST_LOSSES:
                        raise
                    print(f"{problem}; {job.label} goes on elsewhere", file=sys.stderr, flush=True)

    pool = ThreadPoolExecutor(max_workers=max(1, at_once))
    futures = [pool.submit(run_chain, chain) for chain in chains]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [future for future in done if future.exception() is not None]
        if failed:
            raise failed[0].exception()  # type: ignore[misc]
    finally:
        stopping.set()
        with lock:
            for group in alive:
                group.end()
        pool.shutdown(wait=True, cancel_futures=True)


def run_job(job: Job) -> list[Event]:
    """Run one job here and return its events."""
    events: list[Event] = []
    run_chains([[job]], 1, events.append)
    return events
