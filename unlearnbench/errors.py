"""Every error a user can meet. Each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Collection
from pathlib import Path


class UnlearnBenchError(Exception):
    """Base of all errors that end a command with status 1 and one sentence on standard error."""


class DataError(UnlearnBenchError):
    """A file, row or field is malformed; the message names all three."""


class SplitError(UnlearnBenchError):
    """A split is unknown, incomplete, or its files do not match its hashes."""


class PolicyError(UnlearnBenchError):
    """A policy folder cannot be read, or its architecture is not the split's."""


class MethodError(UnlearnBenchError):
    """A method's own code raised, or returned the wrong type, shape or a non-finite number."""


class MethodNotFound(MethodError):
    """No method could be resolved from what the user gave; the message lists what was tried."""


class RunError(UnlearnBenchError):
    """A run cannot start, go on or resume: another configuration, a failed seed, a full disk."""


class VerifierError(UnlearnBenchError):
    """The verifier itself failed (not the text it judged), again after a retry."""


def out_of_memory(problem: BaseException) -> bool:
    """Whether memory ran out, of the machine or of a GPU: torch reports both as a RuntimeError."""
    named = type(problem).__name__ == "OutOfMemoryError"
    return named or isinstance(problem, MemoryError) or "can't allocate memory" in str(problem)


def peer_lost(problem: BaseException) -> bool:
    """Whether another process of this run went away while this one spoke with it, so that the fault is not here."""
    named = any(kind.__name__ == "DistError" for kind in type(problem).__mro__)
    return named or "gloo/transport" in str(problem)


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or the name of its type where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def raised_at(problem: BaseException, own: Collection[str] = ()) -> str | None:
    """`FILE, line N` of the last frame that is a user's, where an error was raised; None where there is none.

    A user's are the files in `own`, and all files outside of this package, of installed packages and of Python itself.
    """
    if isinstance(problem, SyntaxError) and problem.filename and problem.lineno:
        return f"{problem.filename}, line {problem.lineno}"
    others = (str(Path(__file__).parent), sysconfig.get_path("stdlib"), "<")
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        foreign = frame.filename.startswith(others) or "site-packages" in frame.filename
        if frame.filename in own or not foreign:
            return f"{frame.filename}, line {frame.lineno}"
    return None
