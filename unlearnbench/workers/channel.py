"""A pipe between the harness and a worker: a line of JSON, then the arrays that it announces as raw bytes.

Either side may be hostile or broken, so whatever does not parse is one sentence (`ChannelError`).
"""

from __future__ import annotations

import json
import math
from typing import IO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from unlearnbench.errors import UnlearnBenchError
from unlearnbench.workers.messages import MESSAGES, Event, Request

LINE = 1 << 30
"""Bytes that a message's line may have: the texts of a step of the largest policies take a tenth of it."""
ARRAYS = 1 << 32
Arrays = tuple[bytes, ...]


class ChannelError(UnlearnBenchError):
    """The other side sent something that is not a message."""


def send(file: IO[bytes], message: BaseModel, *arrays: NDArray[np.generic]) -> None:
    """Write one message. Raises OSError where nobody reads any more."""
    file.write(pack(message.model_dump(mode="json"), tuple(np.ascontiguousarray(array).tobytes() for array in arrays)))
    file.flush()


def pack(message: object, arrays: Arrays) -> bytes:
    """One message as it is written."""
    head = {"message": message, "arrays": [len(part) for part in arrays]}
    return b"".join([json.dumps(head).encode(), b"\n", *arrays])


def receive_json(file: IO[bytes]) -> tuple[object, Arrays] | None:
    """The next message as plain JSON with its arrays, None at the end. Raises ChannelError."""
    line = file.readline(LINE)
    if not line:
        return None
    try:
        head = json.loads(line, parse_constant=_finite, parse_float=_finite)
        sizes = head["arrays"]
        if not line.endswith(b"\n") or not isinstance(sizes, list) or sum(map(_size, sizes)) > ARRAYS:
            raise ValueError
        content = tuple(file.read(size) for size in sizes)
        if [len(part) for part in content] != sizes:
            raise ValueError
        return head["message"], content
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        shown = line[:60].decode("utf-8", "replace").rstrip("\n")
        raise ChannelError(f"sent {shown!r} where a message was expected") from problem


def receive(file: IO[bytes]) -> tuple[Event | Request, Arrays] | None:
    """The next event or request of a worker, None at the end. Raises ChannelError."""
    found = receive_json(file)
    if found is None:
        return None
    try:
        return MESSAGES.validate_python(found[0]), found[1]
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ChannelError(f"sent a message whose field {place or 'kind'} is wrong ({first['msg']})") from problem


def array(content: Arrays, place: int, dtype: type[np.generic], count: int | None = None) -> NDArray[np.generic]:
    """The array at a place. Raises ChannelError where it is missing or has another length than `count`."""
    size = np.dtype(dtype).itemsize
    if place >= len(content) or len(content[place]) % size or count not in (None, len(content[place]) // size):
        raise ChannelError(f"sent a message whose array {place} is missing or has another length than announced")
    return np.frombuffer(content[place], dtype=dtype)


def _finite(number: str) -> float:
    """Raise ValueError for a number that is none, whatever field it is in."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def _size(size: object) -> int:
    if not isinstance(size, int) or size < 0:
        raise ValueError
    return size
