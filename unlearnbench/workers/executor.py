"""Runs chains of jobs side by side in processes of this machine; stops them together, and leaves no orphan."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace

from unlearnbench.workers import measure_shards
from unlearnbench.workers.jobs import Job, MeasureJob, Watch
from unlearnbench.workers.messages import Event
from unlearnbench.workers.worker_group import WorkerGroup


def run_chains(chains: Sequence[Sequence[Job]], at_once: int, watch: Watch | None = None) -> None:
    """Run chains of jobs, `at_once` of them; the jobs of a chain one after the other. What is done is passed over.

    The first failure, or Ctrl-C, ends all other workers (run again, they resume) and is raised: the error that a
    worker reported, or RunError if it died without a word.
    """
    alive: set[WorkerGroup] = set()
    stopping = threading.Event()
    lock = threading.Lock()

    def work(job: Job) -> None:
        group = WorkerGroup(job, watch)
        with lock:
            alive.add(group)
        try:
            group.work(stopping)
        finally:
            with lock:
                alive.discard(group)

    def run_chain(chain: Sequence[Job]) -> None:
        for job in chain:
            if stopping.is_set():
                return
            if not isinstance(job.work, MeasureJob):
                if job.judge is None or not job.judge.finished:
                    work(job)
                continue
            shards = measure_shards.cut_job(job.work)
            if shards.left:  # a process takes seconds to start: none for what an earlier command measured
                count = min(job.processes, len(shards.left))
                update = {"tasks": shards.left, "processes": count}
                work(replace(job, work=job.work.model_copy(update=update), processes=count))
            if not stopping.is_set():
                shards.join()

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
    """Run one job and return its events."""
    events: list[Event] = []
    run_chains([[job]], 1, events.append)
    return events
