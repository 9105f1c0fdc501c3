"""The problems of a source data set, as rows that a split's items are made from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.errors import DataError
from unlearnbench.io import files, tables
from unlearnbench.splits.manifest import SourceData

INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{}\n{}<|im_end|>\n<|im_start|>assistant\n"
)
_HEAD = re.compile(r"\A(?:<\|im_start\|>.*)?<\|im_start\|>user\n", re.DOTALL)
_TAIL = re.compile(r"<\|im_end\|>\s*(?:<\|im_start\|>assistant\s*)?\Z")
# The data's own prompts end in \boxed{{}}, a format string that nobody filled in.
_ASKED = re.compile(r"\s*Please reason step by step, and put your final answer within \\boxed\{+\}+\.?\s*\Z")
_OTHER = re.compile(r"\A\s*Question:\n.*\nAnswer:", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Row:
    """One problem of the source. `question` is the bare problem, `templated` what a base model is shown."""

    number: int
    question: str
    templated: str
    answer: str
    solution: str
    family: str

    def prompt(self, prompt_format: str) -> str:
        """The item's prompt: the text with its template for `raw`, the bare user's turn for `chat`."""
        return self.templated if prompt_format == "raw" else f"{self.question}\n{INSTRUCTION}"


def stripped(prompt: str) -> str:
    """The problem in a prompt: the last user's turn of Qwen's chat template, without the instruction at the end."""
    return _ASKED.sub("", _TAIL.sub("", _HEAD.sub("", prompt))).strip()


def framed(problem: str, prompt: str) -> str:
    """A problem in the words that stand around that of `prompt`: its template and instruction, if it has them."""
    head, found, tail = prompt.partition(stripped(prompt) or prompt)
    return f"{head}{stripped(problem)}{tail}" if found else problem


def read_rows(file: Path, source: SourceData) -> dict[int, Row]:
    """The rows of a source file by their number. Raises DataError naming file, row and field."""
    make: Callable[[str, Mapping[str, Any], int], Row] = _simplerl if source.form == "simplerl" else _problem
    rows: dict[int, Row] = {}
    for place, content in enumerate(_contents(file)):
        where = f"{file}, row {place + 1}"
        row = make(where, content, place)
        if row.number in rows:
            raise DataError(f"{where}, field {source.numbering!r}: {row.number} is the number of an earlier row, too")
        rows[row.number] = row
    if not rows:
        raise DataError(f"{file} holds no rows; name another file with --source")
    return rows


def _contents(file: Path) -> list[Mapping[str, Any]]:
    if file.suffix == ".parquet":
        rows: list[Mapping[str, Any]] = tables.read_parquet(file).to_pylist()
        return rows
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not valid JSON ({str(error).splitlines()[0]})") from error
    except OSError as error:
        raise files.unreadable(file, error) from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{file}: a list of objects was expected")
    return content


def _simplerl(where: str, row: Mapping[str, Any], place: int) -> Row:
    extra, model = _struct(row, "extra_info"), _struct(row, "reward_model")
    number = extra.get("index")
    if not isinstance(number, int) or isinstance(number, bool):
        raise DataError(f"{where}, field 'extra_info.index': a whole number was expected, not {number!r}")
    text = row.get("prompt")
    if isinstance(text, list) and text and isinstance(text[-1], dict):
        text = text[-1].get("content")
    if isinstance(text, str) and _OTHER.match(text):
        raise DataError(
            f"{where}, field 'prompt': it has the template of another setting (Question: ... Answer:); give the one "
            "with Qwen's template"
        )
    question = stripped(_first(where, "question", row.get("question"), extra.get("question"), text))
    told = [row.get(name) for name in ("target", "answer", "solution")]
    solution = next((text for text in told if isinstance(text, str) and "\\boxed" in text), "")
    short = None if "\\boxed" in str(row.get("answer")) else row.get("answer")  # a worked solution is not a gold
    answer = _first(where, "gt_answer", model.get("ground_truth"), row.get("gt_answer"), extra.get("answer"), short)
    templated = text if isinstance(text, str) and _HEAD.match(text) else _TEMPLATE.format(question, INSTRUCTION)
    return Row(number, question, templated, answer, solution, str(row.get("subject") or "unknown"))


def _problem(where: str, row: Mapping[str, Any], place: int) -> Row:
    question = _first(where, "problem", row.get("problem"))
    answer, solution = _first(where, "answer", row.get("answer")), row.get("solution")
    templated = _TEMPLATE.format(question, INSTRUCTION)
    return Row(place, question, templated, answer, solution if isinstance(solution, str) else "", "unknown")


def _struct(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    content = row.get(name)
    return content if isinstance(content, dict) else {}


def _first(where: str, name: str, *candidates: object) -> str:
    """The first that is text (or a number) and not blank."""
    for candidate in candidates:
        if isinstance(candidate, str | int | float) and str(candidate).strip():
            return str(candidate).strip()
    raise DataError(f"{where}, field {name!r}: there is no text; fetch the file again, or fix the row")
