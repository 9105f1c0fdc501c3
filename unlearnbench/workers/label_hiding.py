"""Hides a split's labels from the process that runs a method.

The process works on a sealed copy (`splits.seal`). On Linux, where the kernel allows it, the original files are also
covered by empty ones in a mount namespace of the process's own, so that not even C code can open them; elsewhere an
audit hook refuses Python's own `open`. Neither stops a method that means to escape: docs/reference/tracks.md says what
detection cannot see.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

TELLING = {
    "items.parquet",
    "data",
    "twins.parquet",
    "counts.parquet",
    "twin_counts.parquet",
    "labels.parquet",
    "labels.json",
    "base_rollouts.parquet",
    "canaries.json",
    "similar.parquet",
    "sub_problems.parquet",
    "released.json",
    "build.json",
    "null_control",
    "strong_null",
    "positive_control",
    ".curation",
}
"""What of a split's folder says something about labels, twins or canaries."""

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18


def hide(folder: Path, *spared: Path) -> str:
    """Make the files of `folder` unreadable for this process, except what holds a path of `spared` (the run's own).

    Must be called before threads start. Returns how: `namespace` or `audit`.
    """
    kept = [path.resolve() for path in spared]
    entries = [entry for entry in sorted(folder.resolve().iterdir()) if entry.name in TELLING]
    covered = [entry for entry in entries if not any(path.is_relative_to(entry) for path in kept)]
    _refuse_open(covered)
    return "namespace" if sys.platform == "linux" and _cover(covered) else "audit"


def _refuse_open(covered: list[Path]) -> None:
    names = tuple(str(path) for path in covered)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and arguments and isinstance(arguments[0], str | os.PathLike):
            path = os.path.realpath(arguments[0])
            if any(path == name or path.startswith(name + os.sep) for name in names):
                raise PermissionError(f"{path} belongs to the split's labels, which a method may not read")

    sys.addaudithook(hook)


def _cover(covered: list[Path]) -> bool:
    """Mount an empty folder or file over each path, in namespaces of this process's own."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNS) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) != 0:
            return False
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        except OSError:
            return False
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return False
    for path in covered:
        target = os.fsencode(path)
        if path.is_dir():
            done = libc.mount(b"tmpfs", target, b"tmpfs", 0, b"size=4k")
        else:
            done = libc.mount(b"/dev/null", target, None, _MS_BIND, None)
        if done != 0:
            return False
    return True
