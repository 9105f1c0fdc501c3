"""The verifier on each kind of gold and answer that real data sets hold: accepted, refused, and the same either way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from unlearnbench.records import Rule
from unlearnbench.verifier import Verifier

KINDS = sorted((Path(__file__).parent / "verifier_kinds").glob("*.jsonl"))


def cases(path: Path) -> list[dict[str, Any]]:
    """The cases of a kind; the first line of its file says what the kind is."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def test_kinds_have_a_rule_and_many_cases_of_both_verdicts() -> None:
    total = 0
    for path in KINDS:
        head = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
        assert head.keys() == {"title", "rule"}, path.name
        found = cases(path)
        assert {case["correct"] for case in found} == {True, False}, path.name
        pairs = [(case["gold"], case.get("answer"), case.get("completion")) for case in found]
        assert len(set(pairs)) == len(pairs), path.name
        total += len(pairs)
    assert len(KINDS) >= 32 and total >= 800


@pytest.fixture(scope="module")
def verifiers() -> Iterator[dict[tuple[Rule, str], Verifier]]:
    """One for each rule and order of the sides, so that no verdict on a pair is returned for the swapped one."""
    rules: tuple[Rule, ...] = ("strict", "lenient")
    with ExitStack() as stack:
        yield {(rule, order): stack.enter_context(Verifier(rule)) for rule in rules for order in ("given", "swapped")}


@pytest.mark.parametrize("path", KINDS, ids=lambda path: path.stem)
def test_verdicts_agree_with_the_labels_and_sides_may_change_places(
    path: Path, verifiers: dict[tuple[Rule, str], Verifier]
) -> None:
    wrong = []
    rules: tuple[Rule, ...] = ("strict", "lenient")
    for rule in rules:
        found = [case for case in cases(path) if case.get("rule", "strict") == rule]
        pairs = [(case["gold"], case.get("completion") or f"\\boxed{{{case['answer']}}}") for case in found]
        swapped = [
            (case["answer"], f"\\boxed{{{case['gold']}}}") if "answer" in case else pair
            for case, pair in zip(found, pairs, strict=True)
        ]
        for order, asked in (("given", pairs), ("swapped", swapped)):
            verdicts = verifiers[rule, order].verify_many(asked)
            wrong += [
                f"{pair}: label {case['correct']}, verdict {verdict.correct} ({verdict.reason}), "
                f"stated {verdict.answer!r}"
                for case, pair, verdict in zip(found, asked, verdicts, strict=True)
                if verdict.correct is not case["correct"]
            ]
    assert wrong == [], "\n".join(wrong)
