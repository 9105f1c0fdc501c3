"""A cache of verdicts by rule, gold and stated answer: in memory up to a bound, and optionally in a file.

The file is SQLite and may be shared by any number of processes. It holds digests of the texts and never the texts, so
it reveals no golds, and no completion can damage it. A damaged entry is treated as missing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import get_args

from unlearnbench.errors import DataError, RunError
from unlearnbench.records import Reason, Rule, Verdict

VERIFIER_VERSION = "4"
"""Raise it whenever any verdict may change: cached verdicts of another version are not used."""

MEMORY = 1 << 26
"""Characters of golds and answers held in memory; each entry counts 200 more."""

_DECIDING = ("math-verify", "latex2sympy2-extended", "sympy", "mpmath", "python-flint")
_APPLICATION = 0x5542_5643  # SQLite's application_id, which identifies the file as ours
_LAYOUT = 1
_ENTRY = 200
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_OUTSIDE = _BUSY | {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOLFS,
}
"""Errors of a file's location, not of the file."""
_PATIENCE = 10.0
"""Seconds to wait for another process to finish writing."""
_NOT_KEPT: frozenset[Reason] = frozenset({"verifier_error"})
_NOT_FILED: frozenset[Reason] = frozenset({"verifier_error", "timeout"})
"""A timeout may be due to the machine and not to the text, so another run tries again."""


class VerdictCache:
    """Verdicts under one rule. Safe to share between threads; call `after_fork` in a forked child.

    With a path, every new verdict of `once` is written to that file immediately, so that a kill loses nothing. Raises
    DataError where the file is not a cache of verdicts (it is left unchanged), RunError where it cannot be created or
    written.
    """

    def __init__(self, rule: Rule, path: str | Path | None = None, *, memory: int = MEMORY) -> None:
        self.rule: Rule = rule
        self.path = None if path is None else Path(path)
        self._limit = memory
        self._held: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()
        self._judging: dict[tuple[str, str], threading.Event] = {}
        self._file = None if self.path is None else _File(self.path)
        self._prefix = b"" if self._file is None else f"{deciding()} {rule}\n".encode()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, gold: str, answer: str) -> Verdict | None:
        """The verdict if it is in memory, where it becomes the most recently used."""
        key = (gold, answer)
        verdict = self._held.get(key)
        if verdict is not None:
            with self._lock:
                if key in self._held:
                    self._held.move_to_end(key)
        return verdict

    def put(self, gold: str, answer: str, verdict: Verdict) -> None:
        """Keep a verdict in memory, evicting the least recently used. Failures of the verifier itself are not kept."""
        if verdict.reason not in _NOT_KEPT:
            self._hold((gold, answer), verdict)

    def once(self, gold: str, answer: str, judge: Callable[[], Verdict]) -> Verdict:
        """The verdict from memory or file, else the result of `judge`, which is kept in both.

        If several threads ask for the same pair, one judges it and the others wait.
        """
        key = (gold, answer)
        while True:
            with self._lock:
                verdict = self._held.get(key)
                if verdict is not None:
                    return verdict
                running = self._judging.get(key)
                if running is None:
                    ended = self._judging[key] = threading.Event()
                    break
            running.wait()
        try:
            verdict = self._filed(gold, answer)
            if verdict is None:
                verdict = judge()
                if self._file is not None and verdict.reason not in _NOT_FILED:
                    self._file.write(self._digest(gold, answer), _packed(verdict))
                self.put(gold, answer, verdict)
            return verdict
        finally:
            with self._lock:
                self._judging.pop(key, None)
            ended.set()

    def close(self) -> None:
        """Close the file. A later call opens it again."""
        if self._file is not None:
            self._file.close()

    def after_fork(self) -> None:
        """In a forked child: locks may have been held, and SQLite connections must not be used across a fork."""
        self._lock = threading.Lock()
        self._judging = {}
        if self._file is not None:
            self._file.after_fork()

    def _hold(self, key: tuple[str, str], verdict: Verdict) -> None:
        with self._lock:
            if key not in self._held:
                self._characters += len(key[0]) + len(key[1]) + _ENTRY
            self._held[key] = verdict
            while self._characters > self._limit:
                gold, answer = self._held.popitem(last=False)[0]
                self._characters -= len(gold) + len(answer) + _ENTRY

    def _filed(self, gold: str, answer: str) -> Verdict | None:
        if self._file is None:
            return None
        packed = self._file.read(self._digest(gold, answer))
        verdict = None if packed is None else _unpacked(packed, answer, self.rule)
        if verdict is not None:
            self._hold((gold, answer), verdict)
        return verdict

    def _digest(self, gold: str, answer: str) -> bytes:
        text = f"{len(gold)} {gold}{answer}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(self._prefix + text).digest()


def deciding() -> str:
    """The versions that verdicts depend on: this verifier's and its libraries'."""
    found = [f"unlearnbench verifier {VERIFIER_VERSION}"]
    for package in _DECIDING:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _packed(verdict: Verdict) -> str:
    fields = asdict(verdict)
    del fields["answer"], fields["rule"]  # both are in the key
    return json.dumps(fields)


def _unpacked(text: str, answer: str, rule: Rule) -> Verdict | None:
    try:
        verdict = Verdict(answer=answer, rule=rule, **json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
    sound = verdict.reason in get_args(Reason) and verdict.correct is (verdict.reason == "match")
    return verdict if sound and isinstance(verdict.seconds, float) else None


class _File:
    """digest -> text in an SQLite file. Once it turns out to be damaged or unwritable, it is no longer used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._usable = True
        with self._lock:
            self._opened()

    def read(self, digest: bytes) -> str | None:
        found = self._run("SELECT verdict, checksum FROM verdicts WHERE digest = ?", (digest,))
        if found is None or not isinstance(found[0], str) or found[1] != _checksum(digest, found[0]):
            return None
        return str(found[0])

    def write(self, digest: bytes, text: str) -> None:
        self._run("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", (digest, text, _checksum(digest, text)))

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        if self._connection is not None:
            _inherited.append(self._connection)  # closing it here could damage the parent's file
            self._connection = None

    def _run(self, words: str, values: tuple[object, ...]) -> tuple[object, ...] | None:
        with self._lock:
            if not self._usable:
                return None
            try:
                row: tuple[object, ...] | None = self._opened().execute(words, values).fetchone()
            except (sqlite3.Error, UnicodeError, DataError, RunError) as error:
                # A file that others lock for long is only slow; after any other error, verdicts are made without it.
                self._usable = _code(error) in _BUSY
                return None
            return row

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connected(self._path)
        return self._connection


_inherited: list[sqlite3.Connection] = []


def _connected(path: Path) -> sqlite3.Connection:
    """A connection to a cache, which is created if missing. Raises DataError or RunError, each one sentence."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        connection = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            _prepare(connection, path)
            return connection
        except (sqlite3.Error, UnicodeError, OSError, DataError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, DataError):
                raise
            if _code(error) in _BUSY and time.monotonic() < deadline:
                time.sleep(0.02)  # SQLite does not wait by itself while a file changes to WAL
            elif isinstance(error, OSError) or _code(error) in _OUTSIDE:
                raise RunError(
                    f"the cache {path} cannot be opened or written ({error}); fix this, or name another file"
                ) from error
            else:  # a damaged file causes all kinds of errors
                raise _foreign(path) from error


def _code(error: Exception) -> int | None:
    """SQLite's primary error code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    marks, tables = _marks(connection)
    if marks != (_APPLICATION, _LAYOUT):
        if marks != (0, 0) or tables:
            raise _foreign(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS verdicts"
            " (digest BLOB PRIMARY KEY, verdict TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_LAYOUT}")
        connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last verdicts, but never the file
    connection.execute("SELECT digest, verdict, checksum FROM verdicts LIMIT 1").fetchone()


def _marks(connection: sqlite3.Connection) -> tuple[tuple[int, int], int]:
    """(application_id, user_version) and the number of tables, read in one transaction."""
    connection.execute("BEGIN")
    words = ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    application, layout, tables = (int(connection.execute(word).fetchone()[0]) for word in words)
    connection.execute("COMMIT")
    return (application, layout), tables


def _foreign(path: Path) -> DataError:
    return DataError(
        f"{path} is not a cache of verdicts of this version, or it is damaged; remove it, or name another file"
    )


def _checksum(digest: bytes, text: str) -> int:
    return zlib.crc32(digest + text.encode())
