"""Logs of inspect_ai as rollouts: `.eval` (a zip with one file a sample and epoch, packed by zstd or deflate) and
`.json` (all samples in one file). Every epoch, and every choice of one, is a rollout."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from unlearnbench.adapters.log_samples import Failures, Sample, generated
from unlearnbench.adapters.problem_index import ProblemIndex
from unlearnbench.errors import DataError
from unlearnbench.io.json_rows import json_object
from unlearnbench.io.streams import opened

LARGEST = 256 << 20
"""Bytes of one sample of a zip; more is not a rollout."""
ZSTD = 93
"""Its number among the compression methods of zip; zipfile knows it from Python 3.14 on."""
_FINISH = {"stop": "stop", "max_tokens": "length", "model_length": "length"}


def read_whole(path: Path, index: ProblemIndex, failures: Failures) -> Iterator[Sample]:
    """The rollouts of a `.json` log, which is read whole. Raises DataError naming file, row and field."""
    with opened(path) as stream:
        log = json_object(str(path), stream.read().removeprefix(b"\xef\xbb\xbf"))
    samples = log.get("samples")
    if not isinstance(samples, list):
        raise DataError(
            f"{path}, field 'samples': a list was expected, as inspect_ai writes it; give such a log, or a list of rows"
        )
    for place, sample in enumerate(samples, start=1):
        yield from _rollouts(path, place, sample, index, failures, place / len(samples))


def read_archive(path: Path, index: ProblemIndex, failures: Failures) -> Iterator[Sample]:
    """The rollouts of an `.eval` log, read sample by sample. Raises DataError naming file, row and field."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}  # a sample that was run again comes later
            names = [name for name in members if name.startswith("samples/") and name.endswith(".json")]
            if not names:
                raise DataError(f"{path} has no samples; give the log of an evaluation that has ended")
            for place, name in enumerate(names, start=1):
                sample = json_object(f"{path}, {name}", _member(path, archive, members[name]))
                yield from _rollouts(path, place, sample, index, failures, place / len(names))
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a readable .eval log ({error}); give it as inspect_ai wrote it") from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a file in a zip. Raises DataError where it is too large, damaged, or packed in another way."""
    where = f"{path}, {info.filename}"
    if info.file_size > LARGEST:
        raise DataError(f"{where}: it has more than {LARGEST >> 20} MiB; shorten that sample")
    try:
        if info.compress_type != ZSTD:
            with archive.open(info) as member:
                return member.read(LARGEST)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            name, extra = struct.unpack("<26xHH", file.read(30))
            file.seek(name + extra, 1)
            packed = file.read(info.compress_size)
        with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
            content: bytes = stream.read(info.file_size)
    except (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{where}: it cannot be unpacked ({error}); give the log as inspect_ai wrote it") from error
    except OSError as error:  # what Arrow says of damaged data
        raise DataError(f"{where}: it cannot be unpacked ({error}); give the log as inspect_ai wrote it") from error
    if zlib.crc32(content) != info.CRC:
        raise DataError(f"{where}: it is damaged (its checksum differs); give the log as inspect_ai wrote it")
    return content


def _rollouts(
    path: Path, place: int, sample: object, index: ProblemIndex, failures: Failures, done: float
) -> Iterator[Sample]:
    where = f"{path}, row {place}"
    if not isinstance(sample, dict):
        raise DataError(f"{where}: a sample was expected, as inspect_ai writes it")
    if sample.get("error"):
        failures.add(where, "field 'error': this sample failed; complete the log with `inspect eval-retry`")
        return
    attached = sample.get("attachments")
    attachments: Mapping[str, object] = attached if isinstance(attached, dict) else {}
    name = index.name(where, [sample.get("metadata")], [_plain(sample.get("input"), attachments)])
    output = sample.get("output")
    choices = output.get("choices") if isinstance(output, dict) else None
    if not isinstance(choices, list) or not choices:
        # It ran into a limit (of time, tokens or messages) before it said anything; a retry leaves it as it is.
        yield Sample(name, "", "length", place, done)
        return
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        content = _plain(message.get("content"), attachments) if isinstance(message, dict) else None
        stop = choice.get("stop_reason") if isinstance(choice, dict) else None
        finish = "length" if sample.get("limit") else _FINISH.get(str(stop))
        yield Sample(name, generated(f"{where}, field 'output'", content), finish, place, done)


def _plain(content: object, attachments: Mapping[str, object]) -> object:
    """A message's text: a string, the text parts of a list, or the last user's of a conversation."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        if any("role" in part for part in parts):
            asked = [part.get("content") for part in parts if part.get("role") == "user"]
            return _plain(asked[-1], attachments) if asked else None
        found = [_plain(part.get("text"), attachments) for part in parts if part.get("type") == "text"]
        return "".join(text for text in found if isinstance(text, str))
    if isinstance(content, str) and content.startswith("attachment://"):
        return attachments.get(content.removeprefix("attachment://"), content)
    return content
