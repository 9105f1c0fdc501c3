"""Stored rollouts of any kind: those in the folders of `curate` and `eval`, and files from elsewhere.

Rows have `item_id` (or `twin_id`) and `completion`, and may have `count` (how often this completion was drawn),
`correct` (the verdict of that time), `finish` and `phase`; other columns are ignored.
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
from unlearnbench.io import files, rows, streams, values
from unlearnbench.io.rows import Rows

ROW_GROUP = 1 << 20
"""Rows of a row group of base rollouts."""
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
    """The files of rollouts among these: files as they are, and all that are in these folders, sorted.

    Raises DataError for a file that has no rollouts, and for a folder without any.
    """
    found: dict[Path, StoredFile] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found.setdefault(path.resolve(), _described(path))
            continue
        inside = [file for file in sorted(path.rglob("*")) if _may_hold_rows(file)]
        described = [_described(file) for file in inside if _key(rows.column_names(file)) is not None]
        if not described:
            raise DataError(f"{path} has no file of rows with item_id and completion; name another folder")
        for stored in described:
            found.setdefault(stored.path.resolve(), stored)
    return list(found.values())


def _may_hold_rows(file: Path) -> bool:
    """Whether a file of a folder is looked into: .json files there are settings and results."""
    return file.is_file() and streams.is_tabular(file) and streams.format_of(file) != ".json"


def read_stored(file: StoredFile) -> Iterator[StoredBatch]:
    """The rows of a file in batches. Raises DataError naming file, row and field of a value of the wrong type."""
    for batch in rows.read_rows(file.path, [file.key, *SCHEMA.names[1:]]):
        yield StoredBatch(file, _table(file, batch), batch.numbers, batch.done)


def read_all(files: Sequence[StoredFile], progress: Callable[[float], None] | None = None) -> Iterator[StoredBatch]:
    """The rows of several files; `progress` receives the share of their bytes that has been read."""
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
            for table in _grouped(batch.rows for batch in read_stored(_described(source))):
                columns = table.rename_columns(["item_id", *SCHEMA.names[1:]]).select(BASE_SCHEMA.names)
                writer.write_table(columns.cast(BASE_SCHEMA))
    return target


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of ROW_GROUP rows, so that a file's bytes do not depend on how its source was read."""
    waiting, count = [], 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        if count >= ROW_GROUP:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, ROW_GROUP)
            waiting = [joined.slice(ROW_GROUP)]
            count = waiting[0].num_rows
    if count:
        yield pa.concat_tables(waiting)


def _described(path: Path) -> StoredFile:
    """What kind of file it is. Raises DataError where it has no rollouts."""
    names = rows.column_names(path)
    rows.require_columns(path, names, [next((key for key in _KEYS if key in names), _KEYS[0]), "completion"])
    return StoredFile(path, str(_key(names)), "correct" in names)


def _key(names: Sequence[str]) -> str | None:
    """The column of the ids, of a file of rollouts."""
    return next((key for key in _KEYS if key in names and "completion" in names), None)


def _table(file: StoredFile, batch: Rows) -> pa.Table:
    """Columns in the form of SCHEMA, checked: ids and completions are there, counts are 1 or more."""
    read = {
        "problem_id": values.column(batch, file.key, values.NAME, required=True),
        "completion": values.column(batch, "completion", values.TEXT, required=True),
        "count": pc.fill_null(values.column(batch, "count", values.WHOLE), 1),
        "correct": values.column(batch, "correct", values.FLAG),
        "finish": values.column(batch, "finish", values.NAME_OR_BLANK),
        "phase": values.column(batch, "phase", values.NAME_OR_BLANK),
    }
    row = pc.index(pc.less(read["count"], 1), True).as_py()
    if row >= 0:
        raise DataError(f"{batch.where(row)}, field 'count': it must be 1 or more")
    if file.phase:
        read["phase"] = pc.fill_null(read["phase"], file.phase)
    return pa.table([read[field.name] for field in SCHEMA], schema=SCHEMA)


def distinct(rows: pa.Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The first row of each different pair of problem and completion, and which of these every row is."""
    code = np.zeros(rows.num_rows, np.int64)
    for name in ("problem_id", "completion"):
        coded = rows[name].combine_chunks().dictionary_encode()
        code = code * len(coded.dictionary) + coded.indices.to_numpy()
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)
