"""The parent's handle on one worker process: one question at a time, with a time limit; killed when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import NamedTuple

from unlearnbench.verifier.task_scorer import is_entry, task_of
from unlearnbench.verifier.worker import TEXT_ENDS, End, Judged, Stage

_MEMORY = 1 << 30
"""Bytes of address space that a worker may use."""
_START_LIMIT = 120.0
"""Seconds in which a worker must have imported its libraries, even on a busy machine."""
# The worker imports its modules from where this process does; -P keeps modules of the working folder out of its start.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from unlearnbench.verifier.worker import serve; serve(int(sys.argv[2]))"
)


class Question(NamedTuple):
    """Two answers to compare. `loose`: the answer may be any text with some mathematics in it. `limit`: seconds."""

    gold: str
    answer: str
    loose: bool
    limit: float


class Reply(NamedTuple):
    """What a worker found, in how many seconds, and whether sympy had to be asked (`symbolic`)."""

    outcome: Judged
    seconds: float
    symbolic: bool


class TimeLimitError(Exception):
    """The worker did not answer in time."""


class WorkerDiedError(Exception):
    """The worker ended without an answer. `by_text`: it exhausted memory or the stack over the text it was given."""

    def __init__(self, by_text: bool) -> None:
        self.by_text = by_text


class WorkerProcess:
    """One process that runs `worker.serve`, for one thread at a time. Raises WorkerDiedError or TimeLimitError."""

    def __init__(self) -> None:
        self._prepared: set[str] = set()
        path = [entry or str(Path.cwd()) for entry in sys.path]
        self._channel, theirs = Pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(path), str(_MEMORY)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},  # makes sympy's steps reproducible
            )
        except OSError as error:
            self._channel.close()
            raise WorkerDiedError(by_text=False) from error
        finally:
            theirs.close()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until it has imported its libraries."""
        try:
            self._receive(_START_LIMIT)
        except TimeLimitError as error:
            raise WorkerDiedError(by_text=False) from error
        except WorkerDiedError as death:
            death.by_text = False  # it has not seen any text yet
            raise

    def ask(self, question: Question) -> Reply:
        """The worker's reply; sympy is asked only where structure and value do not decide."""
        if is_entry(question.gold):
            self._prepare("score", question)
            outcome, seconds = self._ask("score", question)
            if outcome is None or outcome == "failed":
                raise WorkerDiedError(by_text=False)
            return Reply(outcome, seconds, symbolic=False)
        seconds = 0.0
        if not question.loose:
            outcome, seconds = self._ask("structure", question)
            if outcome is not None and outcome != "failed":
                return Reply(outcome, seconds, symbolic=False)
        self._prepare("algebra", question)
        outcome, more = self._ask("algebra", question)
        if outcome is None or outcome == "failed":
            raise WorkerDiedError(by_text=False)
        return Reply(outcome, seconds + more, symbolic=True)

    def _prepare(self, stage: Stage, question: Question) -> None:
        """Have what a stage (or, of scorers, a task) needs imported, before any clock starts."""
        name = task_of(question.gold) if stage == "score" else stage
        if name not in self._prepared:
            self._send({"stage": "prepare", "for": stage, "gold": question.gold})
            self.wait_until_ready()
            self._prepared.add(name)

    def _ask(self, stage: Stage, question: Question) -> tuple[End | None, float]:
        self._send({"stage": stage, **question._asdict()})
        # the worker itself ends an algebra's two attempts, the second of which starts half a limit after the first
        patience = question.limit if stage != "algebra" else 2 * question.limit + 1.0
        reply = json.loads(self._receive(patience))
        return reply["outcome"], reply["seconds"]

    def _send(self, message: Mapping[str, object]) -> None:
        try:
            self._channel.send_bytes(json.dumps(message).encode())
        except OSError as error:
            raise WorkerDiedError(by_text=False) from error

    def kill(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def disown(self) -> None:
        """In a forked child: leave the process to the parent."""
        self._channel.close()
        self._process.returncode = 0  # it is not this process's child: never wait for it, signal it or warn about it

    def _receive(self, limit: float) -> bytes:
        try:
            if not self._channel.poll(limit):
                raise TimeLimitError
            return self._channel.recv_bytes(4096)
        except (EOFError, OSError) as error:
            self._channel.close()
            raise WorkerDiedError(by_text=self._process.wait() in TEXT_ENDS) from error
