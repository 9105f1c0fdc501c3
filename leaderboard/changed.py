"""The one entry that a pull request changes, written out as data. Run by CI from the base branch, with the standard
library alone:

    python3 leaderboard/changed.py BASE HEAD FOLDER

Fails unless everything that HEAD changes since BASE lies in one folder leaderboard/entries/<id>/ and is a plain file
that an entry may have. Copies that entry's bundle out of git's objects: nothing of the pull request is checked out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ALLOWED = re.compile(r"leaderboard/entries/([a-z0-9][a-z0-9_.-]{0,79})/(bundle\.zip|entry\.json)")
LARGEST = 100_000_000


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], capture_output=True, check=True).stdout


def main(base: str, head: str, folder: str) -> int:
    changed = git("diff", "--raw", "-z", "--no-renames", f"{base}...{head}").decode("utf-8", "replace").split("\0")
    entries = set()
    for told, path in zip(changed[::2], changed[1::2], strict=False):
        _, mode, _, _, status = told.split(" ")
        found = ALLOWED.fullmatch(path)
        if found is None:
            return refuse(
                f"{path!r} may not change: an entry is leaderboard/entries/<id>/bundle.zip (or its entry.json)"
            )
        if status != "D" and mode != "100644":
            return refuse(f"{path!r} is no plain file (mode {mode})")
        if found[2] == "entry.json" and status != "M":
            return refuse(
                f"{path!r} comes with `leaderboard enter`, from maintainers; a pull request may only alter it"
            )
        entries.add(found[1])
    if len(entries) != 1:
        return refuse(f"one pull request changes one entry, and this one changes {len(entries)}")
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    place = f"{head}:leaderboard/entries/{entries.pop()}/bundle.zip"
    if subprocess.run(["git", "cat-file", "-e", place], capture_output=True, check=False).returncode:
        return refuse("the entry has no bundle.zip; `unlearnbench submit` writes it")
    if int(git("cat-file", "-s", place)) > LARGEST:
        return refuse(f"bundle.zip has more than {LARGEST:,} bytes")
    (out / "bundle.zip").write_bytes(git("cat-file", "blob", place))
    return 0


def refuse(why: str) -> int:
    print(f"refused: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
