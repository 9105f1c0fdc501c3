"""The life of a worker process: it compares two answers at a time, and may be killed at any moment.

Structure and value are compared by agreement.py. Only what that cannot read is given to sympy (algebra.py), which is
imported when it is first needed: the verifier asks for that in a message of its own, before any clock starts.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal

Outcome = Literal["match", "mismatch", "unparsable", "too_large"]
Stage = Literal["structure", "algebra"]

EXHAUSTED = 3
"""Exit status of a worker that ran out of memory, for the text's sake."""

_CALCULUS = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|partial|mod|pmod|bmod|begin|overline|ldots|cdots|dots|mapsto|to|nabla)"
)
_STACK = 20_000
"""Python frames: enough for the deepest nesting that too_large() lets through."""


def serve(memory: int) -> None:
    """Answer requests on standard input (a socket) until it ends. This is the whole life of a worker."""
    import logging
    import signal
    from multiprocessing.connection import Connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit_memory(memory)
    sys.setrecursionlimit(_STACK)
    logging.disable()
    channel = Connection(os.dup(0))
    _by_structure("\\frac{x}{2}", "0.5x")  # imports and first-use tables are paid before any clock starts
    channel.send_bytes(b"ready")
    while True:
        try:
            request = json.loads(channel.recv_bytes())
            if request["stage"] == "prepare":
                _by_algebra("\\frac{x}{2}", "0.5x", loose=False)
                channel.send_bytes(b"ready")
                continue
        except (EOFError, OSError):
            return  # the parent is gone
        # The kernel ends this process even inside C code, should the parent die before it can.
        signal.setitimer(signal.ITIMER_REAL, request["limit"] + 1.0)
        start = time.perf_counter()
        try:
            outcome = _outcome(request)
        except MemoryError:
            os._exit(EXHAUSTED)
        reply = {"outcome": outcome, "seconds": time.perf_counter() - start}
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        try:
            channel.send_bytes(json.dumps(reply).encode())
        except OSError:
            return


def _outcome(request: Mapping[str, Any]) -> Outcome | None:
    try:
        if request["stage"] == "structure":
            return _by_structure(request["gold"], request["answer"])
        return _by_algebra(request["gold"], request["answer"], loose=request["loose"])
    except RecursionError:
        return "too_large"


def _by_structure(gold: str, answer: str) -> Outcome | None:
    """None if that does not decide it, and sympy should be asked."""
    from unlearnbench.agreement import same_answer
    from unlearnbench.enclosures import TooLargeError, UndecidedError, UndefinedError
    from unlearnbench.expressions import UnreadableError

    try:
        return "match" if same_answer(gold, answer) else "mismatch"
    except UndefinedError:
        return "unparsable"
    except TooLargeError:
        return "too_large"
    except UndecidedError:
        return None
    except UnreadableError:
        # sympy knows sums, integrals and limits; text that has no command of LaTeX at all is no mathematics to it
        return None if _CALCULUS.search(gold) or _CALCULUS.search(answer) else "unparsable"


def _by_algebra(gold: str, answer: str, *, loose: bool) -> Outcome:
    from unlearnbench.algebra import UnparsableError, symbolic_equal

    try:
        return "match" if symbolic_equal(gold, answer, loose=loose) else "mismatch"
    except UnparsableError:
        return "unparsable"


def _limit_memory(memory: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            try:
                resource.setrlimit(kind, (limit, limit))
            except (OSError, ValueError):  # macOS knows RLIMIT_AS but refuses it
                continue
