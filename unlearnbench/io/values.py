"""Which values a column may have, the same in every format.

| kind | accepted | becomes |
|---|---|---|
| text | a string | the string |
| name | a string that is not blank, a whole number | a string |
| whole number | 32, 32.0, "32", "32.0" | int64 |
| number | 0.5, 1, "0.5"; NaN is not a value | float64 |
| flag | true, 1, 1.0, "true", "1" and their opposites | bool |

A null, and an empty csv cell where no text is expected, is not a value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.io.rows import Column, Rows, listed

LARGEST = 2**63 - 1


class Misfit(ValueError):
    """A value has the wrong type; the message is the end of a sentence that begins with the field's name."""


@dataclass(frozen=True)
class Kind:
    """One kind of values. `of` takes a value that is not null, and raises Misfit."""

    type: pa.DataType
    of: Callable[[Any], Any]


def shown(value: object) -> str:
    """A value in an error, cut where it is long."""
    return "null" if value is None else repr(value)[:60]


def _refuse(what: str, value: object) -> NoReturn:
    raise Misfit(f"{what} was expected, but it is {shown(value)}")


def encodes(text: str) -> bool:
    """Whether a string is Unicode text: half of a surrogate pair is not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def text(value: object) -> str:
    """A string as it is. Raises Misfit."""
    if not isinstance(value, str):
        _refuse("text", value)
    if not encodes(value):
        raise Misfit("half of a surrogate pair is not Unicode text; write it as UTF-8")
    return value


def name(value: object) -> str:
    """A string that is not blank, or a whole number as a string. Raises Misfit."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    found = text(value)
    if not found or found.isspace():
        raise Misfit("it is empty")
    return found


def whole_number(value: Any, least: int | None = 0) -> int | None:
    """A whole number of at least `least`; None for an empty string. Raises Misfit."""
    what = "a whole number" + ("" if least is None else f" from {least}")
    given = value
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = value if "_" in value else int(value)
        except ValueError:
            value = _float(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(what, given)
    if not -LARGEST - 1 <= value <= LARGEST or (least is not None and value < least):
        _refuse(what, given)
    return value


def number(value: object) -> float | None:
    """A number; None for NaN and for an empty string. Raises Misfit."""
    if isinstance(value, str):
        if not value.strip():
            return None
        found = _float(value)
        if found is None:
            _refuse("a number", value)
    elif isinstance(value, bool) or not isinstance(value, int | float):
        _refuse("a number", value)
    else:
        found = float(value)
    return None if math.isnan(found) else found


def flag(value: Any) -> bool | None:
    """True or false; None for NaN and for an empty string. Raises Misfit."""
    if isinstance(value, str):
        word = value.strip().lower()
        if not word:
            return None
        if word in ("true", "false"):
            return word == "true"
        number_in_it = _float(word)
        value = value if number_in_it is None else number_in_it
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    _refuse("true or false (or 1 or 0)", value)


def _float(word: str) -> float | None:
    """A number as data files write it: Python would also read 8_0, the form of an id, as 80."""
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


TEXT = Kind(pa.string(), text)
NAME = Kind(pa.string(), name)
NAME_OR_BLANK = Kind(pa.string(), lambda value: None if isinstance(value, str) and not value.strip() else name(value))
"""A name, and no value where a string is blank."""
WHOLE = Kind(pa.int64(), whole_number)
SIGNED = Kind(pa.int64(), lambda value: whole_number(value, None))
NUMBER = Kind(pa.float64(), number)
FLAG = Kind(pa.bool_(), flag)


# --- columns --------------------------------------------------------------------------------------------------


def column(rows: Rows, field: str, kind: Kind, *, required: bool = False) -> pa.Array:
    """A column of these rows with all values of one kind.

    Raises DataError naming file, row and field of the first value that is not, or that is missing if it is `required`.
    """
    values = rows.columns[field]
    found = _in_bulk(values, kind)
    if found is None:
        found = pa.array([_one(rows, field, index, value, kind) for index, value in _each(rows, field)], kind.type)
    if required and found.null_count:
        raise DataError(f"{rows.where(pc.index(pc.is_null(found), True).as_py())}, field {field!r}: it is missing")
    return found


def _in_bulk(values: Column, kind: Kind) -> pa.Array | None:
    """The column without a look at every value; None where one is needed."""
    if isinstance(values, list):
        if kind is not TEXT:
            return None
        try:
            return pa.array(values, pa.string())
        except (pa.ArrowException, UnicodeEncodeError, TypeError):
            return None
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), kind.type)
    try:
        if is_text(values.type):
            values = values.cast(pa.string())
            values.validate(full=True)
            if kind is TEXT:
                return values
        return None if pa.types.is_nested(values.type) else _by_different(values, kind)
    except (pa.ArrowException, UnicodeDecodeError, Misfit):
        return None


def _by_different(values: pa.Array, kind: Kind) -> pa.Array:
    """The column from its different values, which are fewer than its rows by far in all kinds but text."""
    coded = values.dictionary_encode()
    different = [None if value is None else kind.of(value) for value in coded.dictionary.to_pylist()]
    return pa.array(different, kind.type).take(coded.indices)


def is_text(type_: pa.DataType) -> bool:
    """Whether a column of this type holds strings: plain, large, views, or as a dictionary."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _each(rows: Rows, field: str) -> Sequence[tuple[int, Any]]:
    values = rows.columns[field]
    try:
        return list(enumerate(listed(values)))
    except UnicodeDecodeError:
        for index in range(len(values)):
            try:
                listed(values[index : index + 1])
            except UnicodeDecodeError as error:
                raise DataError(f"{rows.where(index)}, field {field!r}: it is not UTF-8") from error
        raise


def _one(rows: Rows, field: str, index: int, value: object, kind: Kind) -> Any:
    if value is None:
        return None
    try:
        return kind.of(value)
    except Misfit as error:
        raise DataError(f"{rows.where(index)}, field {field!r}: {error}") from error
