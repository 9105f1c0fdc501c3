"""Rows of csv and tsv, every value as text: read by Arrow and, from the first block that Arrow refuses, by Python's csv
module, which names the bad row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from unlearnbench.errors import DataError, first_line
from unlearnbench.io import streams

DELIMITERS = ",;\t"
"""Of .csv, the one that the header has most of: spreadsheets write semicolons where a comma is a decimal point."""
ROWS = 8_192
_BLOCK = streams.BLOCK // 2
"""Bytes that Arrow parses at once, into columns of about three times that size."""


def read_csv(path: Path, wanted: Sequence[str] | None) -> Iterator[tuple[Sequence[int], Mapping[str, Any], float]]:
    """Rows as columns: their numbers (from 1, without the header), the values of each wanted column that the file has,
    the share of the file read.

    Raises DataError naming file and row: another number of values than the header has, text that is not UTF-8.
    """
    names, delimiter = header(path)
    present = [name for name in names if wanted is None or name in wanted]
    done = 0
    with streams.opened(path) as stream:
        try:
            for batch in _by_arrow(stream, names, delimiter, present):
                if batch.num_rows:
                    columns = {name: batch.column(name) for name in present}
                    yield range(done + 1, done + batch.num_rows + 1), columns, stream.done
                    done += batch.num_rows
            return
        except pa.ArrowException:
            pass  # whatever it is, the reading below says it, or finds nothing wrong
    with streams.opened(path) as stream:
        yield from _by_row(path, stream, names, delimiter, present, done)


def header(path: Path) -> tuple[list[str], str]:
    """The names of a file's columns, and what stands between values. Raises DataError."""
    with streams.opened(path) as stream:
        line = next(streams.blocks(path, streams.pieces(stream)), b"")
    text = _decoded(path, line.partition(b"\n")[0])
    delimiter = "\t" if streams.format_of(path) == ".tsv" else max(DELIMITERS, key=text.count)
    try:
        names = [name.strip() for name in next(_reader(io.StringIO(text.rstrip("\r")), delimiter), [])]
    except csv.Error as error:
        raise DataError(f"{path}: the header cannot be read ({first_line(error)}); end lines with a newline") from error
    if not any(names):
        raise DataError(f"{path} is not a readable csv file: it begins with no names of columns")
    return names, delimiter


def _decoded(path: Path, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the header is not UTF-8; save the file as UTF-8") from error


def _by_arrow(
    stream: streams.Stream, names: Sequence[str], delimiter: str, present: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    reader = pyarrow.csv.open_csv(
        pa.PythonFile(_buffered(stream), mode="r"),
        pyarrow.csv.ReadOptions(
            use_threads=False, block_size=_BLOCK, column_names=list(names), skip_rows_after_names=1
        ),
        pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            include_columns=list(present),
            column_types=dict.fromkeys(present, pa.string()),
            strings_can_be_null=False,
        ),
    )
    yield from reader


def _by_row(
    path: Path, stream: streams.Stream, names: Sequence[str], delimiter: str, present: Sequence[str], skip: int
) -> Iterator[tuple[Sequence[int], Mapping[str, Any], float]]:
    places = [names.index(name) for name in present]
    text = io.TextIOWrapper(_buffered(stream), encoding="utf-8-sig", errors="surrogateescape", newline="")
    number = 0
    waiting: list[list[str]] = []
    try:
        rows = _reader(text, delimiter)
        next(rows, None)
        for row in rows:
            if not row:
                continue
            number += 1
            if len(row) != len(names):
                raise DataError(
                    f"{path}, row {number}: {len(row)} values where the header names {len(names)} columns; put "
                    "values that hold the delimiter or a line end in double quotes"
                )
            if not "".join(row).isascii() and any(_undecoded(value) for value in row):
                raise DataError(f"{path}, row {number}: it is not UTF-8; save the file as UTF-8")
            if number > skip:
                waiting.append(row)
            if len(waiting) == ROWS:
                yield *_columns(waiting, number, present, places), stream.done
                waiting = []
    except csv.Error as error:
        raise DataError(f"{path}, row {number + 1}: {first_line(error)}; put text in double quotes") from error
    if waiting:
        yield *_columns(waiting, number, present, places), stream.done


def _columns(
    rows: Sequence[Sequence[str]], last: int, present: Sequence[str], places: Sequence[int]
) -> tuple[Sequence[int], Mapping[str, Any]]:
    columns = {name: [row[place] for row in rows] for name, place in zip(present, places, strict=True)}
    return range(last - len(rows) + 1, last + 1), columns


def _undecoded(value: str) -> bool:
    """Whether a value has bytes that are not UTF-8, which `surrogateescape` keeps as these characters."""
    return any("\udc80" <= character <= "\udcff" for character in value)


def _reader(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(streams.LINE_LIMIT)  # Python's own limit is 128 KiB a value
    return csv.reader(lines, delimiter=delimiter)


class _Raw(io.RawIOBase):
    """A stream as Python's text layer and Arrow read files."""

    def __init__(self, stream: streams.Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _buffered(stream: streams.Stream) -> io.BufferedReader:
    return io.BufferedReader(_Raw(stream), _BLOCK)
