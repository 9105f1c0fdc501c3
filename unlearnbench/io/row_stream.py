"""Rows with any columns, streamed from jsonl and parquet: batches in their order, every problem with its file and row.

A file of jsonl is also read for its columns' types over all rows, so that it can become parquet without being held.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from unlearnbench.errors import DataError, first_line
from unlearnbench.io import files
from unlearnbench.io.json_rows import objects
from unlearnbench.io.rows import require_columns
from unlearnbench.io.streams import BLOCK, blocks, pieces

MOST = 1024
"""Most rows of a batch; fewer where rows are long, so that a batch stays near BLOCK bytes."""

Progress = Callable[[str, int, float], None]
"""Takes what is being done, the rows it was done to, and the share of all."""

_MISFITS = (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError)


class Place(NamedTuple):
    """Where reading resumes: bytes of jsonl or rows of parquet before it, and number (from 1) of the line or row."""

    offset: int = 0
    row: int = 1


# --- jsonl ----------------------------------------------------------------------------------------------------


def lines_of(source: Path, place: Place) -> Iterator[tuple[Place, list[bytes], Place, float]]:
    """Lines from a place on, at most MOST at once: where they begin, they, where the next do, share of bytes."""
    try:
        size = max(source.stat().st_size, 1)
        with source.open("rb") as file:
            offset = place.offset or (len(BOM_UTF8) if file.read(len(BOM_UTF8)) == BOM_UTF8 else 0)
            row = place.row
            file.seek(offset)
            for block in blocks(source, pieces(file)):
                lines = block.split(b"\n")
                if not lines[-1]:
                    lines.pop()
                for start in range(0, len(lines), MOST):
                    some = lines[start : start + MOST]
                    begin = Place(offset, row)
                    offset, row = offset + sum(map(len, some)) + len(some), row + len(some)
                    yield begin, some, Place(offset, row), min(offset / size, 1.0)
    except OSError as error:
        raise files.unreadable(source, error) from error


def jsonl_schema(source: Path, tell: Progress) -> pa.Schema:
    """The columns' types over all rows, as parquet holds them. Raises DataError at the first row that has no place."""
    types: dict[str, pa.DataType] = {}
    rows = 0
    for begin, lines, _, share in lines_of(source, Place()):
        numbers, columns = _columns(source, begin.row, lines, types)
        for name, values in columns.items():
            build = partial(_joined, types.get(name, pa.null()))
            try:
                types[name] = build(values)
            except _MISFITS as error:
                row = _first_misfit(build, values)
                raise _misfit(source, numbers[row], name, values[row]) from error
        rows += len(numbers)
        tell("reading types", rows, share)
    schema = pa.schema(list(types.items()))
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), schema).close()
    except pa.ArrowException as error:
        raise no_parquet(source, error) from error
    return schema


def _columns(
    source: Path, first: int, lines: Sequence[bytes], known: Mapping[str, Any]
) -> tuple[list[int], dict[str, list[Any]]]:
    """The rows' numbers, and the values of each column seen so far, None where a row lacks it."""
    numbered = list(objects(source, first, lines))
    names = dict.fromkeys(known)
    for keys in dict.fromkeys(tuple(row) for _, row in numbered):
        names.update(dict.fromkeys(keys))
    return [number for number, _ in numbered], {name: [row.get(name) for _, row in numbered] for name in names}


def _joined(known: pa.DataType, values: Sequence[Any]) -> pa.DataType:
    """The type that holds a column's values so far and these. Raises one of _MISFITS if there is none."""
    schemas = [pa.schema([("", type_)]) for type_ in (known, pa.array(values).type)]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def _first_misfit(build: Callable[[Sequence[Any]], object], values: Sequence[Any]) -> int:
    """The first place that cannot be had with all before it, where the whole cannot."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            build(values[: middle + 1])
        except _MISFITS:
            high = middle
        else:
            low = middle + 1
    return low


def _misfit(source: Path, row: int, name: str, value: object) -> DataError:
    return DataError(
        f"{source}, row {row}, field {name!r}: parquet has one type a column, which {value!r:.60} does not fit; write "
        "to a .jsonl file"
    )


def no_parquet(source: Path, error: Exception) -> DataError:
    return DataError(f"{source} cannot be held by parquet ({first_line(error)}); write to a .jsonl file")


def jsonl_tables(source: Path, schema: pa.Schema) -> Iterator[tuple[pa.Table, float]]:
    for begin, lines, _, share in lines_of(source, Place()):
        numbers, columns = _columns(source, begin.row, lines, dict.fromkeys(schema.names))
        arrays = []
        for field in schema:
            values = columns[field.name]
            try:
                arrays.append(pa.array(values, field.type))
            except _MISFITS as error:
                row = _first_misfit(partial(pa.array, type=field.type), values)
                raise _misfit(source, numbers[row], field.name, values[row]) from error
        yield pa.table(arrays, schema=schema), share


# --- parquet --------------------------------------------------------------------------------------------------


def parquet_schema(source: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(source)
    except OSError as error:
        raise files.unreadable(source, error) from error
    except pa.ArrowException as error:
        raise _no_table(source, error) from error
    require_columns(source, schema.names, ("gold", "completion"))
    return schema


def _no_table(source: Path, error: Exception) -> DataError:
    return DataError(f"{source} cannot be read as a table: {first_line(error)}")


def parquet_tables(
    source: Path, columns: Sequence[str] | None = None, skip: int = 0
) -> Iterator[tuple[int, pa.Table, float]]:
    """Rows after the first `skip`: the number (from 1) of the first of them, they, share of rows read."""
    try:
        # A buffered stream, so that a row group of gigabytes is never in memory as a whole.
        with pq.ParquetFile(source, buffer_size=1 << 20, pre_buffer=False) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            total = max(file.metadata.num_rows, 1)
            size = sum(group.total_byte_size for group in groups)
            most = max(1, min(MOST, BLOCK * total // max(size, 1)))
            row, first = 0, 0
            while first < len(groups) and row + groups[first].num_rows <= skip:
                row += groups[first].num_rows
                first += 1
            for batch in file.iter_batches(most, row_groups=list(range(first, len(groups))), columns=columns):
                begin, row = max(row, skip), row + batch.num_rows
                if row > skip:
                    yield begin + 1, pa.table(batch.slice(batch.num_rows - (row - begin))), row / total
    except OSError as error:
        raise files.unreadable(source, error) from error
    except pa.ArrowException as error:
        raise _no_table(source, error) from error
