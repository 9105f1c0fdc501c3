"""What is asked of a reasoning-gym problem, and a worked solution for those tasks whose steps are plain arithmetic.

Other tasks have no working: their solution is the answer in a box.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from unlearnbench.curation.reasoning_gym.golds import LEGS, Metadata, calculated

_REQUESTS = re.compile(
    r" ?(?:Give (?:only )?the (?:result|GCD|simplified fraction|final answer)[^.]*\.|Do not include units\.|"
    r"Return only the angle as your answer\.|Do not give the units in your answer\.|Reply only with [^.]*\.|"
    r"Only reply with the final value\.|Write the factors separated by .*\))"
)
"""Requests for a bare answer: a rollout is asked to put its answer in a box."""


def asked(task: str, question: str) -> str:
    """The question without the package's own rules for the answer's form, and without its examples."""
    text = question.strip()
    if task == "countdown":
        return text.split("\n\nFinal answer format")[0].replace("\n", " ")
    if task == "leg_counting":
        return text.split("\n\n")[-1].replace("Now, how", "How")
    if task == "decimal_arithmetic":
        return f"Calculate {text.splitlines()[-1].replace(' = ?', '')}."
    return _REQUESTS.sub("", text).strip()


def solution(task: str, answer: str, metadata: Metadata) -> str:
    """The working, where there is one, and the answer in a box."""
    work = WORKED.get(task)
    lines = work(answer, metadata) + " " if work else ""
    return f"{lines}\\boxed{{{answer}}}"


def _plain(value: Fraction) -> str:
    """A number as people write it: an integer, or a short decimal."""
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10f}".rstrip("0")


def _chain(answer: str, metadata: Metadata) -> str:
    total, *rest = metadata["expression"].split()
    lines = []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        step = f"{total} {sign} {term}"
        total = _plain(calculated(f"{total} {sign} ({term})"))
        lines.append(f"{step} = {total}")
    return ", ".join(lines) + "."


def _whole(answer: str, metadata: Metadata) -> str:
    return f"{metadata['expression']} = {answer}."


def _divisor(answer: str, metadata: Metadata) -> str:
    return ", ".join(f"{number} = {answer} * {number // int(answer)}" for number in metadata["numbers"]) + "."


def _multiple(answer: str, metadata: Metadata) -> str:
    return ", ".join(f"{number} * {int(answer) // number} = {answer}" for number in metadata["numbers"]) + "."


def _equation(answer: str, metadata: Metadata) -> str:
    left, right = metadata["equation"].split(" = ")
    name, value = metadata["variable"], int(right)
    constant = calculated(left, {name: Fraction(0)})
    factor = calculated(left, {name: Fraction(1)}) - constant
    rest = value - constant
    if factor == 1:
        sign = "-" if constant >= 0 else "+"
        return f"{name} = {value} {sign} {_plain(abs(constant))} = {answer}."
    moved = f"{_plain(factor)}*{name} = {_plain(rest)}, " if constant else ""
    return f"{moved}{name} = {_plain(rest)} / {_plain(factor)} = {answer}."


def _reduced(answer: str, metadata: Metadata) -> str:
    factor = metadata["reduction_factor"]
    above, below = metadata["simplified_numerator"], metadata["simplified_denominator"]
    return f"{metadata['numerator']} / {factor} = {above}, {metadata['denominator']} / {factor} = {below}."


def _legs(answer: str, metadata: Metadata) -> str:
    counts = [(count, LEGS[animal]) for animal, count in metadata["animals"].items()]
    lines = [f"{count} * {legs} = {count * legs}" for count, legs in counts]
    total = counts[0][0] * counts[0][1]
    for count, legs in counts[1:]:
        lines.append(f"{total} + {count * legs} = {total + count * legs}")
        total += count * legs
    return ", ".join(lines) + "."


def _factors(answer: str, metadata: Metadata) -> str:
    return f"{metadata['number']} = {answer}."


def _target(answer: str, metadata: Metadata) -> str:
    return f"{metadata['expression']} = {metadata['target']}."


WORKED: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "chain_sum": _chain,
    "decimal_chain_sum": _chain,
    "basic_arithmetic": _whole,
    "products": _whole,
    "gcd": _divisor,
    "lcm": _multiple,
    "simple_equations": _equation,
    "fraction_simplification": _reduced,
    "leg_counting": _legs,
    "prime_factorization": _factors,
    "countdown": _target,
}
"""Tasks with a working, by name."""
