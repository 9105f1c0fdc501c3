"""Verdicts by a reasoning-gym task's own scorer, for answers that cannot be compared with one gold (many are right).

The gold of such a problem is its entry: task, settings, answer and metadata, as one line of JSON. Scorers are other
people's code, and some evaluate the answer as Python: they run in a worker process alone, and those on nothing but
what a number, a list or a formula is made of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

from unlearnbench.errors import RunError

MARK = '{"reasoning_gym":'
INSTALL = 'pip install "unlearnbench[reasoning-gym]"'
RIGHT = 0.999
"""A scorer gives 1 for a right answer and less for an answer in part right, which is wrong here."""
ENTRY_LIMIT = 200_000
"""Characters of an entry above which nothing is graded."""

_FORMULA = re.compile(r"[0-9+\-*/() .\u00d7\u00f7=]{1,200}")
_POLYNOMIAL = re.compile(
    r"(?:[0-9+\-*/^() ]|\.[0-9]|(?<![A-Za-z])(?:[A-Za-z]|sin|cos|tan|exp|log|sqrt|pi)(?![A-Za-z]))+"
)
_LISTING = re.compile(r"[0-9A-Za-z_\[\]\"', \n-]+")
EVALUATES: Mapping[str, re.Pattern[str]] = {
    "countdown": _FORMULA,
    "puzzle24": _FORMULA,
    "simple_integration": _POLYNOMIAL,
    "intermediate_integration": _POLYNOMIAL,
    "polynomial_multiplication": _POLYNOMIAL,
    "string_insertion": _LISTING,
    "spiral_matrix": _LISTING,
    "binary_matrix": _LISTING,
    "n_queens": _LISTING,
}
"""Scorers of reasoning-gym 0.1.25 that evaluate an answer, and the answers that they are given."""


def entry_gold(task: str, settings: Mapping[str, Any], answer: str, metadata: Mapping[str, Any]) -> str:
    """The gold of a problem that its task's scorer judges. Raises TypeError where JSON cannot hold the metadata."""
    entry = {"reasoning_gym": task, "settings": dict(settings), "answer": answer, "metadata": dict(metadata)}
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))


def is_entry(gold: str) -> bool:
    """Whether a gold is an entry, and so judged by a scorer."""
    return gold.startswith(MARK)


def stated_gold(gold: str) -> str:
    """The answer that a gold names: an entry's own, or the gold itself."""
    return str(json.loads(gold)["answer"]) if is_entry(gold) else gold


def task_of(gold: str) -> str:
    """The task of an entry."""
    return str(json.loads(gold)["reasoning_gym"])


def require_scorers() -> None:
    """Raise RunError where reasoning-gym is not installed."""
    if find_spec("reasoning_gym") is None:
        raise RunError(f"a gold of this split is judged by reasoning-gym, which is not installed here: {INSTALL}")


def scored(gold: str, answer: str) -> Literal["match", "mismatch", "unparsable"]:
    """What the scorer finds of an answer. Called in a worker process alone."""
    entry = json.loads(gold)
    task = entry["reasoning_gym"]
    allowed = EVALUATES.get(task)
    if allowed is not None and not allowed.fullmatch(answer):
        return "unparsable"
    dataset = _dataset(task, json.dumps(entry["settings"]))
    found = dataset.score_answer(answer, {"answer": entry["answer"], "metadata": entry["metadata"], "question": ""})
    return "match" if float(found) >= RIGHT else "mismatch"


@lru_cache(maxsize=64)
def _dataset(task: str, settings: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(task, size=1, seed=0, **json.loads(settings))
