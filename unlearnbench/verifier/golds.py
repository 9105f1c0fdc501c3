"""Gold answers: how the values in data sets are read, and which golds only their own text can match.

Data sets hold golds as text, as numbers, as lists of texts each of which is right, or as rationales that end in
`#### 18`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence

from unlearnbench.errors import DataError
from unlearnbench.records import Rule, Verdict
from unlearnbench.verifier.verifier import UNGRADABLE, Verifier, verify_many

_PROBE = "\\boxed{-7919.5}"
"""States a number that is not a gold: a gold that cannot be compared with it can be compared with no answer."""
_PROSE = 7
"""Words from which on a gold without any mathematics is taken for prose."""
_WORD = re.compile(r"[A-Za-z]{2,}")
_MATHEMATICS = re.compile(r"[0-9=<>\\^_+*/]")
_WHY = {
    "unparsable": "it cannot be read as an answer",
    "too_large": "it is too long or too large",
    "timeout": "it takes longer than the time limit",
}


def gold_texts(value: object, whose: str) -> tuple[str, ...]:
    """The gold answers that a value of a data set means: one, or for a list all of them, each of which is right.

    Of a rationale in the style of GSM8K it is what follows `####`. Raises DataError, naming `whose` gold it is, for
    None, for empty text and lists, and for a value that is neither text nor a number.
    """
    for convert in ("tolist", "as_py", "item"):  # arrays and scalars of NumPy, PyTorch and Arrow
        if not isinstance(value, str | bytes | int | float | list | tuple) and hasattr(value, convert):
            value = getattr(value, convert)()
    if isinstance(value, list | tuple | set | frozenset):
        texts = [text for item in value for text in gold_texts(item, whose)]
        if not texts:
            raise DataError(f"the gold answer of {whose} is an empty list; give at least one answer")
        return tuple(dict.fromkeys(texts))
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"the gold answer of {whose} is {value}; give it as text")
    if isinstance(value, int | float):
        return (str(value),)
    if not isinstance(value, str):
        found = "None" if value is None else f"of type {type(value).__name__}"
        raise DataError(f"the gold answer of {whose} is {found}; give text, a number or a list of them")
    text = value.rpartition("####")[2].strip() if "####" in value else value.strip()
    if not text:
        raise DataError(f"the gold answer of {whose} is empty; give at least one answer")
    return _listed(text) or (text,)


def _listed(text: str) -> tuple[str, ...] | None:
    """The texts of a list that was written as JSON or by Python, ["34"]; None where the text is something else."""
    if not (text.startswith(('["', "['")) and text.endswith(('"]', "']"))):
        return None
    for written in (text, text.replace("'", '"')):
        try:
            found = json.loads(written)
        except ValueError:
            continue
        if found and all(isinstance(item, str) and item.strip() for item in found):
            return tuple(dict.fromkeys(item.strip() for item in found))
    return None


def verify_golds(golds: Sequence[tuple[str, ...]], completions: Sequence[str], rule: Rule = "strict") -> list[Verdict]:
    """The verdict on each completion against any of its golds: the first that matches, else that of the first gold."""
    pairs = [(gold, text) for of_one, text in zip(golds, completions, strict=True) for gold in of_one]
    verdicts = iter(verify_many(pairs, rule))
    best = []
    for of_one in golds:
        found = [next(verdicts) for _ in of_one]
        best.append(next((verdict for verdict in found if verdict.correct), found[0]))
    return best


def ungradable(golds: Iterable[str], verifier: Verifier) -> dict[str, str]:
    """The golds that only their own text can match, each with the reason in words; the field calls them ungradable.

    An item with such a gold is never solved by an answer in other words, and so is labelled unlearnable.
    """
    different = list(dict.fromkeys(golds))
    found = {}
    for gold, verdict in zip(different, verifier.verify_many([(gold, _PROBE) for gold in different]), strict=True):
        if verdict.reason in UNGRADABLE:
            found[gold] = _WHY[verdict.reason]
        elif not _MATHEMATICS.search(gold) and (count := len(_WORD.findall(gold))) >= _PROSE:
            found[gold] = f"it is prose of {count} words"
    return found
