"""What running jobs costs: 1,000 shards of nothing, by processes of this machine and on simulated Ray nodes.

    python -m benchmarks.executor [--shards 1000] [--most 8] [--repeats 3]

A job of N processes shares out the shards, as measuring does; each shard is an empty file, written atomically, and a
report to the command. Nodes are simulated: `ray.cluster_utils.Cluster` starts one Ray node after another on this
machine, each with one core to give out, so they share the processor and no network is crossed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurement import described, progress, require, table
from unlearnbench.io.files import write_text
from unlearnbench.workers.executor import Executor, Local, run_chains
from unlearnbench.workers.jobs import Job
from unlearnbench.workers.messages import Event, Progress, Work
from unlearnbench.workers.worker import Link

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
SAME_PRIORITY = {"worker_niceness": 0}
"""Ray lowers the priority of what its workers start (15): beside other jobs, that would measure those."""


class EmptyShards(Work):
    """Shards of nothing, shared out among processes."""

    out: str
    shards: int
    processes: int


def write_shards(job: EmptyShards, link: Link) -> None:
    """What a worker process does: write and report its part of the shards."""
    rank = int(os.environ["RANK"]) if job.processes > 1 else 0
    for number in range(rank, job.shards, job.processes):
        write_text(Path(job.out) / f"{number:05}", "")
        link.report(Progress(seed=0, stage="nothing", done=(number + 1) / job.shards, rate=0.0))


@dataclass(frozen=True)
class Timed:
    """Seconds until the first process reported its first shard, and until the job had ended."""

    first: float
    total: float


def once(executor: Executor, processes: int, shards: int) -> Timed:
    """Run one job of empty shards. Raises AssertionError if a shard is missing."""
    reported: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progress):
            reported.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        work = EmptyShards(out=folder, shards=shards, processes=processes)
        log = Path(folder) / "log.txt"
        job = Job("benchmarks.executor:write_shards", work, "the empty job", log, processes)
        began = time.perf_counter()
        run_chains([[job]], 1, watch, executor)
        ended = time.perf_counter()
        assert len([file for file in Path(folder).iterdir() if file != log]) == shards, log.read_text()
    return Timed(reported[0] - began, ended - began)


@contextmanager
def simulated(nodes: int) -> Iterator[tuple[Executor, float]]:
    """A cluster of so many nodes on this machine, with a head that runs no job; and the seconds that its start took."""
    import ray
    from ray.cluster_utils import Cluster

    from unlearnbench.workers.ray_cluster import Cluster as RayExecutor

    began = time.perf_counter()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "num_cpus": 0, "_system_config": SAME_PRIORITY},
        shutdown_at_exit=True,
    )
    try:
        for _ in range(nodes):
            cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        yield RayExecutor(cluster.address), time.perf_counter() - began
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time 1,000 shards of nothing, here and on simulated nodes.")
    parser.add_argument("--shards", type=int, default=1000, help="shards of the job (default 1000)")
    parser.add_argument("--most", type=int, default=8, help="most processes, and nodes (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="jobs of each row (default 3)")
    chosen = parser.parse_args()
    require("ray")
    sizes = [size for size in (1, 2, 4, 8) if size <= chosen.most]
    rows = []
    for size in sizes:
        progress(f"{size} processes of this machine")
        timed = [once(Local(), size, chosen.shards) for _ in range(chosen.repeats)]
        rows.append(_row(f"{size} local", "", timed, chosen.shards))
    for size in sizes:
        progress(f"{size} simulated nodes")
        with simulated(size) as (executor, started):
            timed = [once(executor, size, chosen.shards) for _ in range(chosen.repeats)]
        rows.append(_row(f"{size} on Ray, a simulated node each", f"{started:.1f}", timed, chosen.shards))
    progress("")
    print(f"{described('ray')}\n\nMedians of {chosen.repeats} jobs of {chosen.shards:,} empty shards:\n")
    print(table(["processes", "s, cluster's start", "s, to the first shard", "s in all", "ms per shard"], rows))


def _row(name: str, started: str, timed: list[Timed], shards: int) -> list[str]:
    first, total = (statistics.median(getattr(one, part) for one in timed) for part in ("first", "total"))
    after = statistics.median(one.total - one.first for one in timed)
    return [name, started, f"{first:.2f}", f"{total:.2f}", f"{1000 * after / shards:.2f}"]


if __name__ == "__main__":
    main()
