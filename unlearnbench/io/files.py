"""Files: atomic writes, and hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from unlearnbench.errors import DataError, RunError, first_line
from unlearnbench.records import Record


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends well, and leaves no trace otherwise.

    Raises RunError if the disk is full or the folder cannot be written; an older file at `path` is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)  # the rename itself must survive a power cut
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"no space left to write {path}; free some and run the same command again: it resumes"
            ) from error
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; fix that and run the same command again"
        ) from error
    finally:
        with suppress(OSError):  # the error that led here, if any, is the one to report
            temporary.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, atomically. Raises RunError as `atomic` does."""
    with atomic(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically. Raises RunError as `atomic` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, obj: object) -> None:
    """Write a record or any JSON value, indented, keys in the order given. Raises RunError as `atomic` does.

    NaN and infinities are no JSON: they raise ValueError before anything is written.
    """
    if isinstance(obj, Record):
        obj = obj.model_dump(mode="json")
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal. Raises DataError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def git_blob(path: Path) -> str:
    """The id that git gives to a file's content: SHA-1 of "blob <size>\\0" and the bytes, in hexadecimal.

    For files that are known by this id alone. Raises DataError if the file cannot be read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def unreadable(path: Path, error: OSError) -> DataError:
    """The error to raise where the system cannot read a file."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"there is no file {path}")
    return DataError(f"{path} cannot be read: {error.strerror or first_line(error)}")
