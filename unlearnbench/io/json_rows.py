"""Rows of JSON: one object per line, or one list of objects, whatever the file is called.

Blocks are parsed by Arrow, with the types that the first rows suggest. Where Arrow refuses a block, that block is
parsed again row by row by Python's json, which names the row that is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from unlearnbench.errors import DataError, first_line
from unlearnbench.io import streams

ROWS = 8_192
PEEK = 64
"""Rows that types are guessed from. A wrong guess costs time, and changes nothing else."""
CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

Object = dict[str, Any]
Part = tuple[Sequence[int], pa.Table | list[Object]]
"""Numbers of rows that follow each other, and the rows."""
Parse = Callable[[bytes, int, Callable[[], Iterator[Object]]], pa.Table | None]
"""Takes a block with one object a line, how many there are, and the same objects one by one; None: not that way."""

_BETWEEN = re.compile(rb"\}\s*,\s*\{")
_decode = json.JSONDecoder().raw_decode


def read_json(path: Path, wanted: Sequence[str] | None) -> Iterator[tuple[Sequence[int], Mapping[str, Any], float]]:
    """Rows as columns: their numbers, the values of each wanted column, the share of the file read.

    Raises DataError naming file and row of what is not a JSON object.
    """
    parse = _ByArrow(wanted) if wanted else _never
    with streams.opened(path) as stream:
        for numbers, rows in _parts(path, stream, parse):
            if isinstance(rows, pa.Table):
                columns: Mapping[str, Any] = {name: _flat(rows, name) for name in wanted or ()}
            else:
                names = wanted if wanted is not None else list(dict.fromkeys(name for row in rows for name in row))
                columns = {name: [value_at(row, name) for row in rows] for name in names}
            yield numbers, columns, stream.done


def read_objects(path: Path) -> Iterator[tuple[int, Object, float]]:
    """Each row with its number, and the share of the file read. Raises DataError as `read_json` does."""
    with streams.opened(path) as stream:
        for numbers, rows in _parts(path, stream, _never, lines=1):
            for number, row in zip(numbers, rows, strict=True):
                yield number, row, stream.done


def first_objects(path: Path) -> list[Object]:
    """The first rows of a file, at most PEEK. Raises DataError as `read_json` does."""
    with streams.opened(path) as stream:
        for _, rows in _parts(path, stream, _never, PEEK):
            return list(rows)
    return []


def value_at(row: Mapping[str, Any], name: str) -> Any:
    """A field of a row, by its name or by the path to it (`extra_info.item_id`); None where there is none."""
    if name in row or "." not in name:
        return row.get(name)
    found: Any = row
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def json_object(where: str, line: bytes) -> Object:
    """The object on a line of jsonl. Raises DataError that begins with `where` (file and row)."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({first_line(error)})") from error
    return _object(where, row)


def objects(source: Path, first: int, lines: Iterable[bytes]) -> Iterator[tuple[int, Object]]:
    """Each row with the number of its line; blank lines are skipped. Raises DataError naming file and row."""
    for number, line in enumerate(lines, start=first):
        try:
            text = line.decode("utf-8")
            row, end = _decode(text)
        except (ValueError, RecursionError):
            row, end, text = None, 0, ""
        if end != len(text) or not isinstance(row, dict):  # unusual: spaces around it, or an error to be named
            if not line.strip():
                continue
            row = json_object(f"{source}, row {number}", line)
        yield number, row


def _object(where: str, row: object) -> Object:
    if not isinstance(row, dict):
        raise DataError(f"{where}: a JSON object was expected, not {type(row).__name__}")
    return row


# --- lines and lists ------------------------------------------------------------------------------------------


def _parts(
    path: Path, stream: streams.Stream, parse: Parse, most: int = ROWS, lines: int | None = None
) -> Iterator[Part]:
    """Rows in parts; of rows that Arrow does not parse at most `most` at once, or of lines `lines`: where
    thousands of nested objects live at once, the garbage collector takes more time than parsing."""
    pieces = streams.pieces(stream)
    first = next((piece for piece in pieces if piece.strip()), b"")
    start = first.lstrip()
    if start.startswith(b"["):
        return _list_parts(path, chain((start,), pieces), parse, most)
    blocks = streams.blocks(path, chain((first,), pieces))
    if streams.format_of(path) == ".json":
        known = list(islice(blocks, 2))
        whole = b"".join(known)
        line, _, after = whole.lstrip().partition(b"\n")
        if not after.strip() or _why_not_json(line):
            if why := _why_not_json(whole):
                raise DataError(f"{path}: not valid JSON ({why})")
            raise DataError(f"{path}: a JSON list was expected, or several lines of one object each; write one of them")
        blocks = chain(known, blocks)
    return _line_parts(path, blocks, parse, lines or most)


def _why_not_json(text: bytes) -> str | None:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return first_line(error)
    return None


def _line_parts(path: Path, blocks: Iterable[bytes], parse: Parse, most: int) -> Iterator[Part]:
    first = 1
    for block in blocks:
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        table = parse(block, lines, partial(_rows_of_lines, path, first, block))
        if table is not None:
            yield range(first, first + lines), table
        else:
            yield from _numbered(objects(path, first, _split(block)), most)
        first += lines


def _split(block: bytes) -> Iterator[bytes]:
    """The lines of a block, one by one: often only the first are wanted."""
    return (line.removesuffix(b"\n") for line in BytesIO(block))


def _rows_of_lines(path: Path, first: int, block: bytes) -> Iterator[Object]:
    return (row for _, row in objects(path, first, _split(block)))


def _numbered(found: Iterator[tuple[int, Object]], most: int) -> Iterator[Part]:
    """Rows in parts of limited size. If a row is invalid, those before it come first, as from any stream."""
    wrong: DataError | None = None
    while wrong is None:
        numbered: list[tuple[int, Object]] = []
        try:
            numbered.extend(islice(found, most))
        except DataError as error:
            wrong = error
        if not numbered and wrong is None:
            return
        if numbered:
            yield [number for number, _ in numbered], [row for _, row in numbered]
    raise wrong


def _list_parts(path: Path, blocks: Iterable[bytes], parse: Parse, most: int) -> Iterator[Part]:
    """Parts of one list. A part for Arrow ends where an object seems to end and another to begin; where that was
    inside an object, Arrow refuses both halves."""
    rest, number, ended = b"", 1, False
    for place, block in enumerate(blocks):
        rest = rest.lstrip() + (block if place else block.removeprefix(b"["))
        cut = None if ended else _last_between(rest)
        if cut is not None:
            part, between = rest[: cut.start() + 1], cut.group()
            cuts = part.count(between)
            table = parse(part.replace(between, b"}\n{"), cuts + 1, partial(_rows_of_list, part))
            if table is not None:
                yield range(number, number + cuts + 1), table
                number, rest = number + cuts + 1, rest[cut.end() - 1 :]
                continue
        more = not ended
        while more:
            found, rest, ended = _decoded(rest, most, inside=number > 1)
            yield from _numbered(_checked(path, number, found), most)
            number += len(found)
            more = len(found) == most
        if len(rest) > streams.LINE_LIMIT:
            raise streams.row_too_long(path)
    if not ended:
        found, rest, ended = _decoded(rest, most, inside=number > 1)
        yield from _numbered(_checked(path, number, found), most)
        number += len(found)
    if not ended or rest.strip():
        raise DataError(f"{path}, row {number}: not valid JSON ({_why(rest, ended)})")


def _last_between(content: bytes) -> re.Match[bytes] | None:
    """Where the last object seems to begin, with the end of the one before it."""
    end = content.rfind(b"}")
    while end >= 0 and not (found := _BETWEEN.match(content, end)):
        end = content.rfind(b"}", 0, end)
    return found if end >= 0 else None


def _rows_of_list(content: bytes) -> Iterator[Object]:
    return iter(_decoded(content, PEEK, inside=False)[0])


def _checked(path: Path, first: int, found: Sequence[Any]) -> Iterator[tuple[int, Object]]:
    for number, row in enumerate(found, start=first):
        yield number, _object(f"{path}, row {number}", row)


def _decoded(content: bytes, most: int, *, inside: bool) -> tuple[list[Any], bytes, bool]:
    """Complete elements at the start of a list's content up to a limit, the rest, and whether the list ended.

    `inside`: other elements are before them, so that a comma may come first.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        text = content[: error.start].decode("utf-8")  # the block may end inside of a character
    found: list[Any] = []
    place, ended = 0, False
    while len(found) < most:
        place = _after_blanks(text, place)
        if (found or inside) and text[place : place + 1] == ",":
            place = _after_blanks(text, place + 1)
        if text[place : place + 1] == "]":
            place, ended = place + 1, True
            break
        try:
            row, end = _decode(text, place)
        except (ValueError, RecursionError):
            break
        found.append(row)
        place = end
    return found, content[len(text[:place].encode()) :], ended


def _after_blanks(text: str, place: int) -> int:
    while text[place : place + 1].isspace():
        place += 1
    return place


def _why(rest: bytes, ended: bool) -> str:
    if ended:
        return "there is more after the end of the list"
    if not rest.strip(b", \t\r\n"):
        return "the list does not end"
    try:
        _decode(rest.decode("utf-8").lstrip())
    except (ValueError, RecursionError) as error:
        return first_line(error)
    return "the list does not end"


# --- by Arrow -------------------------------------------------------------------------------------------------


def _never(block: bytes, count: int, rows: Callable[[], Iterator[Object]]) -> pa.Table | None:
    return None


class _ByArrow:
    """Parses blocks into the wanted columns, with types guessed from the first rows of the first block."""

    def __init__(self, wanted: Sequence[str]) -> None:
        self._wanted = wanted
        self._schema: pa.Schema | None = None
        self._guessed = False

    def __call__(self, block: bytes, count: int, rows: Callable[[], Iterator[Object]]) -> pa.Table | None:
        if not self._guessed:
            try:
                self._schema = _guess(list(islice(rows(), PEEK)), self._wanted)
            except DataError:
                return None  # reading the block row by row will report what is wrong
            self._guessed = True
        if self._schema is None:
            return None
        options = pyarrow.json.ParseOptions(
            explicit_schema=self._schema, unexpected_field_behavior="ignore", newlines_in_values=True
        )
        try:
            if not block.isascii():
                block.decode("utf-8")  # Arrow does not look
            table = pyarrow.json.read_json(
                BytesIO(block), pyarrow.json.ReadOptions(use_threads=False, block_size=len(block) + 1), options
            )
        except (pa.ArrowException, UnicodeDecodeError):
            return None
        return table if table.num_rows == count else None


def _guess(rows: Sequence[Object], wanted: Sequence[str]) -> pa.Schema | None:
    """Types of the wanted columns; None where the rows need Python to be read."""
    if not _are_objects(rows):
        return None
    fields: dict[str, pa.DataType] = {}
    inner: dict[str, list[pa.Field]] = {}
    for name in wanted:
        outer, _, last = name.partition(".")
        nested = bool(last) and not any(name in row for row in rows)
        type_ = _type_of([value_at(row, name) for row in rows])
        if type_ is None or "." in last or (nested and not _are_objects([row.get(outer) for row in rows])):
            return None
        if nested:
            inner.setdefault(outer, []).append(pa.field(last, type_))
        else:
            fields[name] = type_
    if inner.keys() & fields.keys():
        return None
    return pa.schema([*fields.items(), *((name, pa.struct(of)) for name, of in inner.items())])


def _are_objects(values: Sequence[Any]) -> bool:
    return all(value is None or isinstance(value, dict) for value in values)


def _type_of(values: Sequence[Any]) -> pa.DataType | None:
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if len(kinds) > 1:
        return None
    kind = next(iter(kinds), str)
    if kind is not list:
        return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}.get(kind)
    elements = [element for value in present for element in value]
    if all(type(element) is str for element in elements):
        return pa.list_(pa.string())
    if all(type(element) is int for element in elements):
        return pa.list_(pa.int64())
    if all(_is_plain_message(element) for element in elements):
        return CHAT
    return None


def _is_plain_message(element: object) -> bool:
    return (
        isinstance(element, dict) and isinstance(element.get("role"), str) and isinstance(element.get("content"), str)
    )


def _flat(table: pa.Table, name: str) -> pa.Array:
    if name in table.column_names:
        return table[name].combine_chunks()
    outer, _, last = name.partition(".")
    return pc.struct_field(table[outer].combine_chunks(), last)
