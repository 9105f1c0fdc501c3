"""Text files of rows as bytes: format by file name, decompression, and blocks of whole lines."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from unlearnbench.errors import DataError, first_line
from unlearnbench.io.files import unreadable

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS: Mapping[str, str] = {".gz": "gzip", ".zst": "zstd"}
"""Endings that may follow that of a text format, and how Arrow calls them."""
ENDINGS = ".jsonl, .json, .csv, .tsv (each also followed by .gz or .zst) or .parquet"

BLOCK = 2 << 20
"""Bytes of text that are parsed at once; a longer row is read whole, up to LINE_LIMIT."""
LINE_LIMIT = 64 << 20


class Readable(Protocol):
    """A binary stream."""

    def read(self, size: int = -1, /) -> bytes: ...


def format_of(path: Path) -> str:
    """One of FORMATS, by the file's ending. Raises DataError for another one."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
        if suffixes and suffixes[-1] == ".parquet":
            raise DataError(f"{path}: parquet is compressed inside the file; decompress it")
    if not suffixes or suffixes[-1] not in FORMATS:
        raise DataError(f"{path} must end in {ENDINGS}; convert it, or rename it by its format")
    return suffixes[-1]


def is_tabular(path: Path) -> bool:
    """Whether a file's ending is that of a format that is read here."""
    try:
        return bool(format_of(path))
    except DataError:
        return False


def is_json(path: Path) -> bool:
    """Whether a file's rows are JSON objects. Raises DataError as `format_of` does."""
    return format_of(path) in (".json", ".jsonl")


class Stream:
    """The bytes of a file, decompressed where its ending says so, and the share of the file that has been read."""

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self._path, self._raw = path, raw
        self._size = max(path.stat().st_size, 1)
        compression = COMPRESSIONS.get(path.suffix.lower())
        self._bytes: Any = pa.CompressedInputStream(raw, compression) if compression else raw
        self._compressed = compression is not None

    @property
    def done(self) -> float:
        return min(self._raw.tell() / self._size, 1.0)

    def read(self, size: int = -1, /) -> bytes:
        """As of any binary stream. Raises DataError where the compressed data are damaged."""
        try:
            content: bytes = self._bytes.read(size)
        except (OSError, pa.ArrowException) as error:
            if not self._compressed or getattr(error, "errno", None):
                raise
            raise DataError(
                f"{self._path} cannot be decompressed ({first_line(error)}): it is damaged or incomplete; copy it again"
            ) from error
        return content


@contextmanager
def opened(path: Path) -> Iterator[Stream]:
    """The bytes of a file. Raises DataError where the system cannot read it."""
    try:
        with Path(path).open("rb") as raw:
            yield Stream(Path(path), raw)
    except OSError as error:
        raise unreadable(path, error) from error


def pieces(file: Readable) -> Iterator[bytes]:
    """The bytes of a stream in pieces of BLOCK, without the byte order mark that some editors put first."""
    first = True
    while piece := file.read(BLOCK):
        yield piece.removeprefix(BOM_UTF8) if first else piece
        first = False


def blocks(path: Path, parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes cut at ends of lines. Raises DataError where a line exceeds LINE_LIMIT."""
    rest = b""
    for piece in parts:
        end = piece.rfind(b"\n") + 1
        if end:
            yield rest + piece[:end]
            rest = piece[end:]
        else:
            rest += piece
            if len(rest) > LINE_LIMIT:
                raise row_too_long(path)
    if rest:
        yield rest


def row_too_long(path: Path) -> DataError:
    return DataError(f"{path} has a row of more than {LINE_LIMIT >> 20} MiB; shorten that text")
