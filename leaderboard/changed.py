"""The one entry that a pull request changes, written out as data. Run by CI from the base branch, with the standard
library alone:

    python3 leaderboard/changed.py BASE HEAD FOLDER

Fails unless HEAD changes one folder leaderboard/entries/<id>/<edition>/ since BASE, by either a new bundle.json, which
says where a bundle lies, or a withdrawal: a reason in its entry.json, and nothing else of it. Copies a new bundle.json
out of git's objects: nothing of the pull request is checked out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

ALLOWED = re.compile(
    r"leaderboard/entries/([a-z0-9][a-z0-9_.-]{0,79})/([A-Za-z0-9][A-Za-z0-9.-]{0,39})/(bundle\.json|entry\.json)"
)
RESERVED = re.compile(r".*-[0-9]{4}-[0-9]{2}")
"""Ids of entries that are trained again: <id>-<edition>."""
OPENING = b'"withdrawn": '
LARGEST = 10_000
LONGEST_REASON = 500


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], capture_output=True, check=True).stdout


def main(base: str, head: str, folder: str) -> int:
    try:
        told = git("diff", "--raw", "-z", "--no-renames", f"{base}...{head}")
    except subprocess.CalledProcessError as error:
        return refuse(f"git cannot compare {head} with {base}: {error.stderr.decode(errors='replace').strip()}")
    changed = told.decode("utf-8", "replace").split("\0")
    entries: dict[tuple[str, str], set[str]] = {}
    for line, path in zip(changed[::2], changed[1::2], strict=False):
        _, mode, _, _, status = line.split(" ")
        found = ALLOWED.fullmatch(path)
        if found is None:
            return refuse(
                f"{path!r} may not change: an entry is leaderboard/entries/<id>/<edition>/bundle.json (or entry.json)"
            )
        if status != "D" and mode != "100644":
            return refuse(f"{path!r} is not a plain file (mode {mode})")
        if found[3] == "entry.json" and status != "M":
            return refuse(
                f"{path!r} comes with `leaderboard enter`, from maintainers; a pull request may only alter it"
            )
        if found[3] == "bundle.json" and status != "A":
            return refuse(f"{path!r} is on the board and stays as it is; submit a new bundle under another id")
        entries.setdefault((found[1], found[2]), set()).add(found[3])
    if len(entries) != 1:
        return refuse(f"one pull request changes one entry, and this one changes {len(entries)}")
    ((name, edition), files), out = entries.popitem(), Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    if "entry.json" in files:
        return withdrawal(base, head, f"leaderboard/entries/{name}/{edition}/entry.json", files)
    if exists(f"{base}:leaderboard/entries/{name}"):
        return refuse(f"{name!r} is an entry already and stays as it is; submit the bundle under another id")
    if RESERVED.fullmatch(name):
        return refuse(
            f"{name!r} ends as an edition does, and such ids are those of entries trained again; choose another"
        )
    place = f"{head}:leaderboard/entries/{name}/{edition}/bundle.json"
    if int(git("cat-file", "-s", place)) > LARGEST:
        return refuse(f"bundle.json has more than {LARGEST:,} bytes")
    (out / "bundle.json").write_bytes(git("cat-file", "blob", place))
    return 0


def exists(place: str) -> bool:
    return subprocess.run(["git", "cat-file", "-e", place], capture_output=True, check=False).returncode == 0


def withdrawal(base: str, head: str, path: str, files: set[str]) -> int:
    """Whether entry.json gains a reason in `withdrawn` and is otherwise, byte for byte, what it was."""
    if files != {"entry.json"}:
        return refuse("a withdrawal changes entry.json alone")
    start = git("merge-base", base, head).decode().strip()
    before, opening, rest = git("cat-file", "blob", f"{start}:{path}").rpartition(OPENING + b"null")
    if not opening:
        return refuse(f"{path!r} is withdrawn already, and the reason stays as it is")
    if int(git("cat-file", "-s", f"{head}:{path}")) > len(before) + len(rest) + 20 * LONGEST_REASON:
        return refuse(f"{path!r} may change in the field 'withdrawn' alone")
    after = git("cat-file", "blob", f"{head}:{path}")
    if not (after.startswith(before + OPENING) and after.endswith(rest)):
        return refuse(f"{path!r} may change in the field 'withdrawn' alone, where null becomes a text")
    try:
        reason = json.loads(after[len(before + OPENING) : len(after) - len(rest)].decode("utf-8"))
    except (ValueError, RecursionError):
        reason = None
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= LONGEST_REASON:
        return refuse(f"{path!r}, field 'withdrawn': a reason of at most {LONGEST_REASON} characters was expected")
    if any(character in "<>" or unicodedata.category(character)[0] == "C" for character in reason):
        return refuse(f"{path!r}, field 'withdrawn': it holds markup or hidden characters; write plain text")
    print("a withdrawal: there is no bundle to verify")
    return 0


def refuse(why: str) -> int:
    print(f"refused: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
