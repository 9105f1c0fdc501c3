"""The main loop of a worker process: it compares two answers at a time, and may be killed at any moment.

equivalence.py compares structure and value. Only what it cannot read is given to sympy (math/sympy_fallback.py), in
forked children that are killed at the time limit. Sympy is imported when it is first needed: the parent requests that
in a separate message, before the time limit starts.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Outcome = Literal["match", "mismatch", "unparsable", "too_large"]
Judged = Outcome | Literal["timeout"]
"""`timeout`: the time limit was reached twice."""
End = Judged | Literal["failed"]
"""`failed`: the processes ended for reasons other than the text."""
Stage = Literal["structure", "algebra", "score"]

EXHAUSTED = 3
"""Exit status of a worker that ran out of memory over the text it was given."""
TEXT_ENDS = frozenset({EXHAUSTED, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS})
"""Exit statuses and signals that mean that the text exhausted memory or the stack."""

_CALCULUS = re.compile(r"\\(?:sum|prod|i*int|oint|lim|begin)(?![A-Za-z])")
_STACK = 20_000
"""Python frames: enough for the deepest nesting that too_large() lets through."""


def serve(memory: int) -> None:
    """Answer requests on standard input (a socket) until it ends. This is the whole life of a worker."""
    import logging
    from multiprocessing.connection import Connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit_memory(memory)
    sys.setrecursionlimit(_STACK)
    logging.disable()
    channel = Connection(os.dup(0))
    _by_structure("\\frac{x}{2}", "0.5x")  # do imports and build tables before any time limit starts
    channel.send_bytes(b"ready")
    while True:
        try:
            request = json.loads(channel.recv_bytes())
            if request["stage"] == "prepare":
                _prepare(request)
                channel.send_bytes(b"ready")
                continue
        except (EOFError, OSError):
            return  # the parent is gone
        # If the parent dies first, the kernel ends this process even inside C code.
        signal.setitimer(signal.ITIMER_REAL, 2 * request["limit"] + 1.0)
        start = time.perf_counter()
        try:
            outcome = _STAGES[request["stage"]](request, channel)
        except MemoryError:
            os._exit(EXHAUSTED)
        reply = {"outcome": outcome, "seconds": time.perf_counter() - start}
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        try:
            channel.send_bytes(json.dumps(reply).encode())
        except OSError:
            return


def _prepare(request: Mapping[str, Any]) -> None:
    """Import what a stage needs and use it once."""
    if request["for"] == "algebra":
        _by_algebra("\\frac{x}{2}", "0.5x", loose=False)
    else:
        from unlearnbench.verifier.task_scorer import stated_gold

        _score({"gold": request["gold"], "answer": stated_gold(request["gold"])})


def _score(request: Mapping[str, Any], channel: Connection | None = None) -> End:
    """What a task's own scorer finds; where it fails on a text, the text is not an answer to it."""
    from unlearnbench.verifier.task_scorer import scored

    try:
        return scored(request["gold"], request["answer"])
    except ImportError:
        return "failed"
    except RecursionError:
        return "too_large"
    except MemoryError:
        raise
    except Exception:
        return "unparsable"


def _attempts(request: Mapping[str, Any], channel: Connection) -> End:
    """The result of sympy in a forked child, or in a second one if the first needs more than half of the time limit.

    A fork costs milliseconds, while a fresh process would import sympy again. Each child has the whole limit. `failed`
    means that both ended for reasons other than the text.
    """
    begin, limit, parent = time.monotonic(), request["limit"], channel.fileno()
    alive: dict[int, int] = {}  # the pipe that a child writes to -> its process
    ended: list[End] = []
    starts = [begin, begin + limit / 2]
    deadline: dict[int, float] = {}
    try:
        while starts or alive:
            now = time.monotonic()
            if starts and (now >= starts[0] or not alive):
                starts.pop(0)
                pipe, child = _child(request)
                alive[pipe], deadline[pipe] = child, now + limit
            for pipe in [pipe for pipe in alive if now >= deadline[pipe]]:
                _end(alive.pop(pipe), pipe)
                ended.append("timeout")
            wait = min([*(deadline[pipe] for pipe in alive), *starts], default=now) - now
            for ready in select.select([*alive, parent], [], [], max(0.0, wait))[0]:
                if ready == parent:
                    os._exit(0)  # the parent is gone: it sends nothing while it waits
                found = os.read(ready, 64).decode()
                status = _end(alive.pop(ready), ready)
                if found:
                    return cast(Outcome, found)
                ended.append("too_large" if status in TEXT_ENDS else "failed")
    finally:
        for pipe, child in alive.items():
            _end(child, pipe)
    return "failed" if "failed" in ended else ended[-1]


def _child(request: Mapping[str, Any]) -> tuple[int, int]:
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        return reading, child
    signal.setitimer(signal.ITIMER_REAL, request["limit"] + 1.0)
    status = 1
    try:
        outcome = _by_algebra(request["gold"], request["answer"], loose=request["loose"])
        os.write(writing, outcome.encode())
        status = 0
    except MemoryError:
        status = EXHAUSTED
    finally:  # whatever happens, a child must not continue as a second worker
        os._exit(status)


def _end(child: int, pipe: int) -> int:
    """Kill and reap a child. Returns its exit status, or minus the signal that had ended it."""
    os.close(pipe)
    finished, status = os.waitpid(child, os.WNOHANG)
    if not finished:
        time.sleep(0.01)  # it may have closed its pipe and be about to exit
        finished, status = os.waitpid(child, os.WNOHANG)
    if not finished:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status)


def _structure(request: Mapping[str, Any], channel: Connection | None = None) -> Outcome | None:
    try:
        return _by_structure(request["gold"], request["answer"])
    except MemoryError:
        raise
    except RecursionError:
        return "too_large"
    except Exception:  # a bug in the parser must not stop a run that depends on verdicts: ask sympy
        return None


def _by_structure(gold: str, answer: str) -> Outcome | None:
    """The outcome by structure and value; None if they do not decide, so that sympy should be asked."""
    from unlearnbench.verifier.equivalence import same_answer
    from unlearnbench.verifier.math.evaluation import TooLargeError, UndecidedError, UndefinedError
    from unlearnbench.verifier.math.nodes import UnreadableError

    try:
        return "match" if same_answer(gold, answer) else "mismatch"
    except UndefinedError:
        return "unparsable"
    except TooLargeError:
        return "too_large"
    except UndecidedError:
        return None
    except UnreadableError:
        # sympy can read sums, integrals and limits; it cannot help with text that has none of these
        return None if _CALCULUS.search(gold) or _CALCULUS.search(answer) else "unparsable"


def _by_algebra(gold: str, answer: str, *, loose: bool) -> Outcome:
    from unlearnbench.verifier.math.sympy_fallback import UnparsableError, symbolic_equal

    try:
        return "match" if symbolic_equal(gold, answer, loose=loose) else "mismatch"
    except UnparsableError:
        return "unparsable"
    except RecursionError:
        return "too_large"


_STAGES: Mapping[Stage, Callable[[Mapping[str, Any], Connection], End | None]] = {
    "structure": _structure,
    "algebra": _attempts,
    "score": _score,
}


def _limit_memory(memory: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            try:
                resource.setrlimit(kind, (limit, limit))
            except (OSError, ValueError):  # macOS defines RLIMIT_AS but refuses it
                continue
