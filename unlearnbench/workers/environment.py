"""Versions and machine of a run, for environment.json; the threads and devices of a worker."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import Any

import torch

import unlearnbench


def environment() -> dict[str, Any]:
    """Versions of Python and packages, the device, and the walls around the process."""
    packages = ("torch", "transformers", "numpy", "math-verify", "sympy", "datasets", "pyarrow")
    engine = {"vllm": sys.modules["vllm"].__version__} if "vllm" in sys.modules else {}
    return {
        "unlearnbench": unlearnbench.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in packages} | engine,
        "walls": [wall for wall in os.environ.get("UNLEARNBENCH_WALLS", "").split(",") if wall],
    }


def device_name() -> str:
    """The first GPU's name, or the processor's architecture."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} thread a process)"


def one_thread() -> None:
    """One thread per process on CPU, so that sums, and with them labels and scores, do not depend on its size."""
    torch.set_num_threads(1)


def take_devices() -> None:
    """Leave this process none but its share of the GPUs here, before one is used: an engine takes the first it sees."""
    here, of = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    count = torch.cuda.device_count()
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        each = max(1, count // of)
        first = here * each % count
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[first : first + each])
