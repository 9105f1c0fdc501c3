"""Say which build of torch pip is about to fetch, and how large it is. Standard library only; installs nothing.

python .ci/which_torch.py [pip's arguments] torch
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, url2pathname, urlopen

LARGE = 1_000_000_000


def main(arguments: list[str]) -> None:
    """Print one line; a failure is left for the installation itself to explain."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--quiet",
            "--report",
            str(report),
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not report.is_file():
            print("torch: pip cannot say yet which build it will fetch")
            return
        wanted = json.loads(report.read_text(encoding="utf-8"))["install"]
    names = {entry["metadata"]["name"].lower(): entry for entry in wanted}
    if "torch" not in names:
        print("torch: installed already")
        return
    version = names["torch"]["metadata"]["version"]
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(_size, (entry["download_info"]["url"] for entry in wanted)))
    known = sum(size for size in sizes if size is not None)
    unknown = sum(size is None for size in sizes)
    more = f", and {unknown} files of unknown size" if unknown else ""
    build = _build(version, set(names))
    print(f"torch {version} ({build}): {known / 1e6:,.0f} MB{more}, the packages it needs included")
    if known > LARGE:
        print(
            "  without a GPU the CPU build is enough and far smaller: make clean, then set TORCH_INDEX to an index "
            "of CPU builds"
        )


def _build(version: str, names: set[str]) -> str:
    local = version.partition("+")[2]
    if local == "cpu":
        return "CPU build"
    if local.startswith("cu") or any(name.startswith("nvidia-") for name in names):
        return "CUDA build"
    return f"build {local}" if local else "this platform's default build"


def _size(url: str) -> int | None:
    """Bytes of a file to fetch, by its address; None where that cannot be found out."""
    try:
        if url.startswith("file:"):
            return Path(url2pathname(url.removeprefix("file://"))).stat().st_size
        with urlopen(Request(url, method="HEAD"), timeout=10) as answer:
            length = answer.headers.get("Content-Length")
            return int(length) if length else None
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
