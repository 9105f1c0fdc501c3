"""What each built-in method last gained, as `make experiments` wrote it to methods/measured.json.

A figure counts only for what it was measured on: it is forgotten once the method's file or the split is another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from unlearnbench.errors import DataError, SplitError
from unlearnbench.io import files
from unlearnbench.methods import MethodSource
from unlearnbench.records import Interval, Record
from unlearnbench.splits import load_split

MEASURED = Path(__file__).with_name("measured.json")


class Measured(Record):
    """A method's conversion gain over the null control at one budget. `source_hash` is that of its file."""

    split: str = Field(min_length=1)
    split_hash: str = Field(pattern="^[0-9a-f]{64}$")
    source_hash: str = Field(pattern="^[0-9a-f]{64}$")
    budget: float = Field(gt=0)
    seeds: int = Field(ge=1)
    gain: float = Field(ge=-1, le=1)
    interval_families: Interval | None


_FILE = TypeAdapter(dict[str, Measured])


def read_measured(path: Path = MEASURED) -> dict[str, Measured]:
    """By method; empty where nothing was measured. Raises DataError naming file, method and field."""
    if not path.is_file():
        return {}
    try:
        return _FILE.validate_json(path.read_bytes())
    except OSError as error:
        raise files.unreadable(path, error) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ", ".join(f"{noun} {part!r}" for noun, part in zip(("method", "field"), first["loc"], strict=False))
        raise DataError(
            f"{path}{', ' if where else ''}{where}: {first['msg']}; write it again with `make experiments`"
        ) from error


def write_measured(found: Mapping[str, Measured], path: Path = MEASURED) -> None:
    """By method, in alphabetical order. Raises RunError as `tables.atomic` does."""
    rows = {name: found[name].model_dump(mode="json") for name in sorted(found)}
    files.write_text(path, json.dumps(rows, indent=1) + "\n")


def present_gain(source: MethodSource, measured: Mapping[str, Measured]) -> float | None:
    """The gain of a method as it is now, on the split as it is now; None if that was not measured."""
    last = measured_gain(source, measured)
    return None if last is None else last.gain


def measured_gain(source: MethodSource, measured: Mapping[str, Measured]) -> Measured | None:
    """What was measured of a method as it is now, on the split as it is now."""
    last = measured.get(source.name)
    if last is None or last.source_hash != source.hash or last.split_hash != _present(last.split):
        return None
    return last


@cache
def _present(split: str) -> str | None:
    try:
        return load_split(split).hash
    except SplitError:
        return None
