"""When two answers agree, by structure, unit and value. Symmetric: neither is the gold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from unlearnbench.verifier.math import ball_arithmetic
from unlearnbench.verifier.math.answer_parser import read
from unlearnbench.verifier.math.interval_sets import as_region
from unlearnbench.verifier.math.latex_parser import parse
from unlearnbench.verifier.math.nodes import (
    Answer,
    Apply,
    Choice,
    Clock,
    Collection,
    Equation,
    Infinite,
    Labelled,
    Matrix,
    Node,
    Number,
    Region,
    Symbol,
    UnreadableError,
    Value,
    Words,
    difference,
    symbols,
)
from unlearnbench.verifier.math.normalize import folded, respelled
from unlearnbench.verifier.math.quantities import plain_number
from unlearnbench.verifier.math.units import PERCENT, SINGLE, Unit, parse_unit

_LETTERS = re.compile(r"[A-Za-z]")
_FUNCTION_NAME = re.compile(r"[A-Za-z]'*(?:\^\{-1\})?\([A-Za-z]\)")


def same_answer(one: str, other: str) -> bool:
    """Whether two answers agree. Raises UnreadableError or UndecidedError where that is beyond this module."""
    a, b = respelled(one), respelled(other)
    if a == b:
        return True
    return same(read(a), read(b))


def same(a: Answer, b: Answer) -> bool:
    """Whether two readings agree. Symmetric. Raises UndecidedError."""
    a, b = _ordered(a, b)
    if isinstance(a, Choice) or isinstance(b, Choice):
        return _same_choice(a, b)
    if isinstance(a, Labelled) or isinstance(b, Labelled):
        return _same_labelled(a, b)
    if isinstance(a, Equation) or isinstance(b, Equation):
        return _same_equation(a, b)
    if isinstance(a, Words) or isinstance(b, Words):
        return _letters(a) is not None and _letters(a) == _letters(b)
    if isinstance(a, Collection) or isinstance(b, Collection):
        return _same_collection(a, b)
    if isinstance(a, Region) or isinstance(b, Region):
        one, other = as_region(a), as_region(b)
        return one is not None and other is not None and _same_region(one, other)
    if isinstance(a, Value) and isinstance(b, Value):
        return _same_quantity(a, b)
    if isinstance(a, Matrix) and isinstance(b, Matrix):
        return [len(row) for row in a.rows] == [len(row) for row in b.rows] and all(
            same(x, y) for row, line in zip(a.rows, b.rows, strict=True) for x, y in zip(row, line, strict=True)
        )
    if isinstance(a, Clock) and isinstance(b, Clock):
        return (a.hour, a.minute) == (b.hour, b.minute) and (a.half == b.half or None in (a.half, b.half))
    if isinstance(a, Clock) and isinstance(b, Value):
        return a.half is None and _same_quantity(_as_ratio(a), b)
    return isinstance(a, Infinite) and a == b


_RANK = (Choice, Labelled, Equation, Words, Collection, Region, Matrix, Clock, Infinite, Value)


def _ordered(a: Answer, b: Answer) -> tuple[Answer, Answer]:
    return (a, b) if _RANK.index(type(a)) <= _RANK.index(type(b)) else (b, a)


def _as_ratio(clock: Clock) -> Value:
    return Value(Apply("div", (Number(Fraction(clock.hour)), Number(Fraction(clock.minute)))))


def _letters(answer: Answer) -> str | None:
    if isinstance(answer, Words):
        return answer.text
    return folded(answer.text) if isinstance(answer, Value) and _LETTERS.search(answer.text) else None


def _same_choice(a: Answer, b: Answer) -> bool:
    if isinstance(a, Choice) and isinstance(b, Choice):
        # (B) 12 and (B) 13 contradict
        return a.letter == b.letter and (a.rest is None or b.rest is None or same(a.rest, b.rest))
    choice, other = (a, b) if isinstance(a, Choice) else (b, a)
    assert isinstance(choice, Choice)
    if isinstance(other, Value) and isinstance(other.node, Symbol) and other.unit is None:
        return other.node.name.upper() == choice.letter
    return choice.rest is not None and same(choice.rest, other)


def _same_labelled(a: Answer, b: Answer) -> bool:
    if isinstance(a, Labelled) and isinstance(b, Labelled):
        if a.label == b.label or _are_functions(a.label, b.label):
            return same(a.answer, b.answer)
        return a.equation is not None and b.equation is not None and _same_equation(a.equation, b.equation)
    labelled, other = (a, b) if isinstance(a, Labelled) else (b, a)
    assert isinstance(labelled, Labelled)
    if isinstance(other, Equation):
        return labelled.equation is not None and _same_equation(labelled.equation, other)
    return same(labelled.answer, other)


def _are_functions(a: str, b: str) -> bool:
    return all(label == "y" or _FUNCTION_NAME.fullmatch(label) is not None for label in (a, b)) and "y" in (a, b)


def _same_equation(a: Answer, b: Answer) -> bool:
    one, other = _as_equation(a), _as_equation(b)
    if one is None or other is None or one.sign != other.sign:
        return False
    if symbols(one.node) != symbols(other.node):
        return False
    sign = ball_arithmetic.ratio(one.node, other.node)
    return sign is not None and (sign > 0 or one.sign in ("=", "!="))


def _as_equation(answer: Answer) -> Equation | None:
    if isinstance(answer, Equation):
        return answer
    if isinstance(answer, Region) and answer.variable and len(answer.spans) == 1:
        (span,), variable = answer.spans, Symbol(answer.variable)
        if span.low is None and span.high is not None:
            return Equation(difference(span.high, variable), ">=" if span.high_closed else ">")
        if span.high is None and span.low is not None:
            return Equation(difference(variable, span.low), ">=" if span.low_closed else ">")
    if isinstance(answer, Region) and answer.variable and len(answer.spans) == 2:
        low, high = answer.spans
        if low.low is None and high.high is None and low.high is not None and low.high == high.low:
            return Equation(difference(Symbol(answer.variable), low.high), "!=")
    return None


def _same_collection(a: Answer, b: Answer) -> bool:
    if isinstance(a, Collection) and isinstance(b, Collection):
        if "tuple" in (a.kind, b.kind):
            if "set" in (a.kind, b.kind):
                return False
            return _in_order(_values(a), _values(b))
        if _is_labelled(a) != _is_labelled(b):  # x=1, y=2 says which value is whose
            return "set" not in (a.kind, b.kind) and _in_order(_values(a), _values(b))
        return _same_set(a.items, b.items)
    collection, other = (a, b) if isinstance(a, Collection) else (b, a)
    assert isinstance(collection, Collection)
    if isinstance(other, Region):
        region = as_region(collection)
        return region is not None and _same_region(region, other)
    if len(_distinct(collection.items)) == 1 and collection.kind != "tuple":
        return same(collection.items[0], other)
    if isinstance(other, Value) and "," in other.text and collection.kind != "tuple":  # 120,240 may be two numbers
        return _same_set(collection.items, tuple(read(part) for part in other.text.split(",") if part))
    return False


def _in_order(a: Sequence[Answer], b: Sequence[Answer]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _is_labelled(collection: Collection) -> bool:
    """Whether every item has a name of its own."""
    labels = {item.label for item in collection.items if isinstance(item, Labelled)}
    return len(labels) == len(collection.items) > 1


def _values(collection: Collection) -> tuple[Answer, ...]:
    """Its items; those of a list `y=2, x=1` in the order of their names."""
    if collection.kind == "tuple" or not _is_labelled(collection):
        return collection.items
    return tuple(sorted((x for x in collection.items if isinstance(x, Labelled)), key=lambda x: x.label.lstrip("\\")))


def _same_set(a: tuple[Answer, ...], b: tuple[Answer, ...]) -> bool:
    left, right = _distinct(a), _distinct(b)
    if len(left) != len(right):
        return False
    for one in left:
        match = next((at for at, other in enumerate(right) if same(one, other)), None)
        if match is None:
            return False
        del right[match]
    return True


def _distinct(items: tuple[Answer, ...]) -> list[Answer]:
    found: list[Answer] = []
    for item in items:
        if not any(item == other or same(item, other) for other in found):
            found.append(item)
    return found


def _same_region(a: Region, b: Region) -> bool:
    if a.variable and b.variable and a.variable != b.variable:
        return False
    return len(a.spans) == len(b.spans) and all(
        (x.low_closed, x.high_closed) == (y.low_closed, y.high_closed)
        and _same_end(x.low, y.low)
        and _same_end(x.high, y.high)
        for x, y in zip(a.spans, b.spans, strict=True)
    )


def _same_end(a: Node | None, b: Node | None) -> bool:
    if a is None or b is None:
        return a is b
    return ball_arithmetic.same_value(a, b)


def _same_quantity(a: Value, b: Value) -> bool:
    """Units that contradict are wrong; one that is missing is accepted; of percent both readings are."""
    one, other = a.unit, b.unit
    if one is not None and other is not None and _measures(one) and _measures(other):
        if (one.measures, one.noun) != (other.measures, other.noun):
            return False
        return (one.size == other.size and _same_number(a, b)) or ball_arithmetic.same_value(_sized(a), _sized(b))
    if _same_number(a, b):
        return True
    for percent, plain in ((a, b), (b, a)):
        if percent.unit == PERCENT and plain.unit is None:
            step = None if percent.half_step is None else percent.half_step * PERCENT.size
            return _same_number(Value(_sized(percent), None, step), plain)
        if plain.unit is None and percent.unit is not None and (reread := _with_unit(plain, percent.unit)) is not None:
            return _same_quantity(percent, reread)
    return False


def _measures(unit: Unit) -> bool:
    return bool(unit.measures or unit.noun)


def _with_unit(value: Value, unit: Unit) -> Value | None:
    """5m, where the other answer says metres."""
    text = value.text.rstrip()
    if text[-1:] in SINGLE and parse_unit(text[-1]) == unit and len(text) > 1:
        try:
            return Value(parse(plain_number(text[:-1])), unit)
        except UnreadableError:
            return None
    return None


def _sized(value: Value) -> Node:
    size = value.unit.size if value.unit else Fraction(1)
    return Apply("mul", (value.node, Number(size)))


def _same_number(a: Value, b: Value) -> bool:
    if ball_arithmetic.same_value(a.node, b.node):
        return True
    for decimal, other in ((a, b), (b, a)):
        if decimal.half_step is not None and ball_arithmetic.rounds_to(
            other.node, _decimal(decimal.node), decimal.half_step
        ):
            return True
    return False


def _decimal(node: Node) -> Fraction:
    """The exact value of a decimal literal as the grammar reads it."""
    if isinstance(node, Number):
        return node.value
    assert isinstance(node, Apply)
    args = [_decimal(arg) for arg in node.args]
    if node.head == "neg":
        return -args[0]
    if node.head == "pow":
        return args[0] ** int(args[1])
    return args[0] * args[1]
