"""A file of completions with the verdict on each: read, judged and written in batches, whatever its length.

First every row is judged and its verdict logged (resume_log.py). Then the source is read once more and written with the
verdicts. So a killed command can resume, and a partial output file is never seen. Where jsonl becomes parquet, the
source is read once before that for the types of its columns. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files, values
from unlearnbench.io.json_rows import json_object, objects
from unlearnbench.io.row_stream import (
    Place,
    Progress,
    jsonl_schema,
    jsonl_tables,
    lines_of,
    no_parquet,
    parquet_schema,
    parquet_tables,
)
from unlearnbench.io.rows import Rows
from unlearnbench.records import Rule, Verdict
from unlearnbench.verifier import Verifier
from unlearnbench.verifier.cache import deciding
from unlearnbench.verifier.resume_log import Fields, LoggedBatch, VerdictLog

FORMATS = (".jsonl", ".parquet")
COLUMNS: Mapping[str, pa.DataType] = {
    "correct": pa.bool_(),
    "answer": pa.string(),
    "reason": pa.string(),
    "rule": pa.string(),
    "seconds": pa.float64(),
}
"""The verdict's columns. Columns of the source with these names are replaced in place."""
T = TypeVar("T")

_REASON = list(COLUMNS).index("reason")
_NAMES = re.compile(rb'"(?:%b)"' % "|".join(COLUMNS).encode())
_AT_ONCE = 3
_BETWEEN_STOPS = 32
"""Texts that may still be judged after Ctrl-C with several workers."""
_ROW_GROUP = 16 << 20
"""Bytes of rows in a row group of parquet."""


@dataclass(frozen=True)
class Summary:
    """A file's number of rows, how many have each reason, and how many had been judged by an interrupted command.

    `symbolic`: the rows, counted from 1, that sympy had to judge. That takes up to seconds each, so golds written
    differently save time there.
    """

    rows: int
    reasons: Mapping[str, int]
    resumed: int
    symbolic: Sequence[int] = ()


@dataclass(frozen=True)
class _Part:
    """Consecutive rows of the source, and where it continues after them."""

    pairs: Sequence[tuple[str, str]]
    after: Place
    share: float


def judge_file(
    source: Path,
    out: Path,
    *,
    rule: Rule = "strict",
    workers: int = 1,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write all columns of `source`, and a verdict's, to `out` (jsonl or parquet each, by suffix).

    Repeat an interrupted call with the same source, rule and verifier to resume it. Raises DataError naming file, row
    and field; RunError where `out` cannot be written or `source` changes meanwhile.
    """
    tell = progress or (lambda what, rows, share: None)
    before = _state(source)
    if source.suffix == ".parquet":
        schema = parquet_schema(source)
    else:
        schema = jsonl_schema(source, tell) if out.suffix == ".parquet" else None
    identity = {"source": files.sha256(source), "format": source.suffix, "rule": rule, "by": deciding()}
    with VerdictLog(out, identity, reason=_REASON, broken="verifier_error") as log:
        _remove_halves(out)
        try:
            with Verifier(rule, workers=workers, cache=cache) as verifier:
                parts = (_jsonl_parts if source.suffix == ".jsonl" else _parquet_parts)(source, log.place)
                for part, batch in _judged(parts, verifier):
                    log.append(batch)
                    tell("judging", log.rows, part.share)
            with files.atomic(out) as file:
                if out.suffix == ".parquet":
                    _write_parquet(source, schema, log, file, tell)
                elif source.suffix == ".parquet":
                    _write_tables_as_lines(source, log, file, tell)
                else:
                    _write_lines(source, log, file, tell)
                if _state(source) != before:
                    raise RunError(f"{source} changed while it was judged; rerun the same command")
        except DataError:
            log.remove()  # the source has to change, so these verdicts are of no use
            raise
        log.remove()
        return Summary(log.rows, dict(log.reasons), log.resumed, tuple(log.marked))


def _state(source: Path) -> tuple[int, int, int]:
    try:
        found = source.stat()
    except OSError as error:
        raise files.unreadable(source, error) from error
    return found.st_size, found.st_mtime_ns, found.st_ino


def _remove_halves(out: Path) -> None:
    """Remove the partial file that a killed command left; no other command writes here now."""
    for half in out.parent.glob(f".{escape(out.name)}.*.tmp"):
        half.unlink(missing_ok=True)


# --- judging --------------------------------------------------------------------------------------------------


def _judged(parts: Iterator[_Part], verifier: Verifier) -> Iterator[tuple[_Part, LoggedBatch]]:
    """The verdicts on each part, in order. With several workers, a few parts are judged at the same time, so that one
    slow text does not leave the other workers idle."""
    if verifier.workers == 1:
        for part in parts:
            yield part, _batch(part, verifier, threading.Event())
        return
    stop = threading.Event()
    pool = ThreadPoolExecutor(_AT_ONCE)
    waiting: deque[tuple[_Part, Future[LoggedBatch]]] = deque()
    try:
        for part in parts:
            waiting.append((part, pool.submit(_batch, part, verifier, stop)))
            if len(waiting) == _AT_ONCE:
                first, batch = waiting.popleft()
                yield first, batch.result()
        while waiting:
            first, batch = waiting.popleft()
            yield first, batch.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _batch(part: _Part, verifier: Verifier, stop: threading.Event) -> LoggedBatch:
    places: dict[tuple[str, str], int] = {}
    which = [places.setdefault(pair, len(places)) for pair in part.pairs]
    pairs = list(places)
    verdicts: list[Verdict] = []
    size = len(pairs) if verifier.workers == 1 else _BETWEEN_STOPS
    for start in range(0, len(pairs), size or 1):
        if stop.is_set():
            break  # the command is ending
        verdicts += verifier.verify_many(pairs[start : start + size])
    different = {id(verdict): verdict for verdict in verdicts}  # verdicts from the cache are the same object
    number = {key: place for place, key in enumerate(different)}
    fields = [
        (*(getattr(verdict, name) for name in COLUMNS), verifier.is_symbolic(verdict)) for verdict in different.values()
    ]
    numbers = [number[id(verdict)] for verdict in verdicts]
    return LoggedBatch(part.after, fields, [numbers[index] for index in which])


# --- jsonl ----------------------------------------------------------------------------------------------------


def _jsonl_parts(source: Path, place: Place) -> Iterator[_Part]:
    for begin, lines, after, share in lines_of(source, place):
        pairs = []
        for number, row in objects(source, begin.row, lines):
            try:
                gold, completion = row["gold"], row["completion"]
            except KeyError as missing:
                raise DataError(
                    f"{source}, row {number}, field {missing}: text was expected, but it is missing"
                ) from None
            if not (isinstance(gold, str) and isinstance(completion, str)):
                name, value = ("completion", completion) if isinstance(gold, str) else ("gold", gold)
                found = "null" if value is None else f"{value!r:.60}"
                raise DataError(f"{source}, row {number}, field {name!r}: text was expected, but it is {found}")
            if not gold or gold.isspace():
                raise _empty_gold(source, number)
            pairs.append((gold, completion))
        yield _Part(pairs, after, share)


def _empty_gold(source: Path, row: int) -> DataError:
    return DataError(f"{source}, row {row}, field 'gold': text was expected, but it is empty")


def _write_lines(source: Path, log: VerdictLog, file: BinaryIO, tell: Progress) -> None:
    """Each line unchanged, with the verdict's fields inserted before its last brace."""
    ends = _verdicts(log, lambda fields: json.dumps(dict(zip(COLUMNS, fields, strict=True))).encode())
    rows = 0
    for begin, lines, _, share in lines_of(source, Place()):
        written = []
        for number, line in enumerate(lines, start=begin.row):
            line = line.strip()
            if not line:
                continue
            verdict = _next(ends, source)
            if _NAMES.search(line):
                row = json_object(f"{source}, row {number}", line)
                written.append(json.dumps(row | json.loads(verdict)).encode())
            else:
                written.append(b"%b, %b" % (line[:-1], verdict[1:]))
        rows += len(written)
        file.write(b"\n".join([*written, b""]))
        tell("writing", rows, share)


# --- parquet --------------------------------------------------------------------------------------------------


def _parquet_parts(source: Path, place: Place) -> Iterator[_Part]:
    for first, table, share in parquet_tables(source, ("gold", "completion"), place.offset):
        columns = {name: table[name].combine_chunks() for name in ("gold", "completion")}
        part = Rows(source, columns, range(first, first + table.num_rows))
        golds, completions = (
            values.column(part, name, values.TEXT, required=True).to_pylist() for name in ("gold", "completion")
        )
        for row, gold in enumerate(golds, start=first):
            if not gold or gold.isspace():
                raise _empty_gold(source, row)
        end = first - 1 + table.num_rows
        yield _Part(list(zip(golds, completions, strict=True)), Place(end, end + 1), share)


def _write_tables_as_lines(source: Path, log: VerdictLog, file: BinaryIO, tell: Progress) -> None:
    verdicts = _verdicts(log, lambda fields: dict(zip(COLUMNS, fields, strict=True)))
    encode = json.JSONEncoder(default=str).encode  # what JSON cannot express is written as Python prints it
    for first, table, share in parquet_tables(source):
        try:
            rows = table.to_pylist()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{source}, row {first} or one of the {table.num_rows} after it: text is not UTF-8"
            ) from error
        lines = (encode(row | _next(verdicts, source)).encode() for row in rows)
        file.write(b"\n".join([*lines, b""]))
        tell("writing", first - 1 + table.num_rows, share)


def _write_parquet(source: Path, schema: pa.Schema, log: VerdictLog, file: BinaryIO, tell: Progress) -> None:
    verdicts = _verdicts(log, lambda fields: fields)
    done, waiting, size = 0, [], 0
    found = jsonl_tables(source, schema)
    if source.suffix == ".parquet":
        found = ((table, share) for _, table, share in parquet_tables(source))
    try:
        with pq.ParquetWriter(file, _with_verdicts(schema.empty_table(), []).schema, compression="zstd") as writer:
            for table, share in found:
                fields = [_next(verdicts, source) for _ in range(table.num_rows)]
                waiting.append(_with_verdicts(table, fields))
                done, size = done + table.num_rows, size + waiting[-1].nbytes
                if size > _ROW_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting, size = [], 0
                tell("writing", done, share)
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
    except pa.ArrowException as error:
        raise no_parquet(source, error) from error


def _with_verdicts(table: pa.Table, fields: Sequence[Fields]) -> pa.Table:
    for place, (name, type_) in enumerate(COLUMNS.items()):
        column = pa.array([verdict[place] for verdict in fields], type_)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table


# --- the verdicts, row by row ---------------------------------------------------------------------------------


def _verdicts(log: VerdictLog, shown: Callable[[Fields], T]) -> Iterator[T]:
    """Every row's verdict in the form it is written in, made once for all rows of a batch that share it."""
    for batch in log.batches():
        yield from map([shown(fields[:-1]) for fields in batch.verdicts].__getitem__, batch.which)


def _next(verdicts: Iterator[T], source: Path) -> T:
    for verdict in verdicts:
        return verdict
    raise RunError(f"{source} has grown while it was judged; rerun the same command")
