"""Whether two answers agree, by structure, unit and value. Symmetric: neither is the gold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from unlearnbench.verifier.family_equivalence import may_be_renamed, same_family, same_renamed
from unlearnbench.verifier.math import ball_arithmetic
from unlearnbench.verifier.math.interval_sets import as_region
from unlearnbench.verifier.math.nodes import (
    Answer,
    Apply,
    Choice,
    Clock,
    Collection,
    Date,
    Equation,
    Family,
    Infinite,
    Labelled,
    Matrix,
    Node,
    Number,
    Ordering,
    Pieces,
    Ratio,
    Region,
    Symbol,
    UnreadableError,
    Value,
    Words,
    answer_with,
    difference,
    free_symbols,
    symbols,
)
from unlearnbench.verifier.parsing.answer_parser import read, readings
from unlearnbench.verifier.parsing.names import FUNCTION, SEQUENCE, is_word, names_agree
from unlearnbench.verifier.parsing.normalize import folded, respelled
from unlearnbench.verifier.quantity_equivalence import same_quantity

_LONGEST = 8_000
"""Characters of an answer in one spelling, in which a sign may take several."""
_LETTERS = re.compile(r"[A-Za-z]")
_CHOICES = re.compile(r"(?=[A-H]{2})A?B?C?D?E?F?G?H?")


def same_answer(one: str, other: str) -> bool:
    """Whether two answers agree. Raises UnreadableError or UndecidedError where that is beyond this module."""
    a, b = respelled(one), respelled(other)
    if a == b:
        return True
    if max(len(a), len(b)) > _LONGEST:
        raise UnreadableError("it is too long")
    renamed = may_be_renamed(a, b)
    return any(same(x, y) or (renamed and same_renamed(x, y, same)) for x in readings(a) for y in readings(b))


def same(a: Answer, b: Answer) -> bool:
    """Whether two readings agree. Symmetric. Raises UndecidedError."""
    a, b = _ordered(a, b)
    if isinstance(a, Family):
        return same_family(a, b, same)
    if isinstance(a, Choice):
        return _same_choice(a, b)
    if isinstance(a, Labelled):
        return _same_labelled(a, b)
    if isinstance(a, Equation):
        return _same_equation(a, b)
    if isinstance(a, Collection):
        return _same_collection(a, b)
    if isinstance(a, Words):
        return _letters(a) is not None and _letters(a) == _letters(b)
    if isinstance(a, Region):
        return _is_real_line(a, b) or ((other := as_region(b)) is not None and _same_region(a, other))
    if isinstance(a, Value) and isinstance(b, Value):
        return same_quantity(a, b)
    if isinstance(a, Ratio):
        return _same_ratio(a, b)
    if isinstance(a, Clock):
        return _same_clock(a, b)
    if isinstance(a, Matrix) and isinstance(b, Matrix):
        return [len(row) for row in a.rows] == [len(row) for row in b.rows] and all(
            same(x, y) for row, line in zip(a.rows, b.rows, strict=True) for x, y in zip(row, line, strict=True)
        )
    if isinstance(a, Ordering) and isinstance(b, Ordering):
        return a.signs == b.signs and all(map(ball_arithmetic.same_value, a.terms, b.terms))
    if isinstance(a, Pieces) and isinstance(b, Pieces):
        return _same_pieces(a, b)
    return isinstance(a, Infinite | Date) and a == b


_RANK = (
    *(Family, Choice, Labelled, Equation, Collection, Words, Region, Matrix, Clock, Ratio, Pieces, Ordering),
    *(Date, Infinite, Value),
)


def _ordered(a: Answer, b: Answer) -> tuple[Answer, Answer]:
    return (a, b) if _RANK.index(type(a)) <= _RANK.index(type(b)) else (b, a)


# --- words, choices, times ---


def _letters(answer: Answer) -> str | None:
    if isinstance(answer, Words):
        return answer.text
    return folded(answer.text) if isinstance(answer, Value) and _LETTERS.search(answer.text) else None


def _same_choice(a: Choice, b: Answer) -> bool:
    if isinstance(b, Choice):
        # (B) 12 and (B) 13 contradict
        return a.letter == b.letter and (a.rest is None or b.rest is None or same(a.rest, b.rest))
    if isinstance(b, Value) and isinstance(b.node, Symbol) and b.unit is None:
        return b.node.name.upper() == a.letter
    return a.rest is not None and same(a.rest, b)


def _same_clock(a: Clock, b: Answer) -> bool:
    if isinstance(b, Clock):
        if a.half == b.half or (None in (a.half, b.half) and min(a.hour, b.hour) > 0 and max(a.hour, b.hour) <= 12):
            return (a.hour % 24, a.minute) == (b.hour % 24, b.minute)
        return _minutes(a) is not None and _minutes(a) == _minutes(b)
    if a.half is not None or not a.minute:
        return False
    return _same_ratio(Ratio((Number(Fraction(a.hour)), Number(Fraction(a.minute)))), b)


def _minutes(clock: Clock) -> int | None:
    """Minutes since midnight; None where morning or evening is left open."""
    if clock.half is None:
        return 60 * (clock.hour % 24) + clock.minute if clock.hour > 12 or clock.hour == 0 else None
    return 60 * (clock.hour % 12 + (12 if clock.half == "p" else 0)) + clock.minute


def _same_ratio(a: Ratio, b: Answer) -> bool:
    if isinstance(b, Ratio):
        first, second = a.parts, b.parts
        return len(first) == len(second) and all(
            ball_arithmetic.same_value(Apply("mul", (first[at], second[0])), Apply("mul", (first[0], second[at])))
            for at in range(1, len(first))
        )
    return isinstance(b, Value) and len(a.parts) == 2 and same_quantity(Value(Apply("div", a.parts)), b)


# --- names and equations ---


def _same_labelled(a: Labelled, b: Answer) -> bool:
    if not isinstance(b, Labelled):
        if "=" in a.label and isinstance(b, Collection):  # x=y=z=0
            names = a.label.split("=")
            return same(Collection("record", tuple(Labelled(name, a.answer) for name in names)), b)
        if isinstance(b, Equation):
            return a.equation is not None and _same_equation(a.equation, b)
        return same(a.answer, b)
    b = _with_variables_of(a, b)
    if names_agree(a.label, b.label):
        return same(a.answer, b.answer)
    return a.equation is not None and b.equation is not None and _same_equation(a.equation, b.equation)


def _with_variables_of(a: Labelled, b: Labelled) -> Labelled:
    """f(m)=2m+1 in the variable of f(n)=...; a_k=2k in the index of a_n=..."""
    for pattern in (FUNCTION, SEQUENCE):
        one, other = pattern.fullmatch(a.label), pattern.fullmatch(b.label)
        if one and other and one[2] != other[2] and one[2].count(",") == other[2].count(","):
            renamed = dict(zip(other[2].split(","), map(Symbol, one[2].split(",")), strict=True))
            if set(one[2].split(",")) & (free_symbols(b.answer) - renamed.keys()):
                return b
            label = f"{other[1]}({one[2]})" if pattern is FUNCTION else f"{other[1]}_{one[2]}"
            return Labelled(label, answer_with(b.answer, renamed), b.equation)
    return b


def _same_equation(a: Answer, b: Answer) -> bool:
    one, other = _as_equation(a), _as_equation(b)
    if one is None or other is None or one.sign != other.sign:
        return False
    if symbols(one.node) != symbols(other.node):
        return False
    if not symbols(one.node):
        return _same_comparison(one, other)
    sign = ball_arithmetic.ratio(one.node, other.node)
    return sign is not None and (sign > 0 or one.sign in ("=", "!="))


def _same_comparison(a: Equation, b: Equation) -> bool:
    """Of constants, sin 1 > cos 1: the same two sides. What only states that two are equal says nothing."""
    return a.sign != "=" and ball_arithmetic.same_value(a.node, b.node)


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


def _same_pieces(a: Pieces, b: Pieces) -> bool:
    """The same values under the same conditions; `otherwise` agrees with the one that is left."""
    left, right = [], list(b.rows)
    for value, condition in a.rows:
        match = next((row for row in right if same(value, row[0]) and same(condition, row[1])), None)
        if match is None:
            left.append((value, condition))
        else:
            right.remove(match)
    if not left and not right:
        return True
    if len(left) != 1 or len(right) != 1:
        return False
    return Words("otherwise") in (left[0][1], right[0][1]) and same(left[0][0], right[0][0])


# --- lists, tuples and sets ---


def _same_collection(a: Collection, b: Answer) -> bool:
    if isinstance(b, Collection):
        return _same_collections(a, b)
    if isinstance(b, Region):
        region = as_region(a)
        return region is not None and _same_region(region, b)
    if isinstance(b, Matrix):  # a row or a column is a vector
        return a.kind == "tuple" and 1 in (len(b.rows), *map(len, b.rows)) and _in_order(a.items, sum(b.rows, ()))
    if a.kind == "record":
        return False
    if len(_distinct(a.items)) == 1 and a.kind != "tuple":
        return same(a.items[0], b)
    if isinstance(b, Value) and "," in b.text and a.kind != "tuple":  # 120,240 may be two numbers
        return _same_set(a.items, tuple(read(part) for part in b.text.split(",") if part))
    if isinstance(b, Words) and a.kind == "list":
        return " and ".join(_letters(item) or "?" for item in a.items) == b.text or _same_letters(a, b.text)
    return False


def _same_letters(a: Collection, text: str) -> bool:
    """A,C,D and ACD: the choices of a question with several right ones."""
    letters = [item.text for item in a.items if isinstance(item, Value | Words)]
    return len(letters) == len(a.items) and _CHOICES.fullmatch(text) is not None and sorted(letters) == [*text]


def _same_collections(a: Collection, b: Collection) -> bool:
    kinds = {a.kind, b.kind}
    if "record" in kinds:
        return _same_records(*((a, b) if a.kind == "record" else (b, a)))
    if "tuple" in kinds:
        for whole, one in ((a, b), (b, a)):  # \\{(1,2)\\} and (1,2)
            if whole.kind == "set" and len(whole.items) == 1:
                return same(whole.items[0], one)
        return "set" not in kinds and _in_order(a.items, b.items)
    if _have_own_nouns(a) != _have_own_nouns(b):  # 7 goats and 4 toys: like names, they say which is which
        return _in_order(a.items, b.items)
    return _same_set(a.items, b.items) and (kinds != {"list"} or _repeat_alike(a.items, b.items))


def _repeat_alike(a: tuple[Answer, ...], b: tuple[Answer, ...]) -> bool:
    """Whether no list repeats a value, only one does, or both the same values as often: 1,1,2 is not 1,2,2."""
    if min(len(a) - len(_distinct(a)), len(b) - len(_distinct(b))) == 0:
        return True
    return len(a) == len(b) and all(sum(same(x, y) for y in a) == sum(same(x, y) for y in b) for x in a)


def _have_own_nouns(items: Collection) -> bool:
    """Whether the items count different things, each its own."""
    nouns = {item.unit.noun for item in items.items if isinstance(item, Value) and item.unit and item.unit.noun}
    return len(nouns) == len(items.items) > 1


def _in_order(a: Sequence[Answer], b: Sequence[Answer]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _same_records(a: Collection, b: Collection) -> bool:
    """Names decide where both have them; else the order as it is written, or that of x, y, z."""
    if len(a.items) != len(b.items) or b.kind == "set":
        return False
    named = [item for item in a.items if isinstance(item, Labelled)]
    others = [item for item in b.items if isinstance(item, Labelled)]
    roots = _are_roots([item.label for item in named])
    if roots and others and all(item.label == named[0].label[0] for item in others):  # x_1=1, x_2=2 and x=1 or x=2
        return _same_set(tuple(item.answer for item in named), tuple(item.answer for item in others))
    if len(others) == len(named):
        return _same_by_name(named, others)
    if others:
        return False
    if b.kind == "list" and roots:
        return _same_set(tuple(item.answer for item in named), b.items)
    if b.kind == "list" and all(is_word(item.label) for item in named):
        return _same_set(tuple(item.answer for item in named), b.items)
    if b.kind == "tuple" and _are_consecutive([item.label for item in named]):
        named.sort(key=lambda item: item.label.lstrip("\\"))
    return _in_order([item.answer for item in named], b.items)


def _same_by_name(named: list[Labelled], others: list[Labelled]) -> bool:
    """Whether each value agrees with the one of the same name, or of a name that can mean the same."""
    left = list(others)
    for one in sorted(named, key=lambda item: all(item.label != other.label for other in others)):
        match = next((other for other in left if other.label == one.label), None)
        match = match or next((other for other in left if names_agree(one.label, other.label)), None)
        if match is None or not same(one.answer, match.answer):
            return False
        left.remove(match)
    return not left


def _are_roots(labels: list[str]) -> bool:
    """Whether names number the solutions of an equation, x_1 and x_2, in no order of their own."""
    return all(re.fullmatch("[xyzt]_[0-9]", label) and label[0] == labels[0][0] for label in labels)


def _are_consecutive(labels: list[str]) -> bool:
    """Whether names have an order of their own: x, y, z; a, b; x_1, x_2."""
    keys = sorted(label.lstrip("\\") for label in labels)
    if all(len(key) == 1 for key in keys):
        return all(ord(y) - ord(x) == 1 for x, y in pairwise(keys))
    return all(re.fullmatch(r"[A-Za-z]_[0-9]", key) and key[0] == keys[0][0] for key in keys)


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


# --- regions and values ---


def _is_real_line(a: Region, b: Answer) -> bool:
    """R for the set of real numbers."""
    whole = len(a.spans) == 1 and a.spans[0].low is None and a.spans[0].high is None
    return whole and isinstance(b, Value) and b.node == Symbol("R") and b.unit is None


def _same_region(a: Region, b: Region) -> bool:
    if a.variable and b.variable and not names_agree(a.variable, b.variable):
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
