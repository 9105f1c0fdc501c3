"""Work in fresh processes: one JSON job each, run side by side, stopped together, never orphaned."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench import errors
from unlearnbench.methods import MethodSource
from unlearnbench.splits import SEALED, Split
from unlearnbench.tables import read_parquet

Event = Mapping[str, Any]
Problems = Sequence[tuple[str, str, str]]  # (id, prompt, answer)


@dataclass(frozen=True)
class Job:
    """One piece of work for a worker process. What it prints goes to `log`."""

    kind: str
    label: str
    log: Path
    payload: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    answer: Callable[[str], Any] | None = None
    """Answers what the process asks for (`privileges.Privileges`)."""
    patience: float | None = None
    """Seconds without a word after which the process is ended; None waits for ever."""


def weights_hash(folder: Path) -> str:
    """sha256 over the safetensors of a policy folder: its revision."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
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
        },
        environment={SEALED: str(sealed.resolve())},
        answer=answer,
        patience=patience,
    )


def measure_job(
    split: Split, policy: Path | str, tasks: Sequence[Mapping[str, Any]], log: Path, *, seed: int, stage: str
) -> Job:
    """Measure one saved policy on the problems of each task."""
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
        },
    )


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


def is_measured(task: Mapping[str, Any]) -> bool:
    """Whether a task's file holds its problems."""
    path = Path(task["out"])
    if not path.is_file():
        return False
    found = pc.unique(read_parquet(path, {task["key"]: pa.string()})[task["key"]])
    return set(found.to_pylist()) == {problem[0] for problem in task["problems"]}


def run_chains(chains: Sequence[Sequence[Job]], workers: int, on_event: Callable[[Event], None] | None = None) -> None:
    """Run chains of jobs, `workers` at once; the jobs of a chain one after the other.

    The first failure, or Ctrl-C, ends all other workers (they go on from their checkpoints when run again) and is
    raised: the error a worker reported, or RunError if it died without a word.
    """
    alive: set[subprocess.Popen[str]] = set()
    stopping = threading.Event()
    lock = threading.Lock()

    def run_chain(chain: Sequence[Job]) -> None:
        for job in chain:
            if stopping.is_set():
                return
            # A process takes seconds to start: none for what an earlier command measured.
            if job.kind != "measure" or not all(map(is_measured, job.payload["tasks"])):
                _run(job, alive, lock, stopping, on_event)

    pool = ThreadPoolExecutor(max_workers=max(1, workers))
    futures = [pool.submit(run_chain, chain) for chain in chains]
    try:
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [future for future in done if future.exception() is not None]
        if failed:
            raise failed[0].exception()  # type: ignore[misc]
    finally:
        stopping.set()
        with lock:
            for process in alive:
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def run_job(job: Job) -> Event:
    """Run one job and return what it reports last."""
    last: dict[str, Any] = {}
    run_chains([[job]], 1, last.update)
    return last


class _Watch:
    """Ends a process that says nothing for too long: a method that hangs must not hold up everything."""

    def __init__(self, process: subprocess.Popen[str], patience: float | None) -> None:
        self.gave_up = False
        self._process, self._patience = process, patience
        self._timer: threading.Timer | None = None
        self.heard()

    def heard(self) -> None:
        self.stop()
        if self._patience is not None:
            self._timer = threading.Timer(self._patience, self._end)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self.gave_up = True
        self._process.kill()


def _reply(job: Job, name: str) -> dict[str, Any]:
    """The answer to what a process asks for, or the sentence that says why there is none."""
    if job.answer is None:
        return {"error": f"{job.label} asked for {name}, which this command does not give"}
    try:
        return {"reply": job.answer(name)}
    except errors.UnlearnBenchError as problem:
        return {"error": str(problem)}


def _run(
    job: Job,
    alive: set[subprocess.Popen[str]],
    lock: threading.Lock,
    stopping: threading.Event,
    on_event: Callable[[Event], None] | None,
) -> None:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",  # busy processes with several threads each stall one another
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **job.environment,
    }
    with job.log.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "unlearnbench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
    with lock:
        alive.add(process)
        if stopping.is_set():
            process.kill()
    failure: Exception | None = None
    ended = False
    watch = _Watch(process, job.patience)
    try:
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            # stdin stays open: a worker whose parent has died reads its end and leaves.
            process.stdin.write(json.dumps({"kind": job.kind, **job.payload}) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            event = json.loads(line)
            watch.heard()
            if "ask" in event:
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(_reply(job, event["ask"])) + "\n")
                    process.stdin.flush()
            elif "error" in event:
                kind = getattr(errors, event["error"]["type"], errors.RunError)
                failure = kind(event["error"]["message"])
            elif "done" in event:
                ended = True
            elif on_event:
                on_event(event)
        status = process.wait()
    finally:
        watch.stop()
        with lock:
            alive.discard(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
    if failure is not None:
        raise failure
    if watch.gave_up:
        raise errors.MethodError(
            f"{job.label} said nothing for {job.patience:.0f} seconds and was ended, so it may hang; its last words "
            f"are in {job.log}; mend the method, or give it more time with --patience, and run the same command again"
        )
    if status == 0 and not ended and not stopping.is_set():
        raise errors.MethodError(
            f"{job.label} ended its own process before its work was done; remove what calls exit, and run it again"
        )
    if status != 0 and not stopping.is_set():
        hint = {-9: " (killed: out of memory?)", -6: " (aborted: is the disk full?)"}.get(status, "")
        raise errors.RunError(
            f"{job.label} ended with status {status}{hint}; its last words are in {job.log}, and the same command "
            "goes on where it stopped"
        )
