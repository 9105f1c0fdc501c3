"""Work in fresh processes: one JSON job each, run side by side, stopped together, never orphaned."""

from __future__ import annotations

import fcntl
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unlearnbench import errors
from unlearnbench.methods import MethodSource
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.splits import Split
from unlearnbench.splits.split import SEALED
from unlearnbench.training.options import TrainerOptions
from unlearnbench.workers import measure_shards
from unlearnbench.workers.multi_node import Machines
from unlearnbench.workers.worker_group import Crew, Event, Job

Problems = Sequence[tuple[str, str, str]]  # (id, prompt, answer)
RECORDS = ("method.json", "cost.json", "environment.json")
"""What a worker says of a seed that it has trained, after the checkpoint."""


def weights_hash(folder: Path) -> str:
    """sha256 over the safetensors of a policy folder: its revision. Of an adapter, its configuration scales them."""
    digest = hashlib.sha256()
    for path in (*sorted(folder.glob("*.safetensors")), *folder.glob("adapter_config.json")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one command at a time works on a folder. Raises RunError where another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise errors.RunError(
                f"another command is working on {folder}; wait until it has ended, or name another folder with --out"
            ) from problem
        yield


def stream_root(split: Split, purpose: str, seed: int) -> str:
    """Name of the random streams of one seed; streams of different purposes never meet (PROTOCOL 3.1)."""
    return f"{split.name}/{split.config.seed}/{purpose}/{seed}"


def train_job(
    split: Split,
    sealed: Path,
    method: MethodSource,
    seed: int,
    purpose: str,
    out: Path,
    *,
    fingerprint: str,
    flops: int | None,
    steps: int | None,
    changes: Mapping[str, Any] | None = None,
    start: Path | None = None,
    kind: str = "train",
    recipe: Mapping[str, Any] | None = None,
    answer: Callable[[str], Any] | None = None,
    patience: float | None = None,
    processes: int = 1,
) -> Job:
    """Train one seed of a method on the sealed copy, until `flops` are spent or `steps` are done."""
    return Job(
        kind=kind,
        label=f"seed {seed} of {method.name}",
        log=out / "log.txt",
        payload={
            "sealed": str(sealed.resolve()),
            "hide": str(split.path),
            "out": str(out.resolve()),
            "method": method.as_dict(),
            "source_hash": method.hash,
            "changes": dict(changes or {}),
            "recipe": dict(recipe or {}),
            "seed": seed,
            "root": stream_root(split, purpose, seed),
            "flops": flops,
            "steps": steps,
            "start": None if start is None else str(start.resolve()),
            "fingerprint": fingerprint,
            "processes": processes,
            "sampler": asdict(TRANSFORMERS),
        },
        environment={SEALED: str(sealed.resolve())},
        answer=answer,
        patience=patience,
        processes=processes,
    )


def measure_job(
    split: Split,
    policy: Path | str,
    tasks: Sequence[Mapping[str, Any]],
    log: Path,
    *,
    seed: int,
    stage: str,
    processes: int = 1,
) -> Job:
    """Measure one saved policy on the problems of each task, whose shards the processes share out."""
    return Job(
        kind="measure",
        label=f"the measuring ({stage}) of seed {seed}",
        log=log,
        payload={
            "policy": str(policy.resolve() if isinstance(policy, Path) else policy),
            "revision": None if isinstance(policy, Path) else split.config.base_policy.revision,
            "prompt_format": split.config.prompt_format,
            "rule": split.config.protocol.verifier_rule,
            "sampling": split.config.protocol.sampling.model_dump(),
            "seed": seed,
            "stage": stage,
            "tasks": list(tasks),
            "sampler": asdict(TRANSFORMERS),
        },
        processes=processes,
    )


def drawn_by(engine: Engine, chains: Sequence[Sequence[Job]]) -> list[list[Job]]:
    """The same jobs with another sampler."""
    return [[replace(job, payload={**job.payload, "sampler": asdict(engine)}) for job in chain] for chain in chains]


def trained_with(options: TrainerOptions, chains: Sequence[Sequence[Job]]) -> list[list[Job]]:
    """The same jobs, their training computed in another way; what they measure is the same for all."""
    told = options.model_dump(exclude_defaults=True)

    def computed(job: Job) -> Job:
        return job if job.kind == "measure" else replace(job, payload={**job.payload, "trainer": told})

    return [[computed(job) for job in chain] for chain in chains]


def measure_task(
    out: Path, root: str, problems: Problems, key: str, n: int, *, distinct: bool = False
) -> dict[str, Any]:
    """n rollouts of each problem, drawn from the streams under `root`, written to `out`."""
    return {
        "out": str(out.resolve()),
        "root": root,
        "problems": [list(problem) for problem in problems],
        "key": key,
        "n": n,
        "distinct": distinct,
    }


def run_chains(
    chains: Sequence[Sequence[Job]],
    workers: int,
    on_event: Callable[[Event], None] | None = None,
    machines: Machines | None = None,
) -> None:
    """Run chains of jobs, `workers` at once; the jobs of a chain one after the other.

    Jobs of several processes are done by all `machines`, one at a time. The first failure, or Ctrl-C, ends all other
    workers (they go on from their checkpoints when run again) and is raised: the error a worker reported, or RunError
    if it died without a word.
    """
    alive: set[Crew] = set()
    stopping = threading.Event()
    lock = threading.Lock()

    def work(job: Job) -> None:
        crew = Crew(job, on_event) if machines is None else machines.crew(job, on_event)
        with lock:
            alive.add(crew)
        try:
            crew.work(stopping)
        finally:
            with lock:
                alive.discard(crew)

    def run_chain(chain: Sequence[Job]) -> None:
        for job in chain:
            if stopping.is_set():
                return
            if job.kind != "measure":
                if not _is_trained(job):
                    work(job)
                continue
            tasks, parts, left = _shared_out(job)
            if left:  # a process takes seconds to start: none for what an earlier command measured
                # Across machines it is settled which process has which rank, also where some find nothing to do.
                count = job.processes if machines is not None else min(job.processes, len(left))
                work(replace(job, payload={**job.payload, "tasks": left, "processes": count}, processes=count))
            if not stopping.is_set():
                for task, part in zip(tasks, parts, strict=True):
                    measure_shards.join(task, part, 0.0 if machines is None else measure_shards.LATE)

    pool = ThreadPoolExecutor(max_workers=max(1, workers) if machines is None else 1)
    futures = [pool.submit(run_chain, chain) for chain in chains]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [future for future in done if future.exception() is not None]
        if failed:
            raise failed[0].exception()  # type: ignore[misc]
    finally:
        stopping.set()
        with lock:
            for crew in alive:
                crew.end()
        pool.shutdown(wait=True, cancel_futures=True)


def _is_trained(job: Job) -> bool:
    """Whether an earlier command trained it to its end, and left all that a worker says of it."""
    if job.kind != "train":
        return False
    folder = Path(job.payload["out"])
    checkpoint = folder / "checkpoint/state.json"
    try:
        state = json.loads(checkpoint.read_text())
        same = bool(state["finished"] and state["fingerprint"] == job.payload["fingerprint"])
        # A record older than the checkpoint is that of a training whose checkpoint was lost.
        oldest = min((folder / name).stat().st_mtime_ns for name in RECORDS)
        return same and oldest >= checkpoint.stat().st_mtime_ns
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _shared_out(job: Job) -> tuple[list[measure_shards.Task], list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """The tasks of a measuring that are not done, the shards of each, and those of all that nobody has drawn yet."""
    tasks = []
    for task in job.payload["tasks"]:
        if measure_shards.is_measured(task):
            measure_shards.clear(task)
        else:
            tasks.append(task)
    drawn_with = {
        name: value for name, value in job.payload.items() if name not in ("policy", "seed", "stage", "tasks")
    }
    folder = Path(job.payload["policy"])
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    drawn_with["weights"] = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in weights]
    parts = [measure_shards.cut(task, drawn_with) for task in tasks]
    return tasks, parts, [shard for part in parts for shard in part if not measure_shards.is_measured(shard)]


def run_job(job: Job) -> Event:
    """Run one job and return what it reports last."""
    last: dict[str, Any] = {}
    run_chains([[job]], 1, last.update)
    return last
