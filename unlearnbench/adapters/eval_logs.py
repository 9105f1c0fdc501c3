"""Per-sample logs of other programs as rollouts, as those programs write them.

- lm-eval-harness (`--log_samples`): `samples_<task>_<date>.jsonl`, one line a document and filter, with all repeats in
  `resps`; also compressed, or as one JSON list.
- lighteval: `details_<task>_<date>.parquet`, one row a document, with all samples in `model_response.text`.
- prime-rl and verifiers: `traces.jsonl`, one line an episode, with the messages of each of its traces.
- inspect_ai: `.eval` and `.json` (`inspect_logs.py`).

Which problem a sample answers is what `problem_index.py` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from unlearnbench.adapters.inspect_logs import read_archive, read_whole
from unlearnbench.adapters.log_samples import Failures, Sample, generated
from unlearnbench.adapters.problem_index import ProblemIndex
from unlearnbench.errors import DataError
from unlearnbench.io import chats, files, json_rows, rows, streams
from unlearnbench.io.rollout_reader import SCHEMA, Batch

ROWS = 8_192
SUFFIX = ".eval"
_TEXTS = ("prompt", "problem", "question", "input", "query")


Reader = Callable[[Path, ProblemIndex, Failures], Iterator[Sample]]


def log_reader(path: Path) -> Reader | None:
    """What reads a file that is the log of another program; None where it is none. Looks at its name, and into it."""
    if path.suffix == SUFFIX:
        return read_archive
    try:
        kind = streams.format_of(path)
        if kind == ".json" and _is_one_object(path):
            return read_whole
        names = set(rows.column_names(path))
    except DataError:
        return None  # reading the file will report what is wrong with it
    if {"doc_id", "resps"} <= names:
        return _lm_eval
    if any(set(columns) <= names for columns in _LIGHTEVAL):
        return _lighteval
    return _traces if "traces" in names else None


def _is_one_object(path: Path) -> bool:
    """Whether a JSON file is neither a list nor lines of objects."""
    with streams.opened(path) as stream:
        start = stream.read(streams.BLOCK).lstrip(b"\xef\xbb\xbf \t\r\n")
    line, _, after = start.partition(b"\n")
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return start.startswith(b"{")
    return start.startswith(b"{") and not after.strip()


def read_log(path: Path, index: ProblemIndex, seed: int = 0, failures: Failures | None = None) -> Iterator[Batch]:
    """The rollouts of a log in batches, in their order, all of the training run `seed`.

    Raises DataError naming file, row and field: a sample that failed (beyond those that `failures` leaves out), that
    has no generated text, or that answers no problem of the split; a file that is not a log or cannot be read.
    """
    path = Path(path)
    reader = log_reader(path)
    if reader is None:
        raise DataError(f"{path} is not a log of lm-eval-harness, lighteval, inspect_ai, prime-rl or verifiers")
    waiting: list[Sample] = []
    try:
        for sample in reader(path, index, failures or Failures()):
            waiting.append(sample)
            if len(waiting) == ROWS:
                yield _batch(path, waiting, seed)
                waiting = []
    except OSError as error:
        raise files.unreadable(path, error) from error
    if waiting:
        yield _batch(path, waiting, seed)


def _batch(path: Path, samples: list[Sample], seed: int) -> Batch:
    columns = {
        "item_id": pa.array([sample.item_id for sample in samples], pa.string()),
        "prompt": pa.nulls(len(samples), pa.string()),
        "completion": pa.array([sample.completion for sample in samples], pa.string()),
        "seed": pa.array([seed] * len(samples), pa.int64()),
        "step": pa.array([sample.step for sample in samples], pa.int64()),
        "finish": pa.array([sample.finish for sample in samples], pa.string()),
    }
    table = pa.table(columns, schema=SCHEMA)
    return Batch(path, table, [sample.number for sample in samples], samples[-1].done)


# --- lm-eval-harness ------------------------------------------------------------------------------------------


def _lm_eval(path: Path, index: ProblemIndex, failures: Failures) -> Iterator[Sample]:
    """The repeats of every document; of several filters over the same repeats, one is read."""
    seen: set[str] = set()
    used: object = None
    for number, row, done in json_rows.read_objects(path):
        where = f"{path}, row {number}"
        if not seen:
            used = row.get("filter")
        if row.get("filter") != used:
            continue
        document = str(row.get("doc_id"))
        if document in seen:
            raise DataError(f"{where}, field 'doc_id': {document} occurs twice; give the log of one run")
        seen.add(document)
        name = index.name(where, *_lm_eval_names(row))
        for text in _lm_eval_texts(f"{where}, field 'resps'", row.get("resps")):
            yield Sample(name, text, None, number, done)


def _lm_eval_names(row: Mapping[str, Any]) -> tuple[list[object], list[object]]:
    document = row.get("doc")
    doc: Mapping[str, object] = document if isinstance(document, dict) else {}
    fields = [doc, doc.get("extra_info"), doc.get("metadata")]
    return fields, [*(doc.get(key) for key in _TEXTS), _lm_eval_prompt(row.get("arguments"))]


def _lm_eval_prompt(arguments: object) -> object:
    """The context of the first request: `{"gen_args_0": {"arg_0": context}}`, `[[context, {}]]`, or either with the
    context as a chat, or a chat's JSON in a list."""
    for key in ("gen_args_0", "arg_0"):
        if isinstance(arguments, dict):
            arguments = arguments.get(key)
    if isinstance(arguments, list) and arguments and isinstance(arguments[0], list) and not chats.is_chat(arguments):
        arguments = arguments[0]
    if isinstance(arguments, list) and len(arguments) == 2 and isinstance(arguments[1], dict):
        arguments = arguments if chats.is_chat(arguments) else arguments[0]
    return arguments


def _lm_eval_texts(here: str, found: object) -> list[str]:
    """The repeats of one request: `[[text, text]]`, or `[text]` of one repeat as some versions write it."""
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], list) and found[0]:
        return [generated(here, value) for value in found[0]]
    if isinstance(found, list) and found and all(isinstance(value, str) for value in found):
        return [generated(here, value) for value in found]
    raise DataError(f"{here}: the repeats of one request were expected; log a task of output_type generate_until")


# --- lighteval ------------------------------------------------------------------------------------------------

_LIGHTEVAL = (
    ("model_response.text", "doc.query"),
    ("__model_response__.text", "__doc__.query"),
    ("predictions", "full_prompt"),  # before version 0.9
)
"""Columns of the generated texts and of the question, by version."""


def _lighteval(path: Path, index: ProblemIndex, failures: Failures) -> Iterator[Sample]:
    names = rows.column_names(path)
    texts, question = next(columns for columns in _LIGHTEVAL if set(columns) <= set(names))
    outer = question.partition(".")[0]
    inside = [name for name in (f"{outer}.specific", f"{outer}.metadata", "item_id") if name in names]
    asked = [name for name in (f"{texts.partition('.')[0]}.input", "example") if name in names]
    for batch in rows.read_rows(path, [texts, question, *inside, *asked]):
        columns = {name: rows.listed(column) for name, column in batch.columns.items()}
        for place in range(len(batch)):
            where = batch.where(place)
            fields: list[object] = [_mapping(columns[name][place], name) for name in inside]
            name = index.name(where, fields, [columns[column][place] for column in (question, *asked)])
            found = columns[texts][place]
            if not isinstance(found, list) or not found:
                raise DataError(f"{where}, field {texts!r}: generated texts were expected; give details of such a task")
            for text in found:
                yield Sample(name, generated(f"{where}, field {texts!r}", text), None, batch.numbers[place], batch.done)


def _mapping(value: object, name: str) -> object:
    return {"item_id": value} if name == "item_id" else value


# --- prime-rl, verifiers --------------------------------------------------------------------------------------


def _traces(path: Path, index: ProblemIndex, failures: Failures) -> Iterator[Sample]:
    """The last message that was sampled in every trace; of one that was not sampled to the end, an empty text."""
    for number, row, done in json_rows.read_objects(path):
        where = f"{path}, row {number}"
        traces = row.get("traces")
        if not isinstance(traces, list):
            raise DataError(f"{where}, field 'traces': a list was expected, as verifiers writes it")
        step = json_rows.value_at(row, "run.work.step")
        of_row = _facts(row)
        for trace in traces:
            if not isinstance(trace, dict) or not isinstance(trace.get("nodes"), list):
                raise DataError(f"{where}, field 'traces': a trace with nodes was expected, as verifiers writes it")
            if trace.get("stop_condition") == "error":
                failures.add(where, "field 'traces': the run of this trace failed")
                continue
            given, sampled = _messages(trace["nodes"])
            name = index.name(where, (*_facts(trace), *of_row), [given])
            said = chats.last_turn(sampled, "assistant") or ""
            cut = trace.get("is_truncated") is True or not sampled
            finish = "length" if cut else "stop"
            yield Sample(name, generated(where, said), finish, number, done, step if isinstance(step, int) else None)


def _facts(one: Mapping[str, Any]) -> list[object]:
    """Where a trace, or a row of traces, may have the item's id."""
    task = one.get("task")
    data = task.get("data") if isinstance(task, dict) else None
    return [one.get("info"), data, data.get("info") if isinstance(data, dict) else None]


def _messages(nodes: Iterable[object]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The messages that a trace was given, and those that the policy wrote."""
    given: list[Mapping[str, Any]] = []
    sampled: list[Mapping[str, Any]] = []
    for node in nodes:
        if isinstance(node, dict) and isinstance(node.get("message"), dict):
            (sampled if node.get("sampled") is True else given).append(node["message"])
    return given, sampled
