"""Untrusted JSON, names, sources and parquet, checked for infinite numbers, repeated keys, deep nesting, hidden or
look-alike characters, and more data than announced."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unlearnbench.errors import DataError

LONGEST_TEXT = 2_000
LONGEST_SHOWN = 100
"""Characters of a name that the board shows."""
LONGEST_NAME = 1_000
"""Bytes of a text in a table that names something."""
LARGEST_NUMBER = 2**63
MOST_ROW_GROUPS = 10_000
LARGEST_FOOTER = 1 << 20
"""Bytes of a parquet file's footer: honest ones, without key-value metadata, have some thousand."""

_ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_URL = re.compile(rf"https?://{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?(?:/[A-Za-z0-9._~/?#@!$*+,;=%-]*)?")
_WORD = re.compile(r"[^\W\d_]+")
_LOOK_ALIKES = "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf"
"""Letters of Greek that are drawn as Latin ones. Others stand in honest names, as a mu before a P."""
_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


# --- JSON -----------------------------------------------------------------------------------------------------


def read_json(where: str, data: bytes) -> dict[str, Any]:
    """The object in `data`. Raises DataError beginning with `where`: not UTF-8, no JSON, no object, a name twice,
    NaN or infinity, numbers and texts beyond all measure, control characters or markup in a text."""
    try:
        found = json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is not UTF-8; write the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({str(error).splitlines()[0]:.200})") from error
    if not isinstance(found, dict):
        raise DataError(f"{where}: a JSON object was expected, not {type(found).__name__}")
    require_plain(where, found)
    return found


def require_plain(where: str, value: Any, *, markup: bool = False) -> None:
    """Raise DataError where a text in `value` holds control or hidden characters or (unless `markup`) angle brackets,
    or a number is beyond 64 bits. Values under `settings` are a method's own and may hold markup: pages escape it."""
    if isinstance(value, str):
        _require_plain_text(where, value, markup=markup)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _require_plain_text(f"{where}, a field's name", key, markup=False)
            require_plain(f"{where}, field {key!r}", inner, markup=markup or key == "settings")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            require_plain(f"{where}[{place}]", inner, markup=markup)
    elif isinstance(value, int | float) and abs(value) >= LARGEST_NUMBER:
        raise DataError(f"{where}: {value!r:.40} is beyond all numbers that are counted here")


def _require_plain_text(where: str, text: str, *, markup: bool) -> None:
    if len(text) > LONGEST_TEXT:
        raise DataError(f"{where}: a text of {len(text):,} characters, and at most {LONGEST_TEXT:,} are taken")
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            raise DataError(f"{where}: it holds the hidden character U+{ord(character):04X}; write plain text")
        if character in "<>" and not markup:
            raise DataError(f"{where}: {text!r:.60} holds {character!r}, as markup or a script would; write plain text")


def require_url(where: str, url: str) -> None:
    """Raise DataError unless `url` is a plain http(s) address."""
    if len(url) > LONGEST_TEXT or not _URL.fullmatch(url):
        raise DataError(f"{where}: {url!r:.80} is not a plain address that begins with https://; give one, or none")


def require_name(where: str, name: str) -> None:
    """Raise DataError unless `name` is what it looks like: seen at all, of plain letters, of one alphabet a word."""
    if len(name) > LONGEST_SHOWN:
        raise DataError(f"{where}: {len(name):,} characters, and a name has at most {LONGEST_SHOWN}; shorten it")
    if name != name.strip() or not any(unicodedata.category(character)[0] in "LN" for character in name):
        raise DataError(f"{where}: {name!r} begins or ends with a space, or has neither letter nor digit")
    if unicodedata.normalize("NFKC", name) != name or re.search(r"[\u115f\u1160\u2800]", name):
        raise DataError(f"{where}: {name!a} has letters or spaces that only look like others; write the plain ones")
    marks = "".join("m" if unicodedata.category(character)[0] == "M" else " " for character in name)
    if "mmm" in marks:
        raise DataError(f"{where}: {name!a} has three marks over one letter; write plain text")
    for word in _WORD.findall(name):
        latin = any(unicodedata.name(letter, "").startswith("LATIN") for letter in word)
        if latin and any(letter in _LOOK_ALIKES or _is_foreign(letter) for letter in word):
            raise DataError(f"{where}: the word {word!a} mixes alphabets that look alike; write it in one")


def _is_foreign(letter: str) -> bool:
    """Whether it is of an alphabet whose letters are drawn as those of Latin."""
    return unicodedata.name(letter, "").startswith(("CYRILLIC", "CHEROKEE", "ARMENIAN", "COPTIC", "LISU"))


def require_source(where: str, content: bytes) -> None:
    """Raise DataError unless `content` is Python whose readers see what would be run; it is parsed, and not run."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    if "\0" in text:
        raise DataError(f"{where}: it holds a null character, so it is not a source; leave it out")
    if hidden := _REORDERING.search(text):
        raise DataError(f"{where}: it holds U+{ord(hidden[0]):04X}, which shows code in another order; leave it out")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        if encoding not in ("utf-8", "utf-8-sig"):
            raise DataError(f"{where}: it says that it is written in {encoding}, and a source is read as UTF-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{where}: it is not Python ({str(error).splitlines()[0]:.100})") from error
    except (RecursionError, MemoryError) as error:
        raise DataError(f"{where}: it is nested deeper than Python reads; no method needs that") from error


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def _finite(word: str) -> float:
    if not math.isfinite(number := float(word)):
        raise ValueError(f"{word:.40} is not a finite number")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice!r:.60} is there twice")
    return found


# --- parquet --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """What a table may announce before a row of it is read."""

    most: int
    """Rows."""
    rows: int | None = None
    """Rows that it must have, where that is known."""
    nulls: frozenset[str] = frozenset()
    """Columns in which a value may be missing."""
    texts: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the longest text of a column that does not hold names."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Values of the longest list of a column of lists."""


def read_table(where: str, data: bytes, schema: pa.Schema, bounds: Bounds) -> pa.Table:
    """The table in `data`, of exactly this schema; texts come as dictionaries, so that a text repeated a million times
    takes no more memory than once.

    The file's footer must announce what `bounds` allows, plain encodings and the schema before a row is read. Raises
    DataError beginning with `where`, which names row and field: another schema or size, a null in a column that may
    have none, text that is not UTF-8, and a text or list longer than allowed.
    """
    texts = [one.name for one in schema if pa.types.is_string(one.type)]
    footer = int.from_bytes(data[-8:-4], "little")
    if footer > LARGEST_FOOTER:
        raise DataError(
            f"{where} has a footer of {footer:,} bytes; at most {LARGEST_FOOTER:,} are allowed: leave out its metadata"
        )
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            _check_footer(where, file, schema, bounds, len(data))
            announced = file.metadata.num_rows
        with pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts) as file:
            table = file.read(use_threads=False)
            for name in texts:
                table = table.set_column(
                    table.column_names.index(name), name, table[name].unify_dictionaries().combine_chunks()
                )
    except MemoryError as error:  # Arrow's own is one
        raise DataError(f"{where} takes more memory than any honest table of its rows; create it again") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        told = (str(error).splitlines() or ["damaged"])[0]
        raise DataError(f"{where} is not a readable parquet file: {told:.200}") from error
    if table.num_rows != announced:
        raise DataError(f"{where} holds {table.num_rows:,} rows and announces {announced:,}")
    for name in schema.names:
        _check_column(f"{where}, field {name!r}", name, table[name], bounds)
    return table


def _check_column(where: str, name: str, column: pa.ChunkedArray, bounds: Bounds) -> None:
    if column.null_count and name not in bounds.nulls:
        raise DataError(f"{where}: a value is missing, and every row needs one")
    for chunk in column.chunks:
        _require_valid(where, chunk)
        if pa.types.is_list(chunk.type):
            if chunk.flatten().null_count:
                raise DataError(f"{where}: a value in a list is missing, and every one is needed")
            longest = pc.max(pc.list_value_length(chunk)).as_py() or 0
            if longest > (most := bounds.values.get(name, 0)):
                raise DataError(f"{where}: a list of {longest:,} values; at most {most:,} are allowed")
        if not pa.types.is_dictionary(chunk.type):
            continue
        _require_valid(where, chunk.dictionary)
        longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
        if longest > (most := bounds.texts.get(name, LONGEST_NAME)):
            what = "no policy of the split writes so much" if name in bounds.texts else "which is not a name"
            raise DataError(f"{where}: a text of {longest:,} bytes (at most {most:,} are allowed), {what}")


def texts_of(column: pa.ChunkedArray) -> list[str]:
    """The texts of a column that holds them as a dictionary, each text in memory once however often it is there."""
    found: list[str] = []
    for chunk in column.chunks:
        known = chunk.dictionary.to_pylist()
        found += [known[code] for code in chunk.indices.to_pylist()]
    return found


def _check_footer(where: str, file: pq.ParquetFile, schema: pa.Schema, bounds: Bounds, size: int) -> None:
    metadata = file.metadata
    announced = int(metadata.num_rows)
    if announced > bounds.most:
        raise DataError(
            f"{where} announces {announced:,} rows; at most {bounds.most:,} are allowed, so none of them was read"
        )
    if bounds.rows is not None and announced != bounds.rows:
        raise DataError(f"{where} announces {announced:,} rows, and by the run's configuration it has {bounds.rows:,}")
    if metadata.num_row_groups > MOST_ROW_GROUPS:
        raise DataError(f"{where} has {metadata.num_row_groups:,} row groups, more than {MOST_ROW_GROUPS:,}")
    found = pa.schema([(one.name, _plain_type(one.type)) for one in file.schema_arrow])
    if found != schema:
        told = ", ".join(f"{one.name} {one.type}" for one in schema)
        raise DataError(f"{where} has other columns than a bundle of this version: {told}")
    unpacked: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            if strange := set(column.encodings) - _ENCODINGS:
                raise DataError(
                    f"{where}, column {column.path_in_schema!r}: the encoding {sorted(strange)[0]} is not allowed"
                )
            if column.total_uncompressed_size > max(64 << 20, 1000 * size):
                raise DataError(
                    f"{where}, column {column.path_in_schema!r}: {column.total_uncompressed_size:,} bytes unpacked "
                    f"from a file of {size:,}, as no honest table has"
                )
            name = column.path_in_schema.split(".")[0]
            unpacked[name] += column.total_uncompressed_size
            values[name] += column.num_values
    for name, longest in bounds.texts.items():
        if unpacked[name] > (most := announced * (longest + 8) + (1 << 20)):
            raise DataError(
                f"{where}, field {name!r}: {unpacked[name]:,} bytes of text; {announced:,} rows have at most {most:,}"
            )
    for name, longest in bounds.values.items():
        if values[name] > announced * max(longest, 1):
            raise DataError(
                f"{where}, field {name!r}: {values[name]:,} values; {announced:,} rows have at most "
                f"{announced * longest:,}"
            )


def _plain_type(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _require_valid(where: str, values: pa.Array) -> None:
    """Texts are UTF-8, and codes of a dictionary are in it: Arrow reads neither itself."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        told = "a text is not UTF-8" if "UTF8" in str(error) else f"damaged ({str(error).splitlines()[0]:.100})"
        raise DataError(f"{where}: {told}; write the file as UTF-8") from error
