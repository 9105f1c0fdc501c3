"""A run of foreign code in a process with no network, its own home and temporary folder, and limits.

On Linux the process enters a network namespace of its own, in which there is no way out, before any of that code is
loaded. This keeps honest code honest and careless code harmless; it is no prison. CI puts a container around it.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from unlearnbench.errors import RunError
from unlearnbench.workers.label_hiding import hide

HOURS = 24.0
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_FILE_SIZE = 64 << 30
_BOOT = "from unlearnbench.leaderboard.sandbox import inside; inside()"


def run_apart(
    job: Mapping[str, Any],
    scratch: Path,
    *,
    allow_network: bool = False,
    hidden: Path | None = None,
    show: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Run `evaluate(**job)` apart from this process; `show` takes its progress, event by event.

    `hidden` is another copy of the split that is run on, covered as that one is. What it prints goes to
    `scratch`/log.txt. It ends with this process, if that is killed. Raises RunError with the last words of what failed.
    """
    home = scratch / "home"
    home.mkdir(parents=True, exist_ok=True)
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"HF_HUB_OFFLINE": "1"} if not allow_network else {}
    log = scratch / "log.txt"
    with log.open("w", encoding="utf-8") as words:
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            errors="replace",
            cwd=home,
            env=environment,
        )
    assert process.stdin is not None and process.stdout is not None
    alarm = threading.Timer(HOURS * 3600, process.kill)
    alarm.daemon = True
    alarm.start()
    try:
        with suppress(BrokenPipeError):
            told = {"job": dict(job), "network": allow_network, "hidden": None if hidden is None else str(hidden)}
            process.stdin.write(json.dumps(told))
            process.stdin.close()
        for line in process.stdout:
            event = _event(line)
            if show is not None and event is not None:
                show(event)
        status = process.wait()
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
    if status:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RunError(f"training again failed (status {status}): {' '.join(last)[:500] or 'no words'}")


def _event(line: str) -> dict[str, Any] | None:
    """A report of progress, rebuilt from plain numbers: what the process says is as foreign as its code."""
    try:
        told = json.loads(line)["progress"]
        stage = told["stage"]
        if stage not in ("train", "measure", "start"):
            return None
        numbers = {name: float(told.get(name, 0.0)) for name in ("done", "rate", "reward")}
        whole = {name: int(told.get(name, 0)) for name in ("seed", "step")}
        if not all(map(math.isfinite, numbers.values())):
            return None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return {"progress": {**numbers, **whole, "stage": stage}}


def inside() -> None:
    """The other side of `run_apart`: leave the network, take the limits, then run the job."""
    told = json.loads(sys.stdin.read())
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anything else prints belongs into the log, not among the reports
    if not told["network"] and not leave_network():
        _last_words("this system has no network namespaces; run in a container without network, with --allow-network")
        sys.exit(3)
    if told["hidden"] is not None:
        hide(Path(told["hidden"]))  # from all processes that this one starts
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_SIZE, _FILE_SIZE))
    from unlearnbench.errors import UnlearnBenchError
    from unlearnbench.harness.evaluate import evaluate
    from unlearnbench.policies.samplers.engine import Engine

    said = threading.Lock()

    def report(event: Mapping[str, Any]) -> None:
        with said:  # who reads is the process that began this; where that is gone, writing fails and the run ends
            print(json.dumps(dict(event)), file=reports, flush=True)

    job = told["job"]
    if "sampler" in job:
        job["engine"] = Engine(**job.pop("sampler"))
    try:
        evaluate(job.pop("method"), progress=report, **job)
    except UnlearnBenchError as error:
        _last_words(str(error))
        sys.exit(1)


def _last_words(words: str) -> None:
    print(" ".join(words.splitlines()), file=sys.stderr, flush=True)


def leave_network() -> bool:
    """Enter a network namespace in which nothing can be reached; whether that worked."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        return False
    return True
