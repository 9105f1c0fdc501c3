"""The code blocks of the documents: which there are, what is to be done with each, and how it is done.

A block is fenced and names its language. What is to be done with it follows from the language, or from a comment on the
line above the fence, which readers do not see:

    (none)                  python and bash: run by the default tests, within seconds. text: shown only.
    <!-- slow -->           run by .ci/documents.py
    <!-- not run: why -->   not run, for the reason given
    <!-- file: result -->   yaml, json, jsonl: an example of the file that this schema describes

The blocks of a document run in their order in one folder that looks like the root of a checkout. A block whose first
line is a comment or docstring that names a file (`# my_algo.py`) is saved under that name too, as a reader would do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/*/*.md",
    "splits/README.md",
    "leaderboard/*.md",
    "recipes/*/README.md",
)
RUNNABLE = ("python", "bash")
EXAMPLES = ("json", "jsonl", "yaml")
LANGUAGES = (*RUNNABLE, *EXAMPLES, "text")
PATIENCE = 3600.0

_FENCE = re.compile(r"^(\s*)```(.*)$")
_MARK = re.compile(r"^\s*<!-- (slow|not run|file)(?:: (.+))? -->\s*$")
_NAMED = re.compile(r'^(?:# |""")([\w./-]+\.(?:py|yaml|json|jsonl|csv))\b')


@dataclass(frozen=True)
class Block:
    """One fenced block. `mark` is slow, not run, file or empty; `reason` is what the mark says beside that."""

    document: Path
    line: int
    language: str
    text: str
    mark: str = ""
    reason: str = ""

    @property
    def where(self) -> str:
        return f"{self.document.relative_to(ROOT) if self.document.is_relative_to(ROOT) else self.document}:{self.line}"

    @property
    def wrong(self) -> str | None:
        """Why nobody knows what to do with this block."""
        if self.language not in LANGUAGES:
            return f"{self.where}: a block's language is one of {', '.join(LANGUAGES)}, not {self.language!r}"
        if self.mark == "file" and self.language not in EXAMPLES:
            return f"{self.where}: `file` marks an example of a file, not {self.language}"
        if self.language in EXAMPLES and self.mark not in ("file", "not run"):
            return f"{self.where}: mark it `file: SCHEMA`, or `not run: WHY`"
        if self.mark == "slow" and self.language not in RUNNABLE:
            return f"{self.where}: {self.language} is not run, slow or not"
        if (self.mark in ("not run", "file")) != bool(self.reason):
            return f"{self.where}: `not run` needs a reason, `file` a schema, `slow` neither"
        return None

    @property
    def runs(self) -> bool:
        return self.language in RUNNABLE and self.mark != "not run"

    @property
    def name(self) -> str | None:
        """The file that a reader would save this block as."""
        first = self.text.split("\n", 1)[0]
        found = _NAMED.match(first)
        return found[1] if found else None


def documents() -> list[Path]:
    """Every document whose blocks are held to this."""
    return [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]


def blocks(path: Path) -> list[Block]:
    """The blocks of a document, in their order. Raises ValueError for a fence that is never closed."""
    return list(_blocks(path, path.read_text(encoding="utf-8").split("\n")))


def _blocks(path: Path, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        opened = _FENCE.match(lines[number])
        number += 1
        if not opened:
            continue
        first, indent = number, opened[1]
        while number < len(lines) and lines[number].strip() != "```":
            number += 1
        if number == len(lines):
            raise ValueError(f"{path}:{first}: this block is never closed")
        text = "\n".join(line.removeprefix(indent) for line in lines[first:number]) + "\n"
        number += 1
        mark = _MARK.match(lines[first - 2]) if first > 1 else None
        yield Block(path, first, opened[2].strip(), text, *((mark[1], mark[2] or "") if mark else ()))


def lay_out(folder: Path) -> dict[str, str]:
    """Make `folder` look like the root of a checkout whose environment is this one; returns the environment.

    What git does not know is left out: a reader who did what the documents say has such files there already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    known = {name.split("/")[0] for name in listed.stdout.split("\0")} if listed.returncode == 0 else None
    for path in ROOT.iterdir():
        there = path.name not in ("runs", "build", "dist") if known is None else path.name in known
        if there and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    (folder / ".venv").symlink_to(sys.prefix)
    own = {"HF_HUB_OFFLINE": "1", "UNLEARNBENCH_HOME": str(folder / ".home"), "MPLBACKEND": "Agg"}
    return os.environ | own | {"PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]])}


def run_blocks(found: list[Block], folder: Path) -> Iterator[tuple[str, float]]:
    """Save and run blocks of a document in their order; yields what ran, with its seconds.

    Python blocks that follow each other share an interpreter, which starts once, but no names. Raises RuntimeError
    with the end of what was written if a block fails.
    """
    environment = lay_out(folder)
    ready = [block for block in found if block.runs or block.name]
    for block in ready:
        if block.name and not block.runs:
            _save(block, folder)
    for python, several in groupby((block for block in ready if block.runs), lambda block: block.language == "python"):
        together = list(several)
        for part in [together] if python else [[block] for block in together]:
            if python:
                words = [sys.executable, "-c", _EACH, *(_save(block, folder) for block in part)]
            else:
                words = ["bash", "-euo", "pipefail", "-c", part[0].text]
            where = ", ".join(block.where for block in part)
            began = time.monotonic()
            done = subprocess.run(
                words,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode:
                raise RuntimeError(f"{where} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
            yield where, time.monotonic() - began


_EACH = "import runpy, sys\nfor path in sys.argv[1:]: runpy.run_path(path, run_name='__main__')"


def _save(block: Block, folder: Path) -> str:
    """Where a block lies as a file, by the name that it gives itself."""
    path = folder / (block.name or f"block_{block.line}.py")
    if (folder / path.relative_to(folder).parts[0]).is_symlink():
        raise ValueError(f"{block.where}: {block.name} would be written into the checkout; give it another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")
    return path.relative_to(folder).as_posix()
