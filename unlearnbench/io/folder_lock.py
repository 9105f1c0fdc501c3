"""Only one command at a time works on a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from unlearnbench.errors import RunError

LOCK = ".lock"


def in_use(folder: Path) -> bool | None:
    """Whether a command of this machine is working on a folder; None where that cannot be known."""
    lock = FileLock(folder / LOCK, timeout=0)
    if not (folder / LOCK).is_file():
        return None
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return None
    lock.release()
    return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder, made if need be. Raises RunError where another command holds it, or it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout as problem:
        raise RunError(
            f"another command is working on {folder}; wait until it has ended, or name another folder with --out"
        ) from problem
    except OSError as problem:
        raise RunError(f"cannot use the folder {folder} ({problem.strerror}); name another one with --out") from problem
    try:
        yield
    finally:
        lock.release()
