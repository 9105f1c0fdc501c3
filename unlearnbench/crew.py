"""The processes that do one job: started, heard, answered and ended together, never orphaned."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearnbench import errors

Event = Mapping[str, Any]


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
    processes: int = 1
    """How many processes do the job together."""


class Crew:
    """One worker process, or several that train together. Reports come from the first; any may fail or ask."""

    def __init__(self, job: Job, on_event: Callable[[Event], None] | None) -> None:
        self._job, self._on_event = job, on_event
        self._failure: Exception | None = None
        self._done: set[int] = set()
        self._ended = False
        self._gave_up = False
        self._timer: threading.Timer | None = None
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a", encoding="utf-8") as log:
            self._processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "unlearnbench.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment,
                )
                for environment in _environments(job)
            ]

    def end(self) -> None:
        """Kill whatever is left of it."""
        self._ended = True
        for process in self._processes:
            process.kill()

    def work(self, stopping: threading.Event) -> None:
        """Do the job. Raises the error a worker reported, or RunError or MethodError if one died without a word."""
        if stopping.is_set():
            self.end()
        self._heard()
        listeners = [threading.Thread(target=self._listen, args=(rank,)) for rank in range(1, len(self._processes))]
        try:
            for listener in listeners:
                listener.start()
            self._listen(0)
            for listener in listeners:
                listener.join()
            status = next((code for process in self._processes if (code := process.wait()) != 0), 0)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for process in self._processes:
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        with suppress(BrokenPipeError):
                            pipe.close()
        self._raise(status, stopping)

    def _listen(self, rank: int) -> None:
        """Hand one process its job, then hear it to its end; where it fails, the others are ended, too."""
        process, job = self._processes[rank], self._job
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            # stdin stays open: a worker whose parent has died reads its end and leaves.
            process.stdin.write(json.dumps({"kind": job.kind, **job.payload}) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            event = json.loads(line)
            self._heard()
            if "ask" in event:
                with suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(_reply(job, event["ask"])) + "\n")
                    process.stdin.flush()
            elif "error" in event:
                kind = getattr(errors, event["error"]["type"], errors.RunError)
                self._failure = self._failure or kind(event["error"]["message"])
                if len(self._processes) > 1:
                    self.end()
            elif "done" in event:
                self._done.add(rank)
            elif self._on_event and rank == 0:
                self._on_event(event)
        if process.wait() != 0 and len(self._processes) > 1:
            self.end()

    def _heard(self) -> None:
        """Somebody said something: begin to wait anew."""
        if self._timer is not None:
            self._timer.cancel()
        if self._job.patience is not None:
            self._timer = threading.Timer(self._job.patience, self._lose_patience)
            self._timer.daemon = True
            self._timer.start()

    def _lose_patience(self) -> None:
        self._gave_up = True
        self.end()

    def _raise(self, status: int, stopping: threading.Event) -> None:
        job = self._job
        if self._failure is not None:
            raise self._failure
        if self._gave_up:
            raise errors.MethodError(
                f"{job.label} said nothing for {job.patience:.0f} seconds and was ended, so it may hang; its last "
                f"words are in {job.log}; mend the method, or give it more time with --patience, and run the same "
                "command again"
            )
        if stopping.is_set():
            return
        if status == 0 and len(self._done) < len(self._processes):
            raise errors.MethodError(
                f"{job.label} ended its own process before its work was done; remove what calls exit, and run it again"
            )
        if status != 0:
            hint = {-9: " (killed: out of memory?)", -6: " (aborted: is the disk full?)"}.get(status, "")
            raise errors.RunError(
                f"{job.label} ended with status {status}{hint}; its last words are in {job.log}, and the same command "
                "goes on where it stopped"
            )


def _environments(job: Job) -> list[dict[str, str]]:
    """What each process of a job finds in its environment; of several also its rank and where to meet (as torchrun)."""
    common = {
        **os.environ,
        "OMP_NUM_THREADS": "1",  # busy processes with several threads each stall one another
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **job.environment,
    }
    if job.processes == 1:
        return [common]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(job.processes)}
    return [{**common, **meeting, "RANK": str(k), "LOCAL_RANK": str(k)} for k in range(job.processes)]


def _reply(job: Job, name: str) -> dict[str, Any]:
    """The answer to what a process asks for, or the sentence that says why there is none."""
    if job.answer is None:
        return {"error": f"{job.label} asked for {name}, which this command does not give"}
    try:
        return {"reply": job.answer(name)}
    except errors.UnlearnBenchError as problem:
        return {"error": str(problem)}
