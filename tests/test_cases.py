"""The verifier judged from outside: hand-labelled cases, symmetry, hostile completions."""

from __future__ import annotations

import json
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from attacks import attacks

from unlearnbench.verifier import Verifier


class Case(NamedTuple):
    gold: str
    completion: str
    correct: bool
    category: str


CASES = [
    Case(**json.loads(line))
    for line in (Path(__file__).parent / "verifier_cases.jsonl").read_text(encoding="utf-8").splitlines()
]
# Their subject is which part of the completion is the answer, so swapping the sides would test nothing.
ABOUT_THE_BOX = {"no_answer", "stated_answer", "box", "corrected"}


def content(completion: str) -> str:
    """What the completion's only box holds."""
    start = completion.index(r"\boxed{") + len(r"\boxed{")
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(completion[end], 0)
        end += 1
    return completion[start : end - 1]


def forget_peak() -> None:
    """Reset the peak, where the system can: earlier tests in this process would hide the growth."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Peak resident memory of this process since `forget_peak`."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_cases_are_many_balanced_and_distinct() -> None:
    assert len(CASES) >= 300
    assert 0.47 <= sum(case.correct for case in CASES) / len(CASES) <= 0.53
    pairs = Counter((case.gold, case.completion) for case in CASES)
    assert [pair for pair, times in pairs.items() if times > 1] == []
    both = {case.category for case in CASES if case.correct} & {case.category for case in CASES if not case.correct}
    assert {case.category for case in CASES} - both == {"no_answer"}


def test_verdicts_agree_with_the_labels() -> None:
    with Verifier(workers=2) as verifier:
        verdicts = verifier.verify_many([(case.gold, case.completion) for case in CASES])
    wrong = [
        f"{case.category}: gold {case.gold!r}, stated {verdict.answer!r}: label {case.correct}, "
        f"verdict {verdict.correct} ({verdict.reason})"
        for case, verdict in zip(CASES, verdicts, strict=True)
        if verdict.correct is not case.correct
    ]
    assert len(wrong) <= 0.01 * len(CASES), f"{len(wrong)} of {len(CASES)} differ:\n" + "\n".join(wrong)


def test_gold_and_answer_may_change_places() -> None:
    plain = [case for case in CASES if case.completion.count(r"\boxed{") == 1 and case.category not in ABOUT_THE_BOX]
    pairs = [(case.gold, content(case.completion)) for case in plain]
    assert len(pairs) >= 300
    with Verifier(workers=2) as verifier:
        verdicts = verifier.verify_many([(gold, rf"\boxed{{{answer}}}") for gold, answer in pairs])
    # A second verifier, so that no verdict of the first can be returned for the swapped pair.
    with Verifier(workers=2) as verifier:
        swapped = verifier.verify_many([(answer, rf"\boxed{{{gold}}}") for gold, answer in pairs])
    differ = [
        f"gold {gold!r}, answer {answer!r}: {there.correct}, swapped: {back.correct}"
        for (gold, answer), there, back in zip(pairs, verdicts, swapped, strict=True)
        if there.correct is not back.correct
    ]
    assert differ == [], "\n".join(differ)


@pytest.mark.timeout(900)
def test_attacks_are_answered_within_bounds_and_none_is_accepted() -> None:
    hostile = attacks()
    assert len(hostile) >= 170
    forget_peak()
    before = peak_bytes()
    with Verifier(workers=2) as verifier:
        verdicts = verifier.verify_many([("17", completion) for _, completion in hostile])
    grown = peak_bytes() - before
    named = [(name, verdict) for (name, _), verdict in zip(hostile, verdicts, strict=True)]
    assert [name for name, verdict in named if verdict.correct is not False] == []
    assert [(name, verdict.seconds) for name, verdict in named if verdict.seconds > 5] == []
    assert grown < 2**30
