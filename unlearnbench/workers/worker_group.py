"""Those who do one job: started, heard, answered and ended together, never orphaned.

They are processes of this machine and, where a launcher started the command on several, the other machines
(`machines.py`), each of which has processes of its own and is heard as one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from unlearnbench import errors

Event = Mapping[str, Any]

LAUNCHERS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} | {
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME")
}
"""What torchrun and others tell a process of the processes beside it."""


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


@dataclass(frozen=True)
class Place:
    """Where the processes of one machine stand among all that do a job, and where all of them meet."""

    first: int
    """Rank of the first process here."""
    here: int
    of: int
    address: str
    port: int


class Member(Protocol):
    """Somebody who works on a job: a process, or another machine."""

    def begin(self, job: Job) -> None: ...

    def events(self) -> Iterator[Event]:
        """What it says, to its end."""
        ...

    def reply(self, answer: Mapping[str, Any]) -> None:
        """The answer to its last question."""
        ...

    def end(self) -> None:
        """Make it stop."""
        ...

    def wait(self) -> int:
        """Its exit status."""
        ...

    def close(self) -> None: ...


class Process:
    """A worker process of this machine."""

    def __init__(self, environment: Mapping[str, str], log: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "unlearnbench.workers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=dict(environment),
        )

    def begin(self, job: Job) -> None:
        # stdin stays open: a worker whose parent has died reads its end and leaves.
        self.reply({"kind": job.kind, **job.payload})

    def events(self) -> Iterator[Event]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def reply(self, answer: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(answer) + "\n")
            self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        return self._process.wait()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class Crew:
    """All who do one job together. Reports come from the first; any may fail or ask.

    `place` says which ranks are this machine's, where `others` have the rest.
    """

    def __init__(
        self,
        job: Job,
        on_event: Callable[[Event], None] | None,
        place: Place | None = None,
        others: Sequence[Member] = (),
    ) -> None:
        self._job, self._on_event = job, on_event
        self._failure: Exception | None = None
        self._done: set[int] = set()
        self._lost: set[int] = set()
        """Those that lost another one, whose end is what is to be told."""
        self._status = 0  # of the first that failed
        self._gave_up = False
        self._timer: threading.Timer | None = None
        self._timing, self._answering = threading.Lock(), threading.Lock()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("a", encoding="utf-8") as log:
            started = [Process(environment, log) for environment in _environments(job, place)]
        self._members: list[Member] = [*started, *others]

    def end(self) -> None:
        """End whoever is left of it."""
        for member in self._members:
            member.end()

    def work(self, stopping: threading.Event) -> None:
        """Do the job. Raises the error a worker reported, or RunError or MethodError if one died without a word."""
        if stopping.is_set():
            self.end()
        self._heard()
        listeners = [threading.Thread(target=self._listen, args=(rank,)) for rank in range(1, len(self._members))]
        try:
            for listener in listeners:
                listener.start()
            self._listen(0)
            for listener in listeners:
                listener.join()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for member in self._members:
                member.close()
        self._raise(self._status, stopping)

    def _listen(self, rank: int) -> None:
        """Hand one member the job, then hear it to its end; where it fails, the others are ended, too."""
        member, job = self._members[rank], self._job
        member.begin(job)
        for event in member.events():
            self._heard()
            if "ask" in event:
                with self._answering:  # all processes ask for the same, and what is copied for them is copied once
                    answer = _reply(job, event["ask"])
                member.reply(answer)
            elif "error" in event:
                kind = getattr(errors, event["error"]["type"], errors.RunError)
                self._failure = self._failure or kind(event["error"]["message"])
                if len(self._members) > 1:
                    self.end()
            elif "done" in event:
                self._done.add(rank)
            elif "lost" in event:
                self._lost.add(rank)
            elif self._on_event and rank == 0:
                self._on_event(event)
        if (status := member.wait()) != 0:
            if rank not in self._lost:
                self._status = self._status or status
            if len(self._members) > 1:
                self.end()

    def _heard(self) -> None:
        """Somebody said something: begin to wait anew."""
        with self._timing:
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
        if status == 0 and self._lost:
            raise errors.RunError(
                f"the processes of {job.label} lost one another; see to the network between them (last words are in "
                f"{job.log}), and run the same command again: it goes on where it stopped"
            )
        if status == 0 and len(self._done) < len(self._members):
            raise errors.MethodError(
                f"{job.label} ended its own process before its work was done; remove what calls exit, and run it again"
            )
        if status != 0:
            hint = {-9: " (killed: out of memory?)", -6: " (aborted: is the disk full?)"}.get(status, "")
            raise errors.RunError(
                f"{job.label} ended with status {status}{hint}; its last words are in {job.log}, and the same command "
                "goes on where it stopped"
            )


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


def _environments(job: Job, place: Place | None) -> list[dict[str, str]]:
    """What each process here finds in its environment; of several also its rank and where to meet (as torchrun)."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHERS and not name.startswith("TORCHELASTIC_")
    }
    common = {
        **inherited,
        "OMP_NUM_THREADS": "1",  # busy processes with several threads each stall one another
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **job.environment,
    }
    if job.processes == 1:
        return [common]
    if place is None:
        place = Place(0, job.processes, job.processes, "127.0.0.1", free_port())
    meeting = {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port), "WORLD_SIZE": str(place.of)}
    meeting["LOCAL_WORLD_SIZE"] = str(place.here)
    return [{**common, **meeting, "RANK": str(place.first + k), "LOCAL_RANK": str(k)} for k in range(place.here)]


def _reply(job: Job, name: str) -> dict[str, Any]:
    """The answer to what a process asks for, or the sentence that says why there is none."""
    if job.answer is None:
        return {"error": f"{job.label} asked for {name}, which this command does not give"}
    try:
        return {"reply": job.answer(name)}
    except errors.UnlearnBenchError as problem:
        return {"error": str(problem)}
    except OSError as problem:  # unanswered, the process would wait for ever
        told = f"{problem.strerror or str(problem)[:200]} ({problem.filename or name})"
        return {"error": f"{job.label} asked for {name}: {told}; mend that and run the same command again: it resumes"}
