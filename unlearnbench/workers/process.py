"""One worker process of a job on this machine: how it is started, spoken to and ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from huggingface_hub import constants

from unlearnbench.errors import RunError
from unlearnbench.io.child import command
from unlearnbench.records import Record
from unlearnbench.workers.channel import Arrays, receive, send
from unlearnbench.workers.cpu_time import CpuClock
from unlearnbench.workers.isolation import Isolation
from unlearnbench.workers.jobs import Job, TrainJob
from unlearnbench.workers.messages import Event, Reply, Request

_SECRET = re.compile("TOKEN(?!IZERS)|SECRET|PASSW|CREDENTIAL|API_?KEY", re.IGNORECASE)
GRACE = 5.0
"""Seconds that a process has to end by itself before it is killed."""


class NodeLost(RunError):
    """The machine that a process ran on was lost; its job must run again on another one."""


class Process(Protocol):
    """A worker process, wherever it runs."""

    killed: bool
    """Whether it was ended by this process, so that its exit status has no meaning."""
    cpu_seconds: float
    """Of the process and of all that it started, as the operating system counted them; known when it has ended."""

    def begin(self, start: Start) -> None:
        """Hand it the job."""

    def receive(self) -> tuple[Event | Request, Arrays] | None:
        """The next event or request with its arrays; None at the end. Raises ChannelError, NodeLost."""

    def reply(self, reply: Reply) -> None:
        """Answer the request that was received last."""

    def end(self) -> None:
        """Kill it and whatever it started."""

    def used(self) -> float | None:
        """Processor seconds that it and its descendants have used so far; None where that is not known."""

    def wait(self) -> int:
        """Its exit status."""

    def close(self) -> None:
        """Nothing more is said or heard."""


class Start(Record):
    """The first message to a worker: what to call, with what."""

    function: str
    work: Mapping[str, Any]


class Place(Record):
    """Where a worker process runs, and behind which walls."""

    folder: str
    """Its working folder: one with nothing in it that Python could take for a module."""
    log: str
    isolation: Isolation | None
    changes: Mapping[str, str]
    """What its environment has beside the inherited one."""


class LocalProcess:
    """A worker process of this machine."""

    def __init__(self, place: Place) -> None:
        Path(place.folder).mkdir(parents=True, exist_ok=True)
        Path(place.log).parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            log = stack.enter_context(Path(place.log).open("ab"))
            argv, given = command("unlearnbench.workers.worker:exit_with_main"), list[int]()
            if place.isolation is not None:  # by a file: it may name more paths than a command line holds
                file = stack.enter_context(tempfile.TemporaryFile())
                file.write(place.isolation.model_dump_json().encode())
                file.seek(0)
                argv, given = command("unlearnbench.workers.supervisor:main", file.fileno()), [file.fileno()]
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(place),
                cwd=place.folder,
                start_new_session=True,
                pass_fds=given,
            )
        self._clock = CpuClock(self._process.pid)
        self._supervised = place.isolation is not None
        self._status: int | None = None
        self.killed = False
        self.cpu_seconds = 0.0

    def begin(self, start: Start) -> None:
        # Its input stays open: a worker whose parent has died reads the end of it and leaves.
        assert self._process.stdin is not None
        with suppress(OSError):
            send(self._process.stdin, start)

    @property
    def output(self) -> IO[bytes]:
        """What it says."""
        assert self._process.stdout is not None
        return self._process.stdout

    def receive(self) -> tuple[Event | Request, Arrays] | None:
        return receive(self.output)

    def reply(self, reply: Reply) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            send(self._process.stdin, reply)

    def end(self) -> None:
        if self._status is not None:
            return
        self.killed = True
        with suppress(ProcessLookupError, PermissionError):
            if self._supervised:  # what has left the process group is found by the supervisor alone
                os.kill(self._process.pid, signal.SIGTERM)
                killer = threading.Timer(GRACE, self._kill_group)
                killer.daemon = True
                killer.start()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _kill_group(self) -> None:
        if self._status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def used(self) -> float | None:
        return self._clock.look()

    def wait(self) -> int:
        if self._status is None:
            try:
                _, status, used = os.wait4(self._process.pid, 0)
                self._status = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = max(used.ru_utime + used.ru_stime, self._clock.seen)
            except ChildProcessError:
                self._status = self._process.wait()
            self._process.returncode = self._status
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)  # whatever stayed in its process group
        return self._status

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def places(job: Job, meeting: Mapping[str, str] | None = None) -> list[Place]:
    """Where each process of a job runs; of several, `meeting` says where they meet (as torchrun does)."""
    folder = job.work.out if isinstance(job.work, TrainJob) else str(job.log.parent)
    common = {
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,  # set explicitly, since HOME may differ
        "OMP_NUM_THREADS": "1",  # busy processes with several threads each stall one another
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if isinstance(job.work, TrainJob):
        common |= {"UNLEARNBENCH_SEALED": job.work.sealed, "HOME": job.work.out, "TMPDIR": job.work.out}
        common["HF_HUB_OFFLINE"] = "1"  # the base policy is here, and there is no network
    ranks: list[dict[str, str]] = [{}]
    if job.processes > 1:
        shared = meeting or here(job.processes)
        ranks = [{"LOCAL_RANK": str(rank), "RANK": str(rank), **shared} for rank in range(job.processes)]
    return [
        Place(folder=folder, log=str(job.log), isolation=job.isolation, changes={**common, **rank}) for rank in ranks
    ]


def here(processes: int) -> dict[str, str]:
    """Where processes of this machine meet."""
    count = str(processes)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return {**meeting, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}


def start_here(job: Job) -> list[Process]:
    """The processes of a job, on this machine."""
    return [LocalProcess(place) for place in places(job)]


def _environment(place: Place) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
    if place.isolation is not None:  # foreign code gets no keys
        inherited = {name: value for name, value in inherited.items() if not _SECRET.search(name)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        inherited.pop(name, None)
    return {**inherited, **place.changes}


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])
