"""A run of foreign code in a process with no network, its own home and temporary folder, and limits.

On Linux the process enters a network namespace of its own, in which there is no way out, before any of that code is
loaded. This keeps honest code honest and careless code harmless; it is no prison. CI puts a container around it.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from unlearnbench.errors import RunError

HOURS = 24.0
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_FILE_SIZE = 64 << 30
_BOOT = "from unlearnbench.sandbox import inside; inside()"


def run_apart(job: Mapping[str, Any], scratch: Path, *, allow_network: bool = False) -> None:
    """Run `evaluate(**job)` apart from this process. Raises RunError with the last words of what failed."""
    home = scratch / "home"
    home.mkdir(parents=True, exist_ok=True)
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= {"HF_HUB_OFFLINE": "1"} if not allow_network else {}
    log = scratch / "log.txt"
    with log.open("w", encoding="utf-8") as words:
        done = subprocess.run(
            [sys.executable, "-c", _BOOT],
            input=json.dumps({"job": dict(job), "network": allow_network}),
            text=True,
            stdout=words,
            stderr=words,
            cwd=home,
            env=environment,
            timeout=HOURS * 3600,
            check=False,
        )
    if done.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise RunError(f"training again failed (status {done.returncode}): {' '.join(last)[:500] or 'no words'}")


def inside() -> None:
    """The other side of `run_apart`: leave the network, take the limits, then run the job."""
    told = json.loads(sys.stdin.read())
    if not told["network"] and not leave_network():
        print("this system has no network namespaces; run in a container without network, with --allow-network")
        sys.exit(3)
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_SIZE, _FILE_SIZE))
    from unlearnbench.errors import UnlearnBenchError
    from unlearnbench.evaluate import evaluate
    from unlearnbench.samplers import Engine

    job = told["job"]
    if "sampler" in job:
        job["engine"] = Engine(**job.pop("sampler"))
    try:
        evaluate(job.pop("method"), **job)
    except UnlearnBenchError as error:
        print(error)
        sys.exit(1)


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
