"""The worker group of one job: its processes start, report and stop together."""

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
from typing import Any

from huggingface_hub import constants

from unlearnbench import errors
from unlearnbench.io.child import command
from unlearnbench.records import Record
from unlearnbench.workers.channel import ChannelError, receive, send
from unlearnbench.workers.cpu_time import LOOK, CpuClock
from unlearnbench.workers.jobs import Job, TrainJob, Watch
from unlearnbench.workers.messages import Ask, Done, Event, Failed, Lost, Reply, Request, Trained, Work

_RESUME = "rerun the same command to resume"
_SECRET = re.compile("TOKEN(?!IZERS)|SECRET|PASSW|CREDENTIAL|API_?KEY", re.IGNORECASE)
_REQUESTS = Request.__args__
GRACE = 5.0
"""Seconds that the others have to end by themselves when a process has lost one of them."""


class Start(Record):
    """The first message to a worker: what to call, with what."""

    function: str
    work: Mapping[str, Any]


class Process:
    """One worker process of a job."""

    def __init__(self, job: Job, environment: Mapping[str, str], log: Any) -> None:
        with ExitStack() as stack:
            argv, given = command("unlearnbench.workers.worker:exit_with_main"), list[int]()
            if job.isolation is not None:  # by a file: it may name more paths than a command line holds
                file = stack.enter_context(tempfile.TemporaryFile())
                file.write(job.isolation.model_dump_json().encode())
                file.seek(0)
                argv, given = command("unlearnbench.workers.supervisor:main", file.fileno()), [file.fileno()]
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                cwd=_folder(job),
                start_new_session=True,
                pass_fds=given,
            )
        self.clock = CpuClock(self._process.pid)
        self._supervised = job.isolation is not None
        self._status: int | None = None
        self.killed = False
        """Whether it was ended from here, so that its status says nothing of it."""
        self.cpu_seconds = 0.0
        """Of the process and of all that it started, as the operating system counted them; known when it has ended."""

    def begin(self, job: Job) -> None:
        # Its input stays open: a worker whose parent has died reads the end of it and leaves.
        assert self._process.stdin is not None
        with suppress(OSError):
            send(self._process.stdin, Start(function=job.function, work=job.work.model_dump(mode="json")))

    def receive(self) -> Any:
        """The next event or request with its arrays; None at the end."""
        assert self._process.stdout is not None
        return receive(self._process.stdout)

    def reply(self, reply: Reply) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            send(self._process.stdin, reply)

    def end(self) -> None:
        """Kill it and whatever it started."""
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

    def wait(self) -> int:
        """Its exit status."""
        if self._status is None:
            try:
                _, status, used = os.wait4(self._process.pid, 0)
                self._status = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = max(used.ru_utime + used.ru_stime, self.clock.seen)
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


class WorkerGroup:
    """All processes of one job. Events come from the first; any may fail or ask."""

    def __init__(self, job: Job, watch: Watch | None) -> None:
        self._job, self._watch = job, watch
        self._failure: Exception | None = None
        self._done: set[int] = set()
        self._lost: set[int] = set()
        """Those that lost another one, whose end is what is to be reported."""
        self._status = 0  # of the first that failed
        self._gave_up = False
        self._processes: list[Process] = []
        self._trained: Trained | None = None
        self._timer: threading.Timer | None = None
        self._grace: threading.Timer | None = None
        self._timing, self._answering = threading.Lock(), threading.Lock()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        if job.judge is not None:
            job.judge.begin(self._clock)
        with job.log.open("a", encoding="utf-8") as log:
            self._processes += [Process(job, environment, log) for environment in _environments(job)]

    def end(self) -> None:
        """Kill whoever is left of it."""
        for process in self._processes:
            process.end()

    def work(self, stopping: threading.Event) -> None:
        """Do the job. Raises the error a worker reported, or RunError or MethodError if one died without a word."""
        if stopping.is_set():
            self.end()
        self._heard()
        listeners = [threading.Thread(target=self._listen, args=(rank,)) for rank in range(1, len(self._processes))]
        over = threading.Event()
        if self._job.judge is not None:
            threading.Thread(target=self._look, args=(over,), daemon=True).start()
        try:
            for listener in listeners:
                listener.start()
            self._listen(0)
            for listener in listeners:
                listener.join()
        finally:
            over.set()
            with self._timing:
                for timer in (self._timer, self._grace):
                    if timer is not None:
                        timer.cancel()
            for process in self._processes:
                process.close()
        self._raise(self._status, stopping)
        if self._job.judge is not None and not stopping.is_set():
            if self._trained is None:
                raise errors.MethodError(f"{self._job.label} ended without a word about what it did; run it again")
            self._job.judge.finish(self._trained, sum(process.cpu_seconds for process in self._processes))

    def _listen(self, rank: int) -> None:
        """Hand one process the job, then hear it to its end; where it fails, the others are killed, too."""
        process = self._processes[rank]
        process.begin(self._job)
        try:
            while (found := process.receive()) is not None:
                self._heard()
                message, arrays = found
                if isinstance(message, _REQUESTS):
                    with self._answering:  # all processes may ask at once, and the judge hears one at a time
                        process.reply(self._answer(message, arrays))
                else:
                    self._hear(rank, message)
        except ChannelError as problem:
            self._fail(errors.MethodError(f"{self._job.label} {problem}; remove what writes to the process's own pipe"))
            self.end()
        if (status := process.wait()) != 0:
            if rank in self._lost:
                self._end_later()
            else:
                self._status = self._status or (0 if process.killed else status)
                self.end()

    def _look(self, over: threading.Event) -> None:
        while not over.wait(LOOK):
            self._clock()

    def _clock(self) -> float | None:
        used = [process.clock.look() for process in self._processes]
        return None if None in used else sum(seconds for seconds in used if seconds is not None)

    def _hear(self, rank: int, event: Event) -> None:
        if isinstance(event, Failed):
            kind = getattr(errors, event.type, errors.RunError)
            known = isinstance(kind, type) and issubclass(kind, errors.UnlearnBenchError)
            self._fail((kind if known else errors.RunError)(event.message))
            if len(self._processes) > 1:
                self.end()
        elif isinstance(event, Done):
            self._done.add(rank)
        elif isinstance(event, Lost):
            self._lost.add(rank)
        elif rank == 0:
            if isinstance(event, Trained):
                self._trained = event
            if self._watch:
                self._watch(event)

    def _answer(self, request: Request, arrays: Any) -> Reply:
        """The judge's answer, or the sentence that says why there is none."""
        what = request.name if isinstance(request, Ask) else request.kind
        if self._job.judge is None:
            return Reply(error=f"{self._job.label} asked for {what}, which this command does not give")
        try:
            return self._job.judge.answer(request, arrays)
        except (errors.UnlearnBenchError, ChannelError) as problem:
            return Reply(error=str(problem))
        except OSError as problem:  # unanswered, the process would wait for ever
            why = f"{problem.strerror or str(problem)[:200]} ({problem.filename or what})"
            return Reply(error=f"{self._job.label} asked for {what}: {why}; fix this and {_RESUME}")

    def _fail(self, problem: Exception) -> None:
        self._failure = self._failure or problem

    def _heard(self) -> None:
        """Somebody said something: begin to wait anew."""
        with self._timing:
            if self._timer is not None:
                self._timer.cancel()
            if self._job.patience is not None:
                self._timer = threading.Timer(self._job.patience, self._lose_patience)
                self._timer.daemon = True
                self._timer.start()

    def _end_later(self) -> None:
        """End the others, but let them say first why one of them was lost."""
        with self._timing:
            if self._grace is None:
                self._grace = threading.Timer(GRACE, self.end)
                self._grace.daemon = True
                self._grace.start()

    def _lose_patience(self) -> None:
        self._gave_up = True
        self.end()

    def _raise(self, status: int, stopping: threading.Event) -> None:
        job = self._job
        if self._failure is not None:
            raise self._failure
        if self._gave_up:
            raise errors.MethodError(
                f"{job.label} reported nothing for {job.patience:.0f} seconds and was ended, so it may hang; its last "
                f"words are in {job.log}; fix the method, or allow more time with --patience, and {_RESUME}"
            )
        if stopping.is_set():
            return
        if status == 0 and self._lost:
            raise errors.RunError(
                f"the processes of {job.label} lost one another; check the network between them (last words are in "
                f"{job.log}), and {_RESUME}"
            )
        if status == 0 and len(self._done) < len(self._processes):
            raise errors.MethodError(
                f"{job.label} ended its own process before its work was done; remove what calls exit, and run it again"
            )
        if status != 0:
            hint = {-9: " (killed: out of memory?)", -6: " (aborted: is the disk full?)"}.get(status, "")
            raise errors.RunError(
                f"{job.label} ended with status {status}{hint}; its last words are in {job.log}; {_RESUME}"
            )


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


def _folder(job: Job) -> str:
    """Where the processes start: a folder with nothing in it that Python could take for a module."""
    work: Work = job.work
    folder = work.out if isinstance(work, TrainJob) else str(job.log.parent)
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - a folder's name
    return folder


def _environments(job: Job) -> list[dict[str, str]]:
    """What each process finds in its environment; of several also its rank and where to meet (as torchrun)."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
    if job.isolation is not None:  # foreign code gets no keys
        inherited = {name: value for name, value in inherited.items() if not _SECRET.search(name)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        inherited.pop(name, None)
    common = {
        **inherited,
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,  # named by itself, since HOME may be another
        "OMP_NUM_THREADS": "1",  # busy processes with several threads each stall one another
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if isinstance(job.work, TrainJob):
        common |= {"UNLEARNBENCH_SEALED": job.work.sealed, "HOME": job.work.out, "TMPDIR": job.work.out}
        common["HF_HUB_OFFLINE"] = "1"  # the base policy is here, and there is no network
    if job.processes == 1:
        return [common]
    count = str(job.processes)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": count}
    meeting["LOCAL_WORLD_SIZE"] = count
    return [{**common, **meeting, "RANK": str(k), "LOCAL_RANK": str(k)} for k in range(job.processes)]
