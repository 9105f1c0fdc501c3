"""The worker group of one job: its processes start, report and stop together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from unlearnbench import errors
from unlearnbench.workers.channel import ChannelError
from unlearnbench.workers.cpu_time import LOOK
from unlearnbench.workers.jobs import Job, Watch
from unlearnbench.workers.messages import Ask, Done, Event, Failed, Lost, Reply, Request, Trained
from unlearnbench.workers.process import NodeLost, Process, Start

_RESUME = "rerun the same command to resume"
GRACE = 5.0
"""Seconds that the others have to end by themselves when a process has lost one of them."""


StartProcesses = Callable[[Job], Sequence[Process]]
"""Starts the processes of a job, here or elsewhere."""


class WorkerGroup:
    """All processes of one job. Events come from the first; any may fail or ask."""

    def __init__(self, job: Job, watch: Watch | None, start: StartProcesses) -> None:
        self._job, self._watch = job, watch
        self._failure: Exception | None = None
        self._done: set[int] = set()
        self._lost: set[int] = set()
        """Those that lost another one, whose end is what is to be reported."""
        self._status = 0  # of the first that failed
        self._gave_up = False
        self._processes: Sequence[Process] = []
        self._trained: Trained | None = None
        self._timer: threading.Timer | None = None
        self._grace: threading.Timer | None = None
        self._timing, self._answering = threading.Lock(), threading.Lock()
        if job.judge is not None:
            job.judge.begin(self._clock)
        self._processes = start(job)

    def end(self) -> None:
        """Kill the processes that still run."""
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
        process.begin(Start(function=self._job.function, work=self._job.work.model_dump(mode="json")))
        try:
            while (found := process.receive()) is not None:
                self._heard()
                message, arrays = found
                if isinstance(message, Request):
                    with self._answering:  # all processes may ask at once, and the judge hears one at a time
                        process.reply(self._answer(message, arrays))
                else:
                    self._hear(rank, message)
        except ChannelError as problem:
            self._fail(errors.MethodError(f"{self._job.label} {problem}; remove what writes to the process's own pipe"))
            self.end()
        except NodeLost as problem:
            self._fail(problem)
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
        used = [process.used() for process in self._processes]
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
        """Somebody said something: begin to wait again."""
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
