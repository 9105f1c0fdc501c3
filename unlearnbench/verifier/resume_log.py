"""The verdicts on a file's rows while they are being made: one line per batch, so that a killed command can resume.

The first line identifies what the verdicts are about. Every other line holds a batch: where the source continues after
it, its distinct verdicts, and which of them each row has. A line that a kill cut short is dropped, with all after it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from filelock import lock_descriptor

from unlearnbench.errors import RunError
from unlearnbench.io.row_stream import Place

Fields = tuple[Any, ...]
"""A verdict's fields, in an order that the caller chooses; the last one marks verdicts whose rows are counted apart."""


@dataclass(frozen=True)
class LoggedBatch:
    """The verdicts on consecutive rows: row k has `verdicts[which[k]]`."""

    after: Place
    verdicts: Sequence[Fields]
    which: Sequence[int]


class VerdictLog:
    """A log beside the file `out` that is being made. One command at a time holds it; leaving the block keeps it.

    An existing log is used if it has the same `identity` (any JSON object of texts). Raises RunError where another
    command holds it or it cannot be written.
    """

    def __init__(self, out: Path, identity: Mapping[str, str], *, reason: int, broken: str) -> None:
        """`reason` is the index of the reason in a verdict's fields. From the first batch with the reason `broken` on,
        what was logged is dropped."""
        self.path = out.with_name(f".{out.name}.verdicts")
        self.place = Place()
        self.rows = 0
        self.reasons: Counter[str] = Counter()
        self.marked: list[int] = []
        """Rows, counted from 1, whose verdict is marked in its last field."""
        self._reason = reason
        self._head = json.dumps({"verdicts": 2, **identity}).encode() + b"\n"
        self._file = _locked(self.path, out)
        try:
            self._take_up(broken)
        except OSError as error:
            self._file.close()
            raise _unwritable(self.path, error) from error
        self.resumed = self.rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, batch: LoggedBatch) -> None:
        """Log one more batch."""
        line = json.dumps([batch.after, batch.verdicts, batch.which], separators=(",", ":")).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self._count(batch)

    def batches(self) -> Iterator[LoggedBatch]:
        """All that is logged, read from the file."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                yield _batch(line)

    def remove(self) -> None:
        """Delete the log: its verdicts are in their file, or of no use."""
        self.path.unlink(missing_ok=True)

    def _take_up(self, broken: str) -> None:
        good = len(self._head)
        if self._file.readline() == self._head:
            for line in self._file:
                try:
                    batch = _batch(line)
                    failed = any(fields[self._reason] == broken for fields in batch.verdicts)
                except (ValueError, TypeError, LookupError, RecursionError):
                    break
                if failed or not line.endswith(b"\n"):
                    break
                self._count(batch)
                good += len(line)
        else:
            self._file.seek(0)
            self._file.write(self._head)
        self._file.seek(good)
        self._file.truncate()
        self._file.flush()

    def _count(self, batch: LoggedBatch) -> None:
        self.place = batch.after
        if any(verdict[-1] for verdict in batch.verdicts):
            self.marked += [self.rows + row for row, at in enumerate(batch.which, start=1) if batch.verdicts[at][-1]]
        self.rows += len(batch.which)
        for index, times in Counter(batch.which).items():
            self.reasons[batch.verdicts[index][self._reason]] += times


def _batch(line: bytes) -> LoggedBatch:
    place, verdicts, which = json.loads(line)
    if which and not 0 <= min(which) <= max(which) < len(verdicts):
        raise ValueError("a row without a verdict")
    return LoggedBatch(Place(*place), [tuple(fields) for fields in verdicts], which)


def _locked(path: Path, out: Path) -> BinaryIO:
    """The file, opened for reading and writing by this process alone."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            held = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            file.close()
            raise RunError(
                f"cannot lock {path} ({error.strerror or error}); name a file on another file system with --out"
            ) from error
        if not held:
            file.close()
            raise RunError(
                f"another command is writing {out}; wait until it has finished, or name another file with --out"
            )
        try:
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()  # the command that held it has just ended and deleted it


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write {path}: {error.strerror or error}; fix this and rerun the same command: it resumes")
