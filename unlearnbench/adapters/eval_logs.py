"""Per-sample logs of other evaluators as rollouts, as those programs write them.

- lm-eval-harness (`--log_samples`): `samples_<task>_<date>.jsonl`, a line a document and filter, with all repeats in
  `resps`.
- inspect_ai: `.eval` (a zip with a file a sample and epoch, packed by zstd or deflate) and `.json` (all in one).

What a sample is of is said by an `item_id` (or `twin_id`) among its own fields, else by its text: that of one problem
of the split. A number of the evaluator's own is a position in somebody's file and is never taken for an id.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.io import files, tables
from unlearnbench.io.rollout_reader import SCHEMA, Batch, blocks, encodes
from unlearnbench.splits import Split

SUFFIXES = (".eval", ".json")
ROWS = 8_192
LARGEST = 256 << 20
"""Bytes of one sample of a zip; more is no rollout."""
ZSTD = 93
"""Its number among the compression methods of zip; zipfile knows it from Python 3.14 on."""
_OWN = ("item_id", "twin_id")
_TEXTS = ("prompt", "problem", "question", "input")


class Known:
    """The problems of a split, by id and by text."""

    def __init__(self, split: Split) -> None:
        problems = [(item.item_id, item.prompt) for item in split.items]
        problems += [(twin.twin_id, twin.prompt) for twin in split.twins]
        problems += [(canary.item_id, canary.prompt) for canary in split.canaries]
        self.split = split.name
        often = Counter(prompt.strip() for _, prompt in problems)
        self._by_prompt = {prompt.strip(): name for name, prompt in problems if often[prompt.strip()] == 1}

    def name(self, where: str, fields: Iterable[object], texts: Iterable[object]) -> str:
        """The id of what a sample is of. Raises DataError where neither its fields nor its text say it."""
        for own in fields:
            if isinstance(own, Mapping):
                for key in _OWN:
                    if isinstance(own.get(key), str):
                        return str(own[key])
        for text in texts:
            if isinstance(text, str) and text.strip() in self._by_prompt:
                return self._by_prompt[text.strip()]
        raise DataError(
            f"{where}: no field 'item_id', and its text is that of no problem of split {self.split} alone; give the "
            "evaluated data a column item_id (`unlearnbench export` writes one)"
        )


class _Row(NamedTuple):
    item_id: str
    completion: str
    finish: str | None
    number: int
    """The line, or the sample's place in the log, from 1."""
    done: float


def is_log(path: Path) -> bool:
    """Whether a file is another evaluator's log: by its suffix, or by its first line."""
    if path.suffix in SUFFIXES:
        return True
    if path.suffix != ".jsonl":
        return False
    try:
        with path.open("rb") as file:
            first = next((line for line in blocks(path, file)), b"").lstrip().split(b"\n", 1)[0]
        row = json.loads(first)
    except (OSError, ValueError, RecursionError):
        return False  # whoever reads it says what is wrong
    return isinstance(row, dict) and "doc_id" in row and "resps" in row


def read_log(path: Path, known: Known, seed: int = 0) -> Iterator[Batch]:
    """The rollouts of a log in batches, in their order, all of the training run `seed`.

    Raises DataError naming file, row and field: a sample that failed, or holds no generated text, or is of no problem
    of the split; a file that cannot be read.
    """
    path = Path(path)
    rows = {".eval": _inspect_zip, ".json": _inspect_json}.get(path.suffix, _lm_eval)(path, known)
    waiting: list[_Row] = []
    try:
        for row in rows:
            waiting.append(row)
            if len(waiting) == ROWS:
                yield _batch(path, waiting, seed)
                waiting = []
    except OSError as error:
        raise files.unreadable(path, error) from error
    if waiting:
        yield _batch(path, waiting, seed)


def _batch(path: Path, rows: list[_Row], seed: int) -> Batch:
    columns = [
        pa.array([row.item_id for row in rows], pa.string()),
        pa.array([row.completion for row in rows], pa.string()),
        pa.array([seed] * len(rows), pa.int64()),
        pa.array([row.finish for row in rows], pa.string()),
    ]
    return Batch(path, pa.table(columns, schema=SCHEMA), rows[0].number, [row.number for row in rows], rows[-1].done)


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where}: generated text was expected, but it is {str(value)[:60]!r}")
    if not encodes(value):
        raise DataError(f"{where}: half of a surrogate pair is no Unicode text; write it as UTF-8")
    return value


# --- lm-eval-harness ------------------------------------------------------------------------------------------


def _lm_eval(path: Path, known: Known) -> Iterator[_Row]:
    """The repeats of every document; of several filters over the same repeats, one is read."""
    seen: set[object] = set()
    used: object = None
    number, read = 0, 0
    with path.open("rb") as file:
        size = max(path.stat().st_size, 1)
        for block in blocks(path, file):
            read += len(block)
            for line in block.removesuffix(b"\n").split(b"\n"):
                number += 1
                if not line.strip():
                    continue
                where = f"{path}, row {number}"
                row = tables.json_object(where, line)
                if not seen:
                    used = row.get("filter")
                if row.get("filter") != used:
                    continue
                document = str(row.get("doc_id"))
                if document in seen:
                    raise DataError(f"{where}, field 'doc_id': {document} occurs twice; give the log of one run")
                seen.add(document)
                name = known.name(where, *_lm_eval_names(row))
                for text in _lm_eval_texts(where, row.get("resps")):
                    yield _Row(name, text, None, number, min(read / size, 1.0))


def _lm_eval_names(row: Mapping[str, Any]) -> tuple[list[object], list[object]]:
    document = row.get("doc")
    doc: Mapping[str, object] = document if isinstance(document, dict) else {}
    fields = [doc, doc.get("extra_info"), doc.get("metadata")]
    texts = [doc.get(key) for key in _TEXTS]
    first = row.get("arguments")
    for key in ("gen_args_0", "arg_0"):
        first = first.get(key) if isinstance(first, dict) else None
    return fields, [*texts, first]


def _lm_eval_texts(where: str, found: object) -> list[str]:
    here = f"{where}, field 'resps'"
    if not isinstance(found, list) or len(found) != 1 or not isinstance(found[0], list) or not found[0]:
        raise DataError(f"{here}: the repeats of one request were expected; log a task of output_type generate_until")
    return [_text(here, value) for value in found[0]]


# --- inspect_ai -----------------------------------------------------------------------------------------------


def _inspect_json(path: Path, known: Known) -> Iterator[_Row]:
    log = tables.json_object(str(path), path.read_bytes())
    samples = log.get("samples")
    if not isinstance(samples, list):
        raise DataError(f"{path}, field 'samples': a list was expected, as inspect_ai writes it; give such a log")
    for place, sample in enumerate(samples, start=1):
        yield from _inspect(path, place, sample, known, place / len(samples))


def _inspect_zip(path: Path, known: Known) -> Iterator[_Row]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}  # a sample that was run again comes later
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is no readable .eval log ({error}); give it as inspect_ai wrote it") from error
    names = [name for name in members if name.startswith("samples/") and name.endswith(".json")]
    if not names:
        raise DataError(f"{path} holds no samples; give a log of inspect_ai that has ended")
    for place, name in enumerate(names, start=1):
        sample = tables.json_object(f"{path}, {name}", _member(path, members[name]))
        yield from _inspect(path, place, sample, known, place / len(names))


def _member(path: Path, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a file in a zip. Raises DataError where it is too large, damaged, or packed in another way."""
    where = f"{path}, {info.filename}"
    if info.file_size > LARGEST:
        raise DataError(f"{where}: it holds more than {LARGEST >> 20} MiB; shorten that sample")
    try:
        if info.compress_type != ZSTD:
            with zipfile.ZipFile(path) as archive, archive.open(info) as member:
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


def _inspect(path: Path, place: int, sample: object, known: Known, done: float) -> Iterator[_Row]:
    where = f"{path}, row {place}"
    if not isinstance(sample, dict):
        raise DataError(f"{where}: a sample was expected, as inspect_ai writes it")
    if sample.get("error"):
        raise DataError(f"{where}, field 'error': this sample failed; complete the log with `inspect eval-retry`")
    attached = sample.get("attachments")
    attachments: Mapping[str, object] = attached if isinstance(attached, dict) else {}
    texts = [_plain(sample.get("input"), attachments)]
    name = known.name(where, [sample.get("metadata")], texts)
    output = sample.get("output")
    choices = output.get("choices") if isinstance(output, dict) else None
    if not isinstance(choices, list) or not choices:
        raise DataError(f"{where}, field 'output': it holds no choices; complete the log with `inspect eval-retry`")
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        content = _plain(message.get("content"), attachments) if isinstance(message, dict) else None
        stop = choice.get("stop_reason") if isinstance(choice, dict) else None
        finish = {"stop": "stop", "max_tokens": "length", "model_length": "length"}.get(str(stop))
        yield _Row(name, _text(f"{where}, field 'output'", content), finish, place, done)


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
