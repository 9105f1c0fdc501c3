"""Rollouts that were kept, of any kind: what `curate` and `eval` leave in their folders, and what others bring.

Rows have `item_id` (or `twin_id`) and `completion`, and may have `count` (how often this completion was drawn),
`correct` (the verdict of then), `finish` and `phase`; other columns are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unlearnbench.errors import DataError
from unlearnbench.io import files, tables

BATCH = 65_536
BASE_ROLLOUTS = "base_rollouts.parquet"
"""The file of a split's folder with its base policy's rollouts (`write_base_rollouts`). No label rests on it."""

SCHEMA = pa.schema(
    [
        ("problem_id", pa.string()),
        ("completion", pa.string()),
        ("count", pa.int64()),
        ("correct", pa.bool_()),
        ("finish", pa.string()),
        ("phase", pa.string()),
    ]
)
BASE_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("phase", pa.string()),
        ("completion", pa.string()),
        ("count", pa.int32()),
        ("finish", pa.string()),
    ]
)
_KEYS = ("item_id", "twin_id")
_FORMATS = (".parquet", ".jsonl")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of rollouts. `judged`: its rows carry a verdict; `base`: they are the base policy's."""

    path: Path
    key: str
    judged: bool

    @property
    def base(self) -> bool:
        """Rollouts without a verdict are the base policy's; so are those in files that are named base.*."""
        return not self.judged or self.path.name.startswith("base")

    @property
    def phase(self) -> str | None:
        """The phase of rows that do not say it: `curate` names its files base.0.parquet and base_fresh.0.parquet."""
        name = self.path.name.split(".")[0]
        return name if name in ("base", "base_fresh") else None


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """Rows of one file that follow each other (columns of SCHEMA; correct, finish and phase may be null)."""

    file: StoredFile
    rows: pa.Table
    numbers: Sequence[int]
    """The file's row of each, from 1; of jsonl, its line."""
    done: float
    """Share of the file that has been read."""

    def where(self, index: int) -> str:
        """The file and row of a row of this batch, as errors begin."""
        return f"{self.file.path}, row {self.numbers[index]}"


def find_rollouts(paths: Iterable[Path]) -> list[StoredFile]:
    """The files of rollouts among these: files as they are, and all that lie in these folders, sorted.

    Raises DataError for a file that holds no rollouts, and for a folder without any.
    """
    found: dict[Path, StoredFile] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found.setdefault(path.resolve(), _described(path, required=True))  # type: ignore[arg-type]
            continue
        files = [file for file in sorted(path.rglob("*")) if file.suffix in _FORMATS and file.is_file()]
        described = [stored for file in files if (stored := _described(file, required=False))]
        if not described:
            raise DataError(f"{path} holds no parquet or jsonl file with item_id and completion; name another folder")
        for stored in described:
            found.setdefault(stored.path.resolve(), stored)
    return list(found.values())


def read_stored(file: StoredFile) -> Iterator[StoredBatch]:
    """The rows of a file in batches. Raises DataError naming file, row and field of a value of another type."""
    return _read_parquet(file) if file.path.suffix == ".parquet" else _read_jsonl(file)


def read_all(files: Sequence[StoredFile], progress: Callable[[float], None] | None = None) -> Iterator[StoredBatch]:
    """The rows of several files; `progress` is told the share of their bytes that has been read."""
    sizes = [max(file.path.stat().st_size, 1) for file in files]
    before, total = 0, sum(sizes)
    for file, size in zip(files, sizes, strict=True):
        for batch in read_stored(file):
            yield batch
            if progress:
                progress((before + size * batch.done) / total)
        before += size


def write_base_rollouts(folder: Path, sources: Sequence[Path]) -> Path:
    """Write a split's base rollouts from the files that its labels were counted from, and return the new file.

    `sources` are curate's (base.*.parquet, base_fresh.*.parquet). Read in turn, so that memory stays flat; the same
    sources give the same bytes. Raises DataError or RunError.
    """
    target = folder / BASE_ROLLOUTS
    with files.atomic(target) as out, pq.ParquetWriter(out, BASE_SCHEMA, compression="zstd") as writer:
        for source in sources:
            file = _described(source, required=True)
            assert file is not None
            for batch in _read_parquet(file, rows=1 << 20):
                columns = batch.rows.rename_columns(["item_id", *SCHEMA.names[1:]]).select(BASE_SCHEMA.names)
                writer.write_table(columns.cast(BASE_SCHEMA))
    return target


def _described(path: Path, required: bool) -> StoredFile | None:
    """What kind of file it is; None (or DataError, if `required`) where it holds no rollouts."""
    if path.suffix not in _FORMATS:
        raise DataError(f"{path} must end in {' or '.join(_FORMATS)}; convert it, or name it by its format")
    names = _names(path)
    key = next((key for key in _KEYS if key in names), None)
    if key is None or "completion" not in names:
        if required:
            lacking = "completion" if key else "item_id"
            raise DataError(f"{path}: column {lacking!r} is missing; the file has {', '.join(names) or 'no columns'}")
        return None
    return StoredFile(path, key, "correct" in names)


def _names(path: Path) -> list[str]:
    """The columns of a file; of jsonl, the fields of its first row."""
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        return list(next(tables.read_jsonl(path), {}))
    except OSError as error:
        raise files.unreadable(path, error) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}") from error


def _read_parquet(file: StoredFile, rows: int = BATCH) -> Iterator[StoredBatch]:
    path = file.path
    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as source:
            present = source.schema_arrow.names
            columns = [file.key, *(name for name in SCHEMA.names[1:] if name in present)]
            total, first = source.metadata.num_rows, 1
            for batch in source.iter_batches(rows, columns=columns):
                read = {SCHEMA.names[0] if name == file.key else name: batch[name] for name in columns}
                numbers = range(first, first + batch.num_rows)
                first += batch.num_rows
                yield StoredBatch(file, _table(file, read, numbers), numbers, (first - 1) / total)
    except OSError as error:
        raise files.unreadable(path, error) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}") from error


def _read_jsonl(file: StoredFile) -> Iterator[StoredBatch]:
    path = file.path
    fields = [file.key, *SCHEMA.names[1:]]
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    numbers: list[int] = []
    try:
        size, read, held = max(path.stat().st_size, 1), 0, 0
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                read += len(line)
                if not line.strip():
                    continue
                row = tables.json_object(f"{path}, row {number}", line)
                for name, field in zip(SCHEMA.names, fields, strict=True):
                    columns[name].append(row.get(field))
                numbers.append(number)
                held += len(line)
                if len(numbers) == BATCH or held > 1 << 24:
                    yield StoredBatch(file, _table(file, columns, numbers), numbers, read / size)
                    columns, numbers, held = {name: [] for name in SCHEMA.names}, [], 0
    except OSError as error:
        raise files.unreadable(path, error) from error
    if numbers:
        yield StoredBatch(file, _table(file, columns, numbers), numbers, 1.0)


def _table(file: StoredFile, columns: dict[str, Any], numbers: Sequence[int]) -> pa.Table:
    """Columns in the form of SCHEMA, checked: ids and completions are there, counts are 1 or more."""
    read = {}
    for field in SCHEMA:
        name = file.key if field.name == "problem_id" else field.name
        if field.name not in columns:
            read[field.name] = pa.nulls(len(numbers), field.type)
            continue
        read[field.name] = _column(file.path, name, columns[field.name], field.type, numbers)
    for name in SCHEMA.names[:2]:
        if read[name].null_count:
            row = numbers[pc.index(pc.is_null(read[name]), True).as_py()]
            raise DataError(f"{file.path}, row {row}, field {file.key if name != 'completion' else name!r}: no value")
    read["count"] = pc.fill_null(read["count"], 1)
    row = pc.index(pc.less(read["count"], 1), True).as_py()
    if row >= 0:
        raise DataError(f"{file.path}, row {numbers[row]}, field 'count': it must be 1 or more")
    if file.phase:
        read["phase"] = pc.fill_null(read["phase"], file.phase)
    return pa.table([read[field.name] for field in SCHEMA], schema=SCHEMA)


def _column(path: Path, name: str, values: Any, type_: pa.DataType, numbers: Sequence[int]) -> pa.Array:
    try:
        if isinstance(values, list):
            return pa.array(values, type_)
        if pa.types.is_dictionary(values.type) or pa.types.is_large_string(values.type):
            values = values.cast(pa.string())
        if pa.types.is_string(values.type) != pa.types.is_string(type_) and not pa.types.is_null(values.type):
            raise pa.ArrowInvalid(f"it is {values.type}")
        values = values.cast(type_)
        values.validate(full=True)
        return values
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError) as error:
        raise DataError(
            f"{path}, rows {numbers[0]} to {numbers[-1]}, field {name!r}: not every value is {type_} "
            f"({str(error).splitlines()[0]})"
        ) from error


def distinct(rows: pa.Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The first row of each different pair of problem and completion, and which of these every row is."""
    code = np.zeros(rows.num_rows, np.int64)
    for name in ("problem_id", "completion"):
        coded = rows[name].combine_chunks().dictionary_encode()
        code = code * len(coded.dictionary) + coded.indices.to_numpy()
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)
