"""The machine a figure was measured on: one thread, the versions of what was compared, and the core's peak."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CLOCK = os.environ.get("BENCHMARKS_CLOCK", "wall")
"""`cpu` counts this process's processor time instead of the time on the wall: for a look on a busy machine."""


def now() -> float:
    """Seconds on the chosen clock."""
    return time.process_time() if CLOCK == "cpu" else time.perf_counter()


def one_thread() -> None:
    """Bind this process, and those it starts, to one thread. Call it before anything is imported that computes."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"  # all is read from folders; no thread of a library's telemetry wakes up
    import torch

    torch.set_num_threads(1)


def installed(package: str) -> str | None:
    """The version of a package in this environment, None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def require(*packages: str) -> None:
    """Raises SystemExit with one sentence where a package to compare with is missing."""
    missing = [package for package in packages if installed(package) is None]
    if missing:
        raise SystemExit(
            f"{' and '.join(missing)} cannot be compared with, because this environment lacks it; run `make bench`, "
            "which makes one of its own"
        )


def described(*packages: str) -> str:
    """One line: processor, Python, and the versions of unlearnbench and these packages."""
    names = ["unlearnbench", *packages]
    parts = [f"Python {platform.python_version()}", *(f"{name} {installed(name) or '(missing)'}" for name in names)]
    clock = "; PROCESSOR TIME, not wall time" if CLOCK == "cpu" else ""
    return f"{_processor()}; " + ", ".join(parts) + clock


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores, {platform.system()}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def peak_flops() -> float:
    """FLOP/s that one core reaches in a large float32 matrix product: the best of many, so that noise cannot raise it.

    A product of two n x n matrices takes 2 n^3 FLOPs.
    """
    import torch

    best = 0.0
    for n, products in ((512, 40), (1024, 10)):
        one, other = torch.randn(n, n), torch.randn(n, n)
        for _ in range(products):
            began = now()
            one @ other
            best = max(best, 2 * n**3 / (now() - began))
    return best
