"""Files in and out: parquet, json, jsonl, csv and yaml, each read with its errors named and written atomically."""

from __future__ import annotations

import json
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from unlearnbench.errors import DataError, first_line
from unlearnbench.io.files import atomic, unreadable, write_json, write_text
from unlearnbench.records import Record

R = TypeVar("R", bound=Record)

_ARROW: Mapping[type, pa.DataType] = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
}


def _counts_schema(key: str) -> pa.Schema:
    return pa.schema(
        [
            (key, pa.string()),
            ("phase", pa.string()),
            ("run", pa.string()),
            ("n", pa.int64()),
            ("correct", pa.int64()),
        ]
    )


COUNTS = _counts_schema("item_id")
"""The raw counts behind labels: `correct` of `n` rollouts of an item in one run of one phase."""
TWIN_COUNTS = _counts_schema("twin_id")


# --- writing --------------------------------------------------------------------------------------------------


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write `table` with zstd; equal tables give equal bytes. Raises RunError as `atomic` does."""
    table = table.combine_chunks()  # chunk borders are invisible to readers, so they must not show in the bytes
    with atomic(path) as file, pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        if table.num_rows:  # a row group of no rows is what `datasets` cannot read
            writer.write_table(table)


def write_records(path: Path, records: Sequence[R], model: type[R]) -> None:
    """Write records as parquet or, by suffix, jsonl or json (a list). Raises RunError as `atomic` does."""
    rows = [record.model_dump(mode="json") for record in records]
    if Path(path).suffix == ".json":
        write_json(path, rows)
    elif Path(path).suffix == ".jsonl":
        write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
    else:
        write_parquet(path, pa.Table.from_pylist(rows, schema=record_schema(model)))


# --- reading --------------------------------------------------------------------------------------------------


def read_parquet(path: Path, columns: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """The whole table, or exactly `columns`, in that order and cast to those types.

    Raises DataError naming file and column if the file is no parquet, lacks a column, or holds one whose values do
    not fit the type.
    """
    try:
        with pq.ParquetFile(path) as file:
            if columns is None:
                return file.read()
            require_columns(path, file.schema_arrow.names, columns)
            table = file.read(columns=list(columns))
    except OSError as error:
        raise unreadable(path, error) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {first_line(error)}") from error
    return pa.table({name: _cast(path, name, table[name], type_) for name, type_ in columns.items()})


def read_records(path: Path, model: type[R]) -> tuple[R, ...]:
    """The records of a parquet or, by suffix, jsonl or json file; columns whose field has a default may be absent.

    Raises DataError naming file, row (from 1) and field.
    """
    if Path(path).suffix == ".jsonl":
        rows: Iterable[Any] = read_jsonl(path)
    elif Path(path).suffix == ".json":
        rows = _read_json_list(path)
    else:
        rows = _read_rows(path, model)
    return tuple(_record(f"{path}, row {number}", model, row) for number, row in enumerate(rows, start=1))


def read_json_record(path: Path, model: type[R]) -> R:
    """The record in a json file. Raises DataError naming file and field."""
    try:
        return model.model_validate_json(_bytes(path))
    except ValidationError as error:
        raise DataError(f"{path}{_problem(model, error)}") from error


def read_yaml_record(path: Path, model: type[R]) -> R:
    """The record in a yaml file, read with the safe loader only. Raises DataError naming file and line or field."""
    try:
        content = yaml.safe_load(_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DataError(
            f"{path}{where}: not valid YAML ({getattr(error, 'problem', None) or first_line(error)})"
        ) from error
    return _record(str(path), model, content)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """One dict a line, streamed; blank lines are skipped. Raises DataError naming file and row (line, from 1)."""
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                yield json_object(f"{path}, row {number}", line)
    except OSError as error:
        raise unreadable(path, error) from error


def json_object(where: str, line: bytes) -> dict[str, Any]:
    """The object that a line of jsonl holds. Raises DataError that begins with `where` (file and row)."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({first_line(error)})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a JSON object was expected, not {type(row).__name__}")
    return row


def read_counts(
    path: Path,
    key: Literal["item_id", "twin_id"] = "item_id",
    *,
    phases: Sequence[str] | None = None,
    best: bool = True,
) -> pa.Table:
    """Counts from csv or parquet (by suffix): the columns of COUNTS, and `best` (float64) if the file has it.

    With `phases`, rows of other phases are left out, whatever they hold, and so is `best` outside phase train.
    Raises DataError naming file, row and column, or item, phase and run: a missing column or value, a value of
    another type, n < 0, correct < 0, correct > n, a repeated (item, phase, run).
    """
    schema = _counts_schema(key)
    wanted = {field.name: field.type for field in schema}
    text = Path(path).suffix == ".csv"
    if text:
        raw = _read_csv(path, [*wanted, "best"])
        require_columns(path, raw.column_names, wanted)
    else:
        present = best and "best" in _column_names(path)
        raw = read_parquet(path, wanted | ({"best": pa.float64()} if present else {}))
    columns = {name: raw[name] for name in wanted}
    used = None
    if phases is not None:
        used = pc.is_in(columns["phase"], pa.array(phases, pa.string()))
        zero = pa.scalar("0") if text else pa.scalar(0, pa.int64())
        columns |= {name: pc.if_else(used, columns[name], zero) for name in ("n", "correct")}
    columns = {name: _cast(path, name, column, wanted[name]) for name, column in columns.items()}
    if best and "best" in raw.column_names:
        columns["best"] = _read_best(path, raw["best"], None if phases is None else pc.equal(columns["phase"], "train"))
    table = pa.table(columns)
    _check_counts(path, table, key, used)
    return table if used is None else table.filter(used)


def _read_best(path: Path, column: pa.ChunkedArray, used: pa.ChunkedArray | None) -> pa.ChunkedArray:
    """`best` as float64, null where it is empty or not used; a value outside [0, 1] is refused."""
    if used is not None:
        column = pc.if_else(used, column, pa.scalar(None, column.type))
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    best = _cast(path, "best", column, pa.float64())
    best = pc.if_else(pc.is_nan(best), pa.scalar(None, pa.float64()), best)
    row = pc.index(pc.or_(pc.less(best, 0), pc.greater(best, 1)), True).as_py()
    if row >= 0:
        raise DataError(f"{path}, row {row + 1}, column 'best': {best[row].as_py()} is no mean reward from 0 to 1")
    return best


def record_schema(model: type[Record]) -> pa.Schema:
    """The parquet schema of a flat record: str, int, float, bool, Literal, and each of them or None."""
    return pa.schema([(name, _arrow_type(field.annotation)) for name, field in model.model_fields.items()])


# --- parts of the readers, and the errors' words ---------------------------------------------------------------


def _read_rows(path: Path, model: type[Record]) -> list[dict[str, Any]]:
    names = _column_names(path)
    schema = record_schema(model)
    if unknown := [name for name in names if name not in schema.names]:
        known = ", ".join(schema.names)
        raise DataError(f"{path}: unknown column {unknown[0]!r}; {model.__name__} rows have {known}")
    require_columns(path, names, [name for name, field in model.model_fields.items() if field.is_required()])
    rows: list[dict[str, Any]] = read_parquet(path, {name: schema.field(name).type for name in names}).to_pylist()
    return rows


def _read_json_list(path: Path) -> list[Any]:
    try:
        content = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({first_line(error)})") from error
    if not isinstance(content, list):
        raise DataError(f"{path}: a JSON list was expected, not {type(content).__name__}")
    return content


def _check_counts(path: Path, table: pa.Table, key: str, used: pa.ChunkedArray | None) -> None:
    for name in (key, "phase", "run", "n", "correct"):
        if table[name].null_count:
            raise DataError(f"{path}, row {pc.index(pc.is_null(table[name]), True).as_py() + 1}: no {name}")
    for bad, words in (
        (pc.less(table["n"], 0), "n is {n}, below 0"),
        (pc.less(table["correct"], 0), "correct is {correct}, below 0"),
        (pc.greater(table["correct"], table["n"]), "correct is {correct}, above n, which is {n}"),
    ):
        row = pc.index(bad, True).as_py()
        if row >= 0:
            values = table.slice(row, 1).to_pylist()[0]
            raise DataError(f"{path}, row {row + 1}: {_cell(values, key)}: {words.format(**values)}")
    used_table = table if used is None else table.filter(used)
    row = _first_repeated([used_table[name] for name in (key, "phase", "run")])
    if row is not None:
        cell = _cell(used_table.slice(row, 1).to_pylist()[0], key)
        raise DataError(f"{path}: {cell}: this row is there more than once")


def _first_repeated(columns: Sequence[pa.ChunkedArray]) -> int | None:
    """The first row of a table that comes again further down, if any does."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        coded = column.combine_chunks().dictionary_encode()
        code *= len(coded.dictionary)
        code += coded.indices.to_numpy()
    order = np.argsort(code, kind="stable")
    again = np.flatnonzero(code[order[1:]] == code[order[:-1]])
    return int(order[again].min()) if len(again) else None


def _cell(values: Mapping[str, Any], key: str) -> str:
    return f"{key.removesuffix('_id')} {values[key]!r}, phase {values['phase']!r}, run {values['run']!r}"


def _read_csv(path: Path, text_columns: Sequence[str]) -> pa.Table:
    # As text first: Arrow's own conversion errors do not name the row.
    options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(text_columns, pa.string()))
    try:
        return pyarrow.csv.read_csv(path, convert_options=options)
    except OSError as error:
        raise unreadable(path, error) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable csv file: {first_line(error)}") from error


def _column_names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except OSError as error:
        raise unreadable(path, error) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {first_line(error)}") from error


def require_columns(path: Path, present: Sequence[str], wanted: Iterable[str]) -> None:
    """Raise DataError naming the first of `wanted` columns that is not `present`, or is there twice."""
    for name in wanted:
        if name not in present:
            raise DataError(f"{path}: column {name!r} is missing; the file has {', '.join(present) or 'no columns'}")
        if list(present).count(name) > 1:
            raise DataError(f"{path}: column {name!r} is there more than once")


def _cast(path: Path, name: str, column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    try:
        return column.cast(type_)
    except (pa.ArrowException, NotImplementedError) as error:
        row = _first_misfit(column, type_)
        where = f", row {row + 1}" if row is not None else ""
        found = repr(column[row].as_py()) if row is not None else str(column.type)
        raise DataError(f"{path}{where}: column {name!r} must be {type_}, not {found[:80]}") from error


def _first_misfit(column: pa.ChunkedArray, type_: pa.DataType) -> int | None:
    for row, value in enumerate(column):
        try:
            value.cast(type_)
        except pa.ArrowInvalid:
            return row
        except (pa.ArrowException, NotImplementedError):
            return None  # the type as a whole does not fit: no single row is to blame
    return None


def _arrow_type(annotation: Any) -> pa.DataType:
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not types.NoneType)
    if get_origin(annotation) is Literal:
        annotation = type(get_args(annotation)[0])
    return _ARROW[annotation]


def _record(where: str, model: type[R], content: Any) -> R:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{where}{_problem(model, error)}") from error


def _problem(model: type[Record], error: ValidationError) -> str:
    """The first error, as the end of a sentence; for a name that is missing or unknown, the one likely meant."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return f": {first['msg']}"
    *way, name = map(str, first["loc"])
    told = first["msg"]
    if first["type"] == "missing":
        unknown = {str(key) for key in first["input"]} - set(_fields(model, way))
        near = get_close_matches(name, unknown, 1)
        told = "it is missing" + "".join(f"; {other!r} is no field" for other in near)
    elif first["type"] == "extra_forbidden":
        near = get_close_matches(name, _fields(model, way), 1)
        told = "there is no such field" + "".join(f"; did you mean {other!r}?" for other in near)
    return f", field {'.'.join([*way, name])!r}: {told}"


def _fields(model: type[Record], way: Sequence[str]) -> Iterable[str]:
    """Names of the fields of the record that a field of a record holds, and so on; none if it holds anything else."""
    for name in way:
        inner = model.model_fields[name].annotation if name in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, Record)):
            return ()
        model = inner
    return model.model_fields


def _bytes(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
