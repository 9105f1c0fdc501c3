"""The command line. `--help` and `--version` answer before anything is imported: they are what shells ask most."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from unlearnbench import __version__


def main() -> None:
    """Run the command line. Errors end with one sentence on standard error: status 2 for usage, 1 for the rest."""
    words = sys.argv[1:]
    if words in (["--help"], ["-h"], []):
        # help.txt is what the command group prints (`tests/test_cli.py` compares them).
        sys.stdout.write(Path(__file__).with_name("help.txt").read_text(encoding="utf-8"))
        return
    if words == ["--version"]:
        sys.stdout.write(f"unlearnbench, version {__version__}\n")
        return
    # Arrow's own allocator keeps about 50 MiB more than the system's while files are streamed, and is no faster.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from unlearnbench.cli.main import run

    sys.exit(run(words))
