"""Tables and records as files: written atomically as parquet, json and jsonl; read in any format of `rows.py`, and
yaml, with every error naming file, row and field."""

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
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from unlearnbench.errors import DataError, first_line
from unlearnbench.io import chats, json_rows, rows, streams, values
from unlearnbench.io.files import atomic, unreadable, write_json, write_text
from unlearnbench.io.rows import Rows
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

LABEL_PHASES = ("base", "base_fresh", "train", "trace", "after", "certify")
"""Phases of counts that a curation makes (PROTOCOL 2)."""
PHASES = (*LABEL_PHASES, "start", "eval", "twin", "canary")
"""All phases: those of a curation, and those of a run that is scored."""

MOST_ROLLOUTS = 2**31 - 1
"""Of one cell of counts; so sums over a file stay exact as integers and as floating-point numbers."""


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

    Raises DataError naming file and column if the file is not parquet, lacks a column, or holds one whose values do
    not fit the type.
    """
    try:
        with pq.ParquetFile(path) as file:
            if columns is None:
                return file.read()
            rows.require_columns(path, file.schema_arrow.names, columns)
            table = file.read(columns=list(columns))
    except OSError as error:
        raise unreadable(path, error) from error
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file: {first_line(error)}") from error
    return pa.table({name: _cast(path, name, table[name], type_) for name, type_ in columns.items()})


def read_records(path: Path, model: type[R], names: Mapping[str, Sequence[str]] | None = None) -> tuple[R, ...]:
    """The records in a file of any format that `rows.read_rows` reads.

    Values are taken as `values.py` says; a chat where a text is expected is what the user asked last; a null, and a
    column that is absent, is the field's default. `names` are other columns that a field may be read from. Columns
    that the record does not have are ignored, unless one is called almost as a field that is absent, which is a typing
    error. Raises DataError naming file, row (from 1) and field.
    """
    names = names or {}
    if not streams.is_json(path):
        present = rows.column_names(path)
        required = [name for name, field in model.model_fields.items() if field.is_required()]
        rows.require_columns(path, present, [name for name in required if not set(names.get(name, ())) & set(present)])
    return tuple(_lenient(where, model, row, names) for where, row in rows.read_dicts(path))


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
    return (row for _, row, _ in json_rows.read_objects(Path(path)))


def read_counts(
    path: Path,
    key: Literal["item_id", "twin_id"] = "item_id",
    *,
    phases: Sequence[str] | None = None,
    best: bool = True,
) -> pa.Table:
    """Counts in any format that `rows.read_rows` reads: the columns of COUNTS, and `best` (float64) if there is one.

    With `phases`, rows of other phases are left out, whatever they hold, and so is `best` outside phase train.
    Raises DataError naming file, row and column, or item, phase and run: an unknown column or phase, a missing value,
    a value of another kind, n < 0, correct < 0, correct > n, a repeated (item, phase, run).
    """
    path, schema = Path(path), _counts_schema(key)
    present = rows.column_names(path)
    rows.require_columns(path, present, schema.names)
    _refuse_unknown(path, present, [*schema.names, "best"])
    names = [*schema.names, *(["best"] if best and "best" in present else [])]
    parts = [_counts(batch, key, names, phases) for batch in rows.read_rows(path, names)]
    empty = pa.schema([*schema, *([("best", pa.float64())] if "best" in names else [])]).empty_table()
    table = pa.concat_tables([empty, *parts])
    row = _first_repeated([table[name] for name in (key, "phase", "run")])
    if row is not None:
        cell = _cell(table.slice(row, 1).to_pylist()[0], key)
        raise DataError(f"{path}: {cell}: this row is there more than once")
    return table


def _refuse_unknown(path: Path, present: Sequence[str], known: Sequence[str]) -> None:
    for name in present:
        row_numbers = name in ("", "index", "__index_level_0__") or name.startswith("Unnamed:")  # as pandas writes them
        if name not in known and "." not in name and not row_numbers:
            near = _meant(name, known)
            raise DataError(f"{path}: there is no column {name!r} in counts{near}; they have {', '.join(known)}")


def _meant(name: str, known: Sequence[str]) -> str:
    return "".join(f" (did you mean {near!r}?)" for near in get_close_matches(name, known, 1))


def _counts(batch: Rows, key: str, names: Sequence[str], phases: Sequence[str] | None) -> pa.Table:
    """The counts of some rows, checked but for repeated ones."""
    phase = values.column(batch, "phase", values.NAME, required=True)
    _check_phases(batch, phase)
    if phases is not None:
        used = pc.is_in(phase, pa.array(phases, pa.string()))
        if not pc.all(used).as_py():
            batch, phase = _only(batch, used), phase.filter(used)
    columns = {"phase": phase}
    for name, kind in ((key, values.NAME), ("run", values.NAME), ("n", values.SIGNED), ("correct", values.SIGNED)):
        columns[name] = values.column(batch, name, kind, required=True)
    table = pa.table({name: columns[name] for name in names if name != "best"})
    _check_counts(batch, table, key)
    if "best" in names:
        table = table.append_column("best", _best(batch, None if phases is None else pc.equal(phase, "train")))
    return table


def _only(batch: Rows, used: pa.Array) -> Rows:
    places = np.flatnonzero(used.to_numpy(zero_copy_only=False))
    kept = {
        name: [column[place] for place in places.tolist()] if isinstance(column, list) else column.filter(used)
        for name, column in batch.columns.items()
    }
    return Rows(batch.source, kept, [batch.numbers[place] for place in places.tolist()], batch.done)


def _check_phases(batch: Rows, phase: pa.Array) -> None:
    unknown = pc.index(pc.is_in(phase, pa.array(PHASES)), False).as_py()
    if unknown >= 0:
        found = phase[unknown].as_py()
        raise DataError(
            f"{batch.where(unknown)}, field 'phase': there is no phase {found!r}{_meant(found, PHASES)}; phases are "
            f"{', '.join(PHASES)}"
        )


def _best(batch: Rows, used: pa.Array | None) -> pa.Array:
    """`best` as float64, null where there is none or where it is not used; a value outside [0, 1] is refused."""
    if used is not None:
        places = used.to_pylist()
        kept = [value if use else None for value, use in zip(rows.listed(batch.columns["best"]), places, strict=True)]
        batch = Rows(batch.source, {"best": kept}, batch.numbers, batch.done)
    best = values.column(batch, "best", values.NUMBER)
    row = pc.index(pc.or_(pc.less(best, 0), pc.greater(best, 1)), True).as_py()
    if row >= 0:
        found = best[row].as_py()
        raise DataError(f"{batch.where(row)}, field 'best': a mean reward from 0 to 1 was expected, but it is {found}")
    return best


def record_schema(model: type[Record]) -> pa.Schema:
    """The parquet schema of a flat record: str, int, float, bool, Literal, and each of them or None."""
    return pa.schema([(name, _arrow_type(field.annotation)) for name, field in model.model_fields.items()])


# --- parts of the readers, and the errors' words ---------------------------------------------------------------


def _check_counts(batch: Rows, table: pa.Table, key: str) -> None:
    for bad, words in (
        (pc.less(table["n"], 0), "n is {n}, below 0"),
        (pc.less(table["correct"], 0), "correct is {correct}, below 0"),
        (pc.greater(table["correct"], table["n"]), "correct is {correct}, above n, which is {n}"),
        (pc.greater(table["n"], MOST_ROLLOUTS), f"n is {{n}}, more rollouts than any run has (above {MOST_ROLLOUTS})"),
    ):
        row = pc.index(bad, True).as_py()
        if row >= 0:
            found = table.slice(row, 1).to_pylist()[0]
            raise DataError(f"{batch.where(row)}: {_cell(found, key)}: {words.format(**found)}")


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


def _cell(found: Mapping[str, Any], key: str) -> str:
    return f"{key.removesuffix('_id')} {found[key]!r}, phase {found['phase']!r}, run {found['run']!r}"


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


def _lenient(where: str, model: type[R], row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> R:
    """The record in a row of somebody's table."""
    content = {}
    for name, field in model.model_fields.items():
        columns = (name, *names.get(name, ()))
        value = next((value for column in columns if (value := json_rows.value_at(row, column)) is not None), None)
        if value is None or (value == "" and not field.is_required() and field.annotation is not str):
            continue
        try:
            content[name] = _value(name, field.annotation, value)
        except values.Misfit as error:
            raise DataError(f"{where}, field {name!r}: {error}") from error
    unknown = [name for name in row if name not in model.model_fields]
    try:
        record = model.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{where}{_problem(model, error, unknown)}") from error
    absent = [name for name in model.model_fields if name not in row]
    for name in unknown:
        for near in get_close_matches(name, absent, 1, 0.8):
            raise DataError(f"{where}, field {name!r}: there is no such field; did you mean {near!r}?")
    return record


def _value(name: str, annotation: Any, value: Any) -> Any:
    """A value as its field wants it, where a table has it in another form. Raises Misfit."""
    kinds = [part for part in get_args(annotation) or (annotation,) if part is not types.NoneType]
    if kinds == [str]:
        if chats.is_chat(value):
            return chats.asked(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return values.name(value) if float(value).is_integer() else repr(value)
        return values.name(value) if name.endswith("_id") or name == "prompt" else value
    readers: Mapping[Any, Any] = {
        bool: values.flag,
        int: lambda one: values.whole_number(one, None),
        float: values.number,
    }
    return readers[kinds[0]](value) if len(kinds) == 1 and kinds[0] in readers else value


def _record(where: str, model: type[R], content: Any) -> R:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{where}{_problem(model, error)}") from error


def _problem(model: type[Record], error: ValidationError, others: Sequence[str] = ()) -> str:
    """The first error, as the end of a sentence; for a name that is missing or unknown, the one likely meant.

    `others` are names beside the fields that the file has.
    """
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return f": {first['msg']}"
    *way, name = map(str, first["loc"])
    told = first["msg"]
    if first["type"] == "missing":
        unknown = {*map(str, first["input"]), *others} - set(_fields(model, way))
        near = get_close_matches(name, sorted(unknown), 1)
        told = "it is missing" + "".join(f"; {other!r} is not a field" for other in near)
    elif first["type"] == "extra_forbidden":
        near = get_close_matches(name, _fields(model, way), 1)
        told = "there is no such field" + "".join(f"; did you mean {other!r}?" for other in near)
    return f", field {'.'.join([*way, name])!r}: {told}"


def _fields(model: type[Record], way: Sequence[str]) -> Iterable[str]:
    """Names of the fields of a nested record, recursively; none if the field is not a record."""
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
