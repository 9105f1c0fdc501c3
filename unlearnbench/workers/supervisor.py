"""The parent of a process that runs foreign code: builds the walls, starts it behind them, outlives it, cleans up.

harness → supervisor → worker. When the worker ends, whatever it left running is killed; when the harness ends, so do
both.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from unlearnbench.workers import worker
from unlearnbench.workers.isolation import Isolation, close, die_with_parent, enter

_PR_SET_CHILD_SUBREAPER = 36


def main(isolation: int) -> int:
    """Run `worker.main` behind walls; ends as it ends. `isolation` is a descriptor that gives the record as JSON."""
    parent = os.getppid()
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel was asked
        return 1
    with os.fdopen(isolation, "rb") as file:
        spec = Isolation.model_validate_json(file.read())
    _reap_descendants()
    walls = enter(spec)
    child = os.fork()
    if child == 0:
        die_with_parent()
        os.environ["UNLEARNBENCH_WALLS"] = ",".join(close(spec, walls))
        status = worker.main()
        sys.stdout.flush()
        os._exit(status)

    def stop(*_: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
        _kill_descendants()
        os._exit(1)

    signal.signal(signal.SIGTERM, stop)  # from the harness, or from the kernel when the harness has ended
    for descriptor in (0, 1):  # the pipes are the worker's: they must close when it ends
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    _kill_descendants()
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) not in (9, 19) else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _reap_descendants() -> None:
    """Have orphans of the worker become children of this process, where they can be found."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_descendants() -> None:
    """Kill what the worker left running, and wait for its end."""
    mine = os.getpid()
    while True:
        left = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError, IndexError, ValueError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == mine:
                    left.append(int(stat.parent.name))
        if not left:
            return
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(process, 0)
