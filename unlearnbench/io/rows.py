"""Rows of any tabular file in batches of a few megabytes: jsonl, json, csv, tsv and parquet.

Pools, counts, rollouts and logs are all read through this module, so that each accepts what the others accept: a byte
order mark, Windows line ends, gzip and zstd, one JSON list in a .jsonl file and lines in a .json file, large_string and
dictionary columns. What a value of a column may be is in `values.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unlearnbench.errors import DataError, first_line
from unlearnbench.io import csv_rows, json_rows, streams
from unlearnbench.io.files import unreadable

PARQUET_ROWS = 16_384
"""Most rows of a batch of parquet; fewer where rows are long, so that a batch stays near streams.BLOCK."""

Column = Any
"""A pyarrow array, or a list of what JSON holds."""


@dataclass(frozen=True)
class Rows:
    """Rows of one file that follow each other. A column has one entry a row, None where the row has no value."""

    source: Path
    columns: Mapping[str, Column]
    numbers: Sequence[int]
    """The file's row of each, from 1; of jsonl the line, of csv without the header."""
    done: float = 1.0
    """Share of the file that has been read."""

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, index: int) -> str:
        """The file and row of one of these rows, as errors begin."""
        return f"{self.source}, row {self.numbers[index]}"


def read_rows(path: Path, wanted: Sequence[str] | None = None) -> Iterator[Rows]:
    """The rows of a file in batches, in their order, with the wanted columns (default: all that a batch has).

    A name may be the path to a field inside a column (`extra_info.item_id`). A wanted column that the file does not
    have is None in every row. Raises DataError naming file and row: no JSON object, a csv row of another length than
    the header, text that is not UTF-8; and naming the file where it cannot be read.
    """
    path = Path(path)
    kind = streams.format_of(path)
    read = {".parquet": _read_parquet, ".csv": csv_rows.read_csv, ".tsv": csv_rows.read_csv}.get(
        kind, json_rows.read_json
    )
    for numbers, columns, done in read(path, wanted):
        if wanted is not None:
            columns = {name: columns.get(name, pa.nulls(len(numbers))) for name in wanted}
        yield Rows(path, columns, numbers, done)


def read_dicts(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a file as a dict, and where it stands: the file and row, as errors begin.

    Raises DataError as `read_rows` does.
    """
    path = Path(path)
    if streams.is_json(path):
        for number, row, _ in json_rows.read_objects(path):
            yield f"{path}, row {number}", row
        return
    for rows in read_rows(path):
        columns = {name: listed(values) for name, values in rows.columns.items()}
        for index in range(len(rows)):
            yield rows.where(index), {name: values[index] for name, values in columns.items()}


def listed(column: Column) -> list[Any]:
    """A column's values as Python objects."""
    values: list[Any] = column if isinstance(column, list) else column.to_pylist()
    return values


def column_names(path: Path) -> list[str]:
    """The columns of a file, and fields inside them by their paths; of JSON, those of its first rows.

    Raises DataError as `read_rows` does.
    """
    path = Path(path)
    kind = streams.format_of(path)
    if kind == ".parquet":
        with _parquet(path) as file:
            return _paths(file.schema_arrow)
    if kind in (".csv", ".tsv"):
        return csv_rows.header(path)[0]
    names: dict[str, None] = {}
    for row in json_rows.first_objects(path):
        for name, value in row.items():
            names.update(dict.fromkeys(_keys(name, value)))
    return list(names)


def _keys(name: str, value: object, depth: int = 2) -> Iterator[str]:
    """A JSON field's name, and the paths to the fields inside it."""
    yield name
    if isinstance(value, dict) and depth:
        for inner, found in value.items():
            yield from _keys(f"{name}.{inner}", found, depth - 1)


def require_columns(path: Path, present: Sequence[str], wanted: Iterable[str]) -> None:
    """Raise DataError naming the wanted columns that are not present, or one that is present twice."""
    wanted = list(wanted)
    if missing := [repr(name) for name in wanted if name not in present]:
        has = ", ".join(name for name in present if "." not in name) or "no columns"
        named = f"column {missing[0]} is" if len(missing) == 1 else f"columns {', '.join(missing)} are"
        raise DataError(f"{path}: {named} missing; the file has {has}")
    for name in wanted:
        if list(present).count(name) > 1:
            raise DataError(f"{path}: column {name!r} is there more than once")


# --- parquet --------------------------------------------------------------------------------------------------


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        # A buffered stream, so that a row group of gigabytes is never in memory as a whole.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            yield file
    except OSError as error:
        raise unreadable(path, error) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {first_line(error)}") from error


def _paths(schema: pa.Schema) -> list[str]:
    found: list[str] = []
    for field in schema:
        found.append(field.name)
        if pa.types.is_struct(field.type):
            found += [f"{field.name}.{inner.name}" for inner in field.type]
    return found


def _read_parquet(path: Path, wanted: Sequence[str] | None) -> Iterator[tuple[Sequence[int], Mapping[str, Any], float]]:
    with _parquet(path) as file:
        paths = _paths(file.schema_arrow)
        names = file.schema_arrow.names if wanted is None else [name for name in wanted if name in paths]
        total, first = file.metadata.num_rows, 1
        for batch in file.iter_batches(_batch_rows(file.metadata, names), columns=list(names)):
            numbers = range(first, first + batch.num_rows)
            first += batch.num_rows
            yield numbers, {name: _column(batch, name) for name in names}, (first - 1) / total


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name in batch.schema.names:
        return batch.column(batch.schema.get_field_index(name))
    outer, _, inner = name.partition(".")
    return pc.struct_field(batch.column(batch.schema.get_field_index(outer)), inner)


def _batch_rows(metadata: Any, names: Sequence[str]) -> int:
    """Rows that make about streams.BLOCK bytes."""
    size, rows = 0, int(metadata.num_rows)
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for column in (group.column(place) for place in range(group.num_columns)):
            path = column.path_in_schema
            if any(path == name or path.startswith(f"{name}.") for name in names):
                size += int(column.total_uncompressed_size)
    return max(1, min(PARQUET_ROWS, streams.BLOCK * max(rows, 1) // max(size, 1)))
