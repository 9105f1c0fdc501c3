"""A worker process: reads one job from standard input, does it, and reports on standard output (`messages.py`).

A process of its own for every job, because a method runs where no answer is, and what one run leaves behind can reach
neither the next one nor the command. A job names the function that does it, so that this module knows none of them.
"""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from unlearnbench.errors import MethodError, RunError, UnlearnBenchError, out_of_memory, peer_lost
from unlearnbench.workers.channel import ChannelError, receive_json, send
from unlearnbench.workers.messages import Done, Event, Failed, Lost, Reply, Request

_MEMORY = (
    "out of memory; use fewer --workers, or let training take less (--trainer, docs/guide/at-scale.md), then rerun the "
    "same command to resume"
)


class Link:
    """The worker's end of the pipe."""

    def __init__(self, reports: BinaryIO, answers: queue.SimpleQueue[object]) -> None:
        self._reports, self._answers = reports, answers
        self._lock = threading.Lock()

    def report(self, event: Event) -> None:
        """Say something that needs no answer."""
        with self._lock:
            send(self._reports, event)

    def ask(self, request: Request, *arrays: NDArray[np.generic]) -> Any:
        """Ask the judge, and wait for what it answers. Raises MethodError with its sentence where it refuses."""
        with self._lock:
            send(self._reports, request, *arrays)
            reply = Reply.model_validate(self._answers.get())
        if reply.error is not None:
            raise MethodError(reply.error)
        return reply.value


def main() -> int:
    """Do the job on standard input. Returns the exit status."""
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a method prints goes to the log, not among the reports
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    answers: queue.SimpleQueue[object] = queue.SimpleQueue()
    link = Link(reports, answers)
    gc.disable()  # until all is imported: there is no garbage yet, but much to look through
    try:
        act, work = _job(source)
        threading.Thread(target=_listen, args=(source, answers), daemon=True).start()
        _import_all()
        act(work, link)
        link.report(Done())
    except UnlearnBenchError as problem:
        return _fail(link, type(problem).__name__, str(problem))
    except OSError as problem:
        what = f"{problem.strerror or problem} ({problem.filename or 'no file'})"
        return _fail(link, "RunError", f"{what}; fix this and rerun the same command to resume")
    except KeyboardInterrupt:
        return 1
    except BaseException as problem:  # a thread waits on standard input: nothing may end in the interpreter's own exit
        if out_of_memory(problem):
            return _fail(link, "RunError", _MEMORY)
        if peer_lost(problem):
            link.report(Lost())
            return 1
        message = f"unexpected {type(problem).__name__}: {problem}; the traceback is in the run's log.txt"
        return _fail(link, "RunError", message)
    return 0


def _job(source: BinaryIO) -> tuple[Any, BaseModel]:
    """The function that the first message names, and the work that it is called with."""
    found = receive_json(source)
    if found is None:
        raise RunError("a worker was given no job; start it by an unlearnbench command")
    message: Any = found[0]
    module, _, name = str(message["function"]).partition(":")
    act = getattr(import_module(module), name)
    record: type[BaseModel] = get_type_hints(act)["job"]
    return act, record.model_validate(message["work"])


def _listen(source: BinaryIO, answers: queue.SimpleQueue[object]) -> None:
    """Take answers. A worker whose parent was killed reads the end of its input, and ends at once: no orphans."""
    with suppress(ChannelError, OSError):
        while (found := receive_json(source)) is not None:
            answers.put(found[0])
    os._exit(1)


def _fail(link: Link, kind: str, message: str) -> int:
    """Report first: where the disk is full, the log cannot take the traceback."""
    with suppress(OSError):
        link.report(Failed(type=kind, message=message))
    with suppress(OSError):
        traceback.print_exc()
        sys.stderr.flush()
    return 1


def _import_all() -> None:
    """Import what every job computes with. None of it is ever garbage, so that later searches leave it out."""
    import_module("transformers.modeling_utils")
    gc.freeze()
    gc.enable()


def exit_with_main() -> None:
    """Run `main` and leave at once: threads that a method started could hang the interpreter's own exit."""
    status = main()
    sys.stdout.flush()
    os._exit(status)
