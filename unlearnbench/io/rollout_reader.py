"""Rollouts made anywhere, read from jsonl and parquet in batches of a few megabytes, every row checked.

A row has `item_id`, `completion`, and if wanted `seed` (the training run, a whole number, 0 where it is not given)
and `finish`; other columns are ignored. Lines of jsonl are parsed by Arrow, in bulk; where anything about a block is
unusual, it is read again line by line, and that reading is the one that counts.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from unlearnbench.errors import DataError
from unlearnbench.io import files, tables

FORMATS = (".jsonl", ".parquet")
BLOCK = 4 << 20
"""Bytes of jsonl that are read at once; a longer line is read whole, up to LINE_LIMIT."""
LINE_LIMIT = 64 << 20
PARQUET_ROWS = 16_384
"""Most rows of a batch of parquet; fewer where rows are long, so that a batch stays near BLOCK."""

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("completion", pa.string()),
        ("seed", pa.int64()),
        ("finish", pa.string()),
    ]
)
_REQUIRED = ("item_id", "completion")
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Batch:
    """Rows of one file that follow each other (columns of SCHEMA; only `finish` has nulls)."""

    source: Path
    rows: pa.Table
    first: int
    """The file's row (from 1; of jsonl, the line) of the first of them."""
    numbers: Sequence[int] | None = None
    """The file's row of each of them, where blank lines stand between."""
    done: float = 1.0
    """Share of the file that has been read."""

    def where(self, index: int) -> str:
        """The file and row of a row of this batch, as errors begin."""
        return f"{self.source}, row {self.first + index if self.numbers is None else self.numbers[index]}"


def read_rollouts(path: Path, seed: int = 0) -> Iterator[Batch]:
    """The rows of a file in batches, in their order; `seed` is that of a file that names none.

    Raises DataError naming file, row and field: a missing column or field, a value that is no text or no whole
    number from 0, a line that is no JSON, text that is not UTF-8, a file that cannot be read.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise DataError(f"{path} must end in {' or '.join(FORMATS)}; convert it, or name it by its format")
    return _read_jsonl(path, seed) if path.suffix == ".jsonl" else _read_parquet(path, seed)


# --- jsonl ----------------------------------------------------------------------------------------------------


def _read_jsonl(path: Path, seed: int) -> Iterator[Batch]:
    first, read = 1, 0
    try:
        size = max(path.stat().st_size, 1)
        with path.open("rb") as file:
            for block in blocks(path, file):
                read += len(block)
                lines = block.count(b"\n") + (not block.endswith(b"\n"))
                rows = _in_bulk(block, lines, seed)
                if rows is None:
                    rows, numbers = _by_line(path, first, block, seed)
                    yield Batch(path, rows, first, numbers, min(read / size, 1.0))
                else:
                    yield Batch(path, rows, first, None, min(read / size, 1.0))
                first += lines
    except OSError as error:
        raise files.unreadable(path, error) from error


def blocks(path: Path, file: BinaryIO, start: int = 0) -> Iterator[bytes]:
    """The bytes of a file from a line's start on, cut at ends of lines.

    The byte order mark that some editors put first is left out. Raises DataError where a line exceeds LINE_LIMIT.
    """
    file.seek(start)
    if start or file.read(len(BOM_UTF8)) != BOM_UTF8:
        file.seek(start)
    rest = b""
    while piece := file.read(BLOCK):
        end = piece.rfind(b"\n") + 1
        if end:
            yield rest + piece[:end]
            rest = piece[end:]
        else:
            rest += piece
            if len(rest) > LINE_LIMIT:
                raise DataError(f"{path} has a line of more than {LINE_LIMIT >> 20} MiB; shorten that completion")
    if rest:
        yield rest


def _in_bulk(block: bytes, lines: int, seed: int) -> pa.Table | None:
    """The rows of a block by Arrow's parser; None where a line is blank, or anything is missing, null or wrong."""
    options = pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore")
    try:
        if not block.isascii():
            block.decode("utf-8")  # Arrow does not look
        rows = pyarrow.json.read_json(
            BytesIO(block), pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1), options
        ).select(SCHEMA.names)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    if rows.num_rows != lines or any(rows[name].null_count for name in _REQUIRED):
        return None
    if rows["seed"].null_count == lines and b'"seed"' not in block:
        rows = rows.set_column(2, "seed", _filled(lines, seed))
    seeds = rows["seed"]
    return None if seeds.null_count or pc.any(pc.less(seeds, 0)).as_py() else rows


def _by_line(path: Path, first: int, block: bytes, seed: int) -> tuple[pa.Table, list[int]]:
    """The rows of a block one by one, with their lines' numbers. Raises DataError at the first that is wrong."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    numbers = []
    for number, line in enumerate(block.split(b"\n"), start=first):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        row = tables.json_object(where, line)
        for name in _REQUIRED:
            if name not in row:
                raise DataError(f"{where}, field {name!r}: it is missing; every row needs {' and '.join(_REQUIRED)}")
            columns[name].append(_text(where, name, row[name]))
        columns["seed"].append(_seed(where, row["seed"]) if "seed" in row else seed)
        finish = row.get("finish")
        columns["finish"].append(finish if isinstance(finish, str) and encodes(finish) else None)
        numbers.append(number)
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA), numbers


def _text(where: str, name: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(_no_text(where, name, value))
    if not encodes(value):
        raise DataError(f"{where}, field {name!r}: half of a surrogate pair is no Unicode text; write it as UTF-8")
    return value


def _no_text(where: str, name: str, value: object) -> str:
    return f"{where}, field {name!r}: text was expected, but it is {_shown(value)}"


def encodes(text: str) -> bool:
    """Whether a string is Unicode text: half of a surrogate pair is not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _seed(where: str, value: object) -> int:
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _LARGEST_SEED:
        raise DataError(_no_seed(where, value))
    return number


def _no_seed(where: str, value: object) -> str:
    return f"{where}, field 'seed': a whole number from 0 was expected (the training run), but it is {_shown(value)}"


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)[:60]


# --- parquet --------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, seed: int) -> Iterator[Batch]:
    try:
        # A buffered stream, so that a row group of gigabytes is never in memory as a whole.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            tables.require_columns(path, file.schema_arrow.names, _REQUIRED)
            names = [name for name in SCHEMA.names if name in file.schema_arrow.names]
            total, first = file.metadata.num_rows, 1
            for batch in file.iter_batches(_batch_rows(file.metadata, names), columns=names):
                yield Batch(path, _checked(path, first, batch, seed), first, None, (first - 1 + batch.num_rows) / total)
                first += batch.num_rows
    except OSError as error:
        raise files.unreadable(path, error) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}") from error


def _batch_rows(metadata: Any, names: Sequence[str]) -> int:
    """Rows that make about BLOCK bytes."""
    size, rows = 0, int(metadata.num_rows)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = (group.column(place) for place in range(group.num_columns))
        size += sum(int(column.total_uncompressed_size) for column in columns if column.path_in_schema in names)
    return max(1, min(PARQUET_ROWS, BLOCK * max(rows, 1) // max(size, 1)))


def _checked(path: Path, first: int, batch: pa.RecordBatch, seed: int) -> pa.Table:
    columns = []
    for field in SCHEMA:
        if field.name not in batch.schema.names:
            columns.append(
                _filled(batch.num_rows, seed) if field.name == "seed" else pa.nulls(batch.num_rows, field.type)
            )
            continue
        column = batch[field.name]
        if field.name == "finish":
            columns.append(column.cast(pa.string()) if _is_text(column.type) else pa.nulls(len(column), pa.string()))
        elif field.name == "seed":
            columns.append(_seeds(path, first, column))
        else:
            columns.append(texts(path, first, field.name, column))
    return pa.table(columns, schema=SCHEMA)


def texts(path: Path, first: int, name: str, column: pa.Array) -> pa.Array:
    """A column of a file as strings, its rows numbered from `first`. Raises DataError where a value is no text."""
    if not _is_text(column.type):
        raise DataError(_no_text(f"{path}, row {first}", name, column[0].as_py()))
    column = column.cast(pa.string())
    if column.null_count:
        raise DataError(_no_text(f"{path}, row {first + pc.index(pc.is_null(column), True).as_py()}", name, None))
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}, row {first + _first_undecodable(column)}, field {name!r}: it is not UTF-8") from error
    return column


def _first_undecodable(column: pa.Array) -> int:
    for row, value in enumerate(column):
        try:
            value.as_py()
        except UnicodeDecodeError:
            return row
    return 0


def _seeds(path: Path, first: int, column: pa.Array) -> pa.Array:
    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if number and not column.null_count:
        try:
            seeds = column.cast(pa.int64())
        except pa.ArrowInvalid:
            seeds = None
        if seeds is not None and not pc.any(pc.less(seeds, 0)).as_py():
            return seeds
    return pa.array([_seed(f"{path}, row {first + row}", value) for row, value in enumerate(column.to_pylist())])


def _filled(rows: int, seed: int) -> pa.Array:
    return pa.array(np.full(rows, seed, np.int64))


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))
