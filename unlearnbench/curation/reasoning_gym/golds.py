"""Answers to problems of reasoning-gym, computed again from what is asked.

The package's own golds are not to be trusted blindly: of `basic_arithmetic` without parentheses one in three is wrong
in 0.1.25 (integer division). Each function here takes an entry's question and metadata and returns the answer, by
another way than the package's where there is one; `agrees` says whether a gold is that answer.
"""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import comb, gcd, lcm
from typing import Any

Metadata = Mapping[str, Any]
Answer = Fraction | str | list[str]

_OPERATORS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.LShift: lambda a, b: Fraction(int(a) << int(b)),
    ast.RShift: lambda a, b: Fraction(int(a) >> int(b)),
    ast.BitAnd: lambda a, b: Fraction(int(a) & int(b)),
    ast.BitOr: lambda a, b: Fraction(int(a) | int(b)),
    ast.BitXor: lambda a, b: Fraction(int(a) ^ int(b)),
}
LEGS = {
    **dict.fromkeys(("snail", "snake", "sea slug", "worm", "leech", "jellyfish", "flatworm"), 0),
    **dict.fromkeys(("human", "bird", "chicken", "duck", "ostrich"), 2),
    **dict.fromkeys(("dog", "cat", "cow", "horse", "goat", "sheep", "elephant", "giraffe", "lion", "tiger", "deer"), 4),
    **dict.fromkeys(("starfish",), 5),
    **dict.fromkeys(("insect", "ant", "beetle", "bee", "wasp", "grasshopper", "cricket", "butterfly", "firefly"), 6),
    **dict.fromkeys(("cockroach", "praying mantis"), 6),
    **dict.fromkeys(("spider", "scorpion"), 8),
    **dict.fromkeys(("crab", "lobster", "shrimp", "crayfish"), 10),
    "woodlouse": 14,
}
"""Legs as zoology counts them; animals that are not here are not computed again."""


def calculated(expression: str, names: Mapping[str, Fraction] | None = None) -> Fraction:
    """Value of a formula of numbers, + - * / << >> & | ^ and parentheses, exactly.

    Raises ValueError for any other text, ZeroDivisionError where it has no value.
    """

    def value(node: ast.AST) -> Fraction:
        if isinstance(node, ast.Expression):
            return value(node.body)
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return Fraction(node.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            return Fraction(ast.get_source_segment(text, node) or "")
        if isinstance(node, ast.Name) and names and node.id in names:
            return names[node.id]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            return -value(node.operand) if isinstance(node.op, ast.USub) else value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return Fraction(_OPERATORS[type(node.op)](value(node.left), value(node.right)))
        raise ValueError(f"{expression!r} is not a formula of plain numbers")

    text = expression.strip()
    try:
        return value(ast.parse(text, mode="eval"))
    except (SyntaxError, MemoryError, RecursionError) as problem:
        raise ValueError(f"{expression!r} cannot be calculated") from problem


def _expression(question: str, metadata: Metadata) -> Fraction:
    return calculated(metadata["expression"])


def _last_line(question: str, metadata: Metadata) -> Fraction:
    return calculated(question.strip().split("\n")[-1].removesuffix("= ?"))


def _equation(question: str, metadata: Metadata) -> Fraction:
    """The root of a linear equation from its values at 0 and 1."""
    left, right = metadata["equation"].split("=")
    at = [
        calculated(left, {metadata["variable"]: Fraction(x)}) - calculated(right, {metadata["variable"]: Fraction(x)})
        for x in (0, 1)
    ]
    return -at[0] / (at[1] - at[0])


def _primes(question: str, metadata: Metadata) -> Fraction:
    end = metadata["end"]
    sieve = bytearray([0, 0]) + bytearray([1]) * (end - 1)
    for number in range(2, int(end**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, end + 1, number)))
    return Fraction(sum(sieve[metadata["start"] :]))


def _factors(question: str, metadata: Metadata) -> str:
    rest, factor, found = metadata["number"], 2, []
    while rest > 1:
        while rest % factor == 0:
            found.append(str(factor))
            rest //= factor
        factor += 1
    return " \u00d7 ".join(found)


def _legs(question: str, metadata: Metadata) -> Fraction:
    return Fraction(sum(LEGS[animal] * count for animal, count in metadata["animals"].items()))


def _base(question: str, metadata: Metadata) -> str:
    value, digits, base = int(metadata["source_repr"], metadata["source_base"]), "", metadata["target_base"]
    while value:
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[value % base] + digits
        value //= base
    return digits or "0"


def _fraction(question: str, metadata: Metadata) -> str:
    low = Fraction(metadata["numerator"], metadata["denominator"])
    return f"{low.numerator}/{low.denominator}"


def _hexadecimal(question: str, metadata: Metadata) -> str:
    value = int(calculated(metadata["problem"]))
    return f"{'-' if value < 0 else ''}0x{abs(value):x}"


def _complex(question: str, metadata: Metadata) -> list[str]:
    (a, b), (c, d) = ([Fraction(part) for part in metadata[name]] for name in ("num1", "num2"))
    by = metadata["operation"]
    if by in "+-":
        sign = 1 if by == "+" else -1
        found = (a + sign * c, b + sign * d)
    elif by == "*":
        found = (a * c - b * d, a * d + b * c)
    else:
        size = c * c + d * d
        found = ((a * c + b * d) / size, (b * c - a * d) / size)
    return [str(part) for part in found]


def _coins(question: str, metadata: Metadata) -> Fraction:
    if metadata["problem_type"] != "exact":
        raise ValueError("only exact numbers of heads are computed again")
    return Fraction(comb(metadata["num_trials"], metadata["k_heads"]), 2 ** metadata["num_trials"])


def _spiral(question: str, metadata: Metadata) -> str:
    rows, found = [list(row) for row in metadata["matrix"]], []
    while rows:
        found += rows.pop(0)
        rows = [list(column) for column in zip(*rows, strict=True)][::-1]
    return " ".join(map(str, found))


def _rotated(question: str, metadata: Metadata) -> str:
    rows = metadata["matrix"]
    for _ in range(metadata["num_rotations"] % 4):
        rows = [list(column) for column in zip(*rows[::-1], strict=True)]
    return "\n".join(" ".join(map(str, row)) for row in rows)


def _isomorphic(question: str, metadata: Metadata) -> str:
    first, second = metadata["words"]
    return str(len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second)))


def _island(question: str, metadata: Metadata) -> Fraction:
    land = {(i, j) for i, row in enumerate(metadata["grid"]) for j, cell in enumerate(row) if cell}
    largest = 0
    while land:
        edge, size = [land.pop()], 0
        while edge:
            i, j = edge.pop()
            size += 1
            for near in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if near in land:
                    land.remove(near)
                    edge.append(near)
        largest = max(largest, size)
    return Fraction(largest)


def _angle(question: str, metadata: Metadata) -> Fraction:
    return Fraction(180 * (metadata["n_sides"] - 2)) - sum(Fraction(angle) for angle in metadata["known_angles"])


def _dice(question: str, metadata: Metadata) -> str:
    ways = Counter({0: 1})
    for die in metadata["puzzle"]["dice_str"].split(", "):
        count, _, sides = die.partition("d")
        for _ in range(int(count)):
            ways = Counter(
                {
                    total: sum(ways[total - face] for face in range(1, int(sides) + 1))
                    for total in range(1, max(ways) + int(sides) + 1)
                }
            )
    chance = Fraction(sum(n for total, n in ways.items() if total >= metadata["puzzle"]["target"]), sum(ways.values()))
    return f"{chance.numerator}/{chance.denominator}"


def _caesar(question: str, metadata: Metadata) -> str:
    return "".join(
        chr((ord(letter) - 65 - metadata["rotation"]) % 26 + 65) if letter.isalpha() else letter
        for letter in metadata["cipher_text"]
    )


def _note(question: str, metadata: Metadata) -> str:
    return str(not Counter(metadata["ransom_note"]) - Counter(metadata["magazine"]))


def _alternating(question: str, metadata: Metadata) -> Fraction:
    bits = metadata["string"]
    ones, zeros = bits.count("1"), bits.count("0")
    if abs(ones - zeros) > 1:
        return Fraction(-1)
    wrong = [sum(bit != "01"[(place + start) % 2] for place, bit in enumerate(bits)) for start in (0, 1)]
    fits = [wrong[start] for start in (0, 1) if wrong[start] % 2 == 0]
    starts = {0: zeros >= ones, 1: ones >= zeros}
    return Fraction(min((wrong[start] for start in (0, 1) if starts[start]), default=min(fits, default=0)) // 2)


def _count(question: str, metadata: Metadata) -> Fraction:
    return Fraction(sum(word.lower().count(metadata["target_letter"].lower()) for word in metadata["span"]))


def _whole_days(question: str, metadata: Metadata) -> str:
    from datetime import date

    if metadata["task"] != "weekday_of_date":
        raise ValueError("only the weekday of a date is computed again")
    return date.fromisoformat(metadata["target_date"]).strftime("%A")


RECOMPUTED: Mapping[str, Callable[[str, Metadata], Answer]] = {
    "chain_sum": _expression,
    "decimal_chain_sum": _expression,
    "decimal_arithmetic": _last_line,
    "basic_arithmetic": _expression,
    "products": _expression,
    "gcd": lambda question, metadata: Fraction(gcd(*metadata["numbers"])),
    "lcm": lambda question, metadata: Fraction(lcm(*metadata["numbers"])),
    "count_bits": lambda question, metadata: Fraction(metadata["number"].bit_count()),
    "count_primes": _primes,
    "prime_factorization": _factors,
    "leg_counting": _legs,
    "base_conversion": _base,
    "simple_equations": _equation,
    "fraction_simplification": _fraction,
    "bitwise_arithmetic": _hexadecimal,
    "complex_arithmetic": _complex,
    "coin_flip": _coins,
    "power_function": lambda question, metadata: Fraction(metadata["base"]) ** metadata["exponent"],
    "spell_backward": lambda question, metadata: metadata["word"][::-1],
    "letter_counting": _count,
    "word_sequence_reversal": lambda question, metadata: ", ".join(metadata["words"][::-1]),
    "caesar_cipher": _caesar,
    "ransom_note": _note,
    "isomorphic_strings": _isomorphic,
    "largest_island": _island,
    "spiral_matrix": _spiral,
    "rotate_matrix": _rotated,
    "binary_alternation": _alternating,
    "simple_geometry": _angle,
    "dice": _dice,
    "calendar_arithmetic": _whole_days,
}
"""Tasks whose answers are computed again, by name."""

_COMPLEX = re.compile(r"(-?[0-9.]+(?!i|[0-9.]))?(?:([+-])?([0-9.]+)i)?")


def agrees(task: str, question: str, gold: str, metadata: Metadata) -> bool | None:
    """Whether a gold is the answer computed again; None where the task or this problem is not computed again.

    False, too, where there is no answer: `0 = 0` solved for x, or a division by zero.
    """
    solve = RECOMPUTED.get(task)
    if solve is None:
        return None
    try:
        answer = solve(question, metadata)
    except ZeroDivisionError:
        return False
    except (ValueError, KeyError, OverflowError):
        return None
    if isinstance(answer, list):
        return _same_complex(gold, answer)
    if isinstance(answer, str):
        return re.sub(r"\\d?frac\{(\d+)\}\{(\d+)\}|\$", lambda m: f"{m[1]}/{m[2]}" if m[1] else "", gold) == answer
    return _same_number(gold, answer)


def _same_number(gold: str, answer: Fraction) -> bool:
    """A decimal gold may be rounded: it agrees where the answer rounds to it, or to its first twelve digits."""
    try:
        stated = Fraction(gold)
    except (ValueError, ZeroDivisionError):
        return False
    if stated == answer:
        return True
    digits = gold.lower().partition("e")[0].lstrip("-0.").replace(".", "")
    return len(digits) >= 3 and abs(stated - answer) <= abs(answer) * Fraction(1, 10 ** min(len(digits) - 1, 12))


def _same_complex(gold: str, answer: list[str]) -> bool:
    match = _COMPLEX.fullmatch(gold.replace(" ", ""))
    if match is None:
        return False
    real = Fraction(match[1] or "0")
    imaginary = Fraction(match[3] or "0") * (-1 if match[2] == "-" else 1)
    return all(
        abs(one - Fraction(other)) < Fraction(1, 100) for one, other in zip((real, imaginary), answer, strict=True)
    )
