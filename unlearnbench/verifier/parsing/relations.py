r"""Equations, inequalities and memberships: x=5, m+n=293, a<b<c, |x-1|<2, x \in (0,1)."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

from unlearnbench.verifier.math.ball_arithmetic import order
from unlearnbench.verifier.math.evaluation import UndecidedError
from unlearnbench.verifier.math.families import affine
from unlearnbench.verifier.math.interval_sets import intersection
from unlearnbench.verifier.math.nodes import (
    Answer,
    Apply,
    Collection,
    Equation,
    Family,
    Infinite,
    Labelled,
    Node,
    Number,
    Ordering,
    Ratio,
    Region,
    Span,
    Symbol,
    UnreadableError,
    Value,
    Words,
    difference,
    names_in,
    symbols,
)
from unlearnbench.verifier.parsing.brackets import bare, closes, split
from unlearnbench.verifier.parsing.latex_parser import parse
from unlearnbench.verifier.parsing.names import name_of
from unlearnbench.verifier.parsing.quantities import plain_number, quantity

Reader = Callable[[str], Answer]
"""Reads any answer; given by `answer_parser`, which calls this module."""

RELATIONS = re.compile(r"<|>|=|\\(?:le|ge|ne|in|approx|neq|equiv|mid)(?![A-Za-z])")
_COLON = re.compile(r"(?<!\\):\s*")
_MODULO = re.compile(r"\(?(?:\\[pb]?mod|\\text ?\{ ?mod ?\}|mod) ?\{?([0-9]{1,9})\}? ?\)?")
_ONE_LETTER = re.compile("[a-z]")
_MULTIPLE = "\\kappa_0"
_COMMA = re.compile(",")
_LETTER = {"e": "e", "i": "i"}
"""Constants, which are names where values are given to them together with others."""
_INFINITE = re.compile(r"([-+]?) ?(?:\\infty|infinity|inf|oo)", re.I)
_WORD_BEFORE_COLON = re.compile(
    r"[A-Za-z][A-Za-z ']{2,40}|\\(?:text|mathrm|textbf|mathbf) ?\{ ?[A-Za-z][A-Za-z ']{1,40}:? ?\}"
)


def relation(text: str, read: Reader) -> Answer | None:
    """What a text with a relation outside all brackets states; None where it has none. Raises UnreadableError."""
    terms, signs = split(text, RELATIONS)
    signs = [sign.strip() for sign in signs]
    if not signs:
        return None
    if signs == ["\\mid"]:
        left, right = (Value(parse(plain_number(term))) for term in terms)
        return Labelled("divisor and multiple", Collection("tuple", (left, right)))
    if signs == ["\\in"]:
        return _member(terms[0], read(terms[1]))
    if signs == ["\\equiv"] and (name := name_of(terms[0])) is not None and "mod" not in terms[1]:
        return Labelled(name, read(terms[1]))  # f \equiv 0
    if signs == ["\\approx"]:
        name = name_of(terms[0]) if terms[0] else ""
        if name is None:
            raise UnreadableError("a relation of something else than a name")
        return Labelled(name, read(terms[1])) if name else read(terms[1])
    if all(sign == "=" for sign in signs):
        return _equation(terms, read)
    if not all(terms) or {"\\in", "\\approx", "=", "\\equiv", "\\mid"} & set(signs):
        raise UnreadableError("a chain of relations")
    if "\\ne" in signs:
        return _unequal(terms)
    return _inequality(terms, signs)


def named_with_colon(text: str, read: Reader) -> Answer | None:
    """A value behind a word and a colon: Minimum: 1."""
    terms, colons = split(text, _COLON)
    if len(colons) != 1 or not terms[1] or _WORD_BEFORE_COLON.fullmatch(terms[0]) is None:
        found = re.match(r"(\\(?:text|mathrm|textbf|mathbf) ?\{ ?[A-Za-z][A-Za-z ']{1,40}): ?\}\s*(?=\S)", text)
        if found is None:
            return None
        terms = [found[1] + "}", text[found.end() :]]
    name = name_of(terms[0])
    return None if name is None or len(name) < 3 else Labelled(name, read(terms[1]))


def _member(element: str, whole: Answer) -> Answer:
    r"""x \in (0,1), x \in \{1,2\}, (x,y) \in \{(1,2)\}."""
    names = _names_of_tuple(element)
    if names is not None:
        return _distributed(names, whole)
    name = name_of(element) or _LETTER.get(element)
    if name is None:
        raise UnreadableError("a member that has no name")
    if isinstance(whole, Region):
        return Region(whole.spans, name)
    if isinstance(whole, Collection) and whole.kind == "set" and whole.items:
        return Collection("list", tuple(Labelled(name, item) for item in whole.items))
    if isinstance(whole, Words):
        return whole
    region = whole if isinstance(whole, Collection) and whole.kind == "tuple" else None
    if region is not None and len(region.items) == 2:  # x \in (0,1) is an interval
        low, high = (getattr(item, "node", None) for item in region.items)
        if low is not None and high is not None:
            return Region((Span(low, high, False, False),), name)
    raise UnreadableError("a member of something else than a set")


def _names_of_tuple(text: str) -> list[str] | None:
    """The names in (x,y); None where the text is something else."""
    if not (text.startswith("(") and text.endswith(")")) or closes(text, 0) != len(text) - 1:
        return None
    parts = split(text[1:-1], _COMMA)[0]
    names = [name for part in parts if (name := _LETTER.get(part) or name_of(part)) is not None]
    return names if len(names) == len(parts) > 1 else None


def _distributed(names: list[str], values: Answer) -> Answer:
    """(x,y)=(1,2), and every tuple of several."""
    if isinstance(values, Collection) and values.kind == "tuple" and len(values.items) == len(names):
        return Collection("tuple", tuple(map(Labelled, names, values.items)))
    if isinstance(values, Collection) and values.kind in ("list", "set") and values.items:
        return Collection("list", tuple(_distributed(names, item) for item in values.items))
    if isinstance(values, Region) and len(values.spans) == 1 and len(names) == 2:
        (span,) = values.spans  # (x,y)=(1,\infty) is not a point
        raise UnreadableError(f"an interval for {names} that starts at {span.low}")
    raise UnreadableError("names and values of different number")


# --- equations ---


def _equation(terms: list[str], read: Reader) -> Answer:
    if not all(terms):
        raise UnreadableError("an equation without a side")
    left, right = terms[0], terms[-1]
    name = name_of(left, closed=_is_closed(right))
    if name is None and len(terms) == 2 and (other := name_of(right, closed=_is_closed(left))) is not None:
        left, right, name = right, left, other
    if left.startswith("(") and "," in left and (names := _names_of_tuple(left)) is not None:
        return _distributed(names, read(right))
    equation = _both_sides(left, right)
    if name is not None:
        if len(terms) > 2 and all(_ONE_LETTER.fullmatch(term) for term in terms[:-1]):
            return Labelled("=".join(terms[:-1]), read(right))  # x=y=z=0
        return _labelled(name, read(right), equation)
    if equation is None:
        raise UnreadableError("an equation of something else than numbers")
    if not symbols(equation.node):
        return read(right)  # of a chain of numbers, 2+3=5, the last one is stated, true or not
    return equation


def _labelled(name: str, answer: Answer, equation: Equation | None) -> Answer:
    if (
        isinstance(answer, Collection)
        and answer.kind == "list"
        and not any(isinstance(item, Labelled | Equation | Collection) for item in answer.items)
    ):  # x = \pm 2
        return Collection("list", tuple(Labelled(name, item) for item in answer.items))
    if isinstance(answer, Ratio) and name.count("/") not in (0, len(answer.parts) - 1):
        raise UnreadableError("a ratio of names of different number")
    return Labelled(name, answer, equation)


def _both_sides(left: str, right: str) -> Equation | None:
    try:
        return Equation(difference(parse(plain_number(left)), parse(plain_number(right))), "=")
    except UnreadableError:
        return None


def _is_closed(text: str) -> bool:
    """Whether a text is a value without variables; what is not in the grammar is taken for one."""
    try:
        return not symbols(quantity(bare(text)).node)
    except UnreadableError:
        return re.search(r"(?<![A-Za-z\\])[a-z](?![A-Za-z])", text) is None


def congruence(left: str, rests: list[str], modulus: str) -> Family | None:
    r"""n \equiv 3 \pmod 5 as the family n = 3 + 5k; None where no name stands on the left. Raises UnreadableError."""
    found, name = _MODULO.fullmatch(modulus), name_of(left)
    if found is None or name is None:
        return None
    period = Number(Fraction(int(found[1])))
    nodes = [parse(rest) for rest in rests]
    if any(map(symbols, nodes)):
        raise UnreadableError("a congruence of something else than numbers")
    moving = Apply("mul", (period, Symbol(_MULTIPLE)))
    values = tuple(Labelled(name, Value(Apply("add", (node, moving)))) for node in nodes)
    return Family(values[0] if len(values) == 1 else Collection("list", values), ((_MULTIPLE, "Z"),))


def _unequal(terms: list[str]) -> Answer:
    if len(terms) > 2:
        raise UnreadableError("a chain of relations")
    left, right = (parse(plain_number(term)) for term in terms)
    if isinstance(left, Symbol) and not symbols(right):
        return Region((Span(None, right, False, False), Span(right, None, False, False)), left.name)
    return Equation(difference(left, right), "!=")


# --- inequalities ---


def _inequality(terms: list[str], signs: list[str]) -> Answer:
    ascending = all(sign in ("<", "\\le") for sign in signs)
    if not ascending and not all(sign in (">", "\\ge") for sign in signs):
        raise UnreadableError("a chain of inequalities of both directions")
    if not ascending:
        terms, signs = terms[::-1], signs[::-1]
    closed = [sign in ("\\le", "\\ge") for sign in signs]
    ends = [end(terms[0], -1), *(end(term, 1) for term in terms[1:])]
    if len(ends) == 2:
        low, high = ends
        return _one_sided(low, high, terms, closed[0])
    if len(ends) == 3 and all(one is None or not symbols(one) for one in (ends[0], ends[2])) and ends[1] is not None:
        between = _between(ends[1], terms[1], Span(ends[0], ends[2], closed[0], closed[1]))
        if between is not None:
            return between
    if any(one is None for one in ends):
        raise UnreadableError("infinity in a chain of expressions")
    return Ordering(tuple(one for one in ends if one is not None), _order_signs(closed))


def _order_signs(closed: list[bool]) -> tuple[Literal[">", ">="], ...]:
    return tuple(">=" if one else ">" for one in closed)


def _one_sided(low: Node | None, high: Node | None, terms: list[str], closed: bool) -> Answer:
    for middle, text, span in (
        (low, terms[0], Span(None, high, False, closed)),
        (high, terms[1], Span(low, None, closed, False)),
    ):
        limit = span.high if span.low is None and middle is low else span.low
        if middle is not None and (limit is None or not symbols(limit)) and symbols(middle):
            between = _between(middle, text, span)
            if between is not None:
                return between
    if low is None or high is None:
        raise UnreadableError("infinity in an inequality")
    return Equation(difference(high, low), ">=" if closed else ">")


def _between(middle: Node, text: str, span: Span) -> Region | None:
    """The region of a variable, or of what is between the ends; None where it is neither named nor solved here."""
    if isinstance(middle, Symbol) and "(" not in middle.name:
        return Region((span,), middle.name)
    if isinstance(middle, Apply) and middle.head == "abs":
        return _of_modulus(middle.args[0], span)
    name = name_of(text)
    return None if name is None else Region((span,), name)


def _of_modulus(inner: Node, span: Span) -> Region | None:
    r"""1 \le |x-2| < 5 as intervals of x; None where |...| holds more than one variable and numbers."""
    names = symbols(inner)
    if len(names) != 1 or "i" in names_in(inner):
        return None
    (name,) = names
    steps = affine(inner, name)
    if steps is None:
        return None
    offset, slope = steps
    nothing = Number(Fraction(0))
    try:
        positive = order(slope, nothing) > 0
        low = -1 if span.low is None else order(span.low, nothing)
        high = 1 if span.high is None else order(span.high, nothing)
    except UndecidedError:
        return None
    if high < 0:
        return Region((), name)

    def solved(value: Node | None) -> Node | None:
        return None if value is None else Apply("div", (difference(value, offset), slope))

    def minus(value: Node | None) -> Node | None:
        return None if value is None else Apply("neg", (value,))

    def region(low: Node | None, high: Node | None, low_closed: bool, high_closed: bool) -> Region:
        if positive:
            return Region((Span(solved(low), solved(high), low_closed, high_closed),), name)
        return Region((Span(solved(high), solved(low), high_closed, low_closed),), name)

    whole = region(minus(span.high), span.high, span.high_closed, span.high_closed)
    if low < 0 or (low == 0 and span.low_closed):
        return whole
    outside = [
        region(None, minus(span.low), False, span.low_closed).spans[0],
        region(span.low, None, span.low_closed, False).spans[0],
    ]
    return intersection([whole, Region(tuple(outside if positive else outside[::-1]), name)])


def end(text: str, side: Literal[-1, 1]) -> Node | None:
    """The lower (-1) or upper (1) end of an interval; None if it is infinite. Raises UnreadableError."""
    text = bare(text)
    if (endless := infinite(text)) is not None:
        if endless.sign != side:
            raise UnreadableError("an infinite end on the wrong side")
        return None
    return quantity(text).node


def infinite(text: str) -> Infinite | None:
    """Infinity, with its sign."""
    found = _INFINITE.fullmatch(text)
    return Infinite(-1 if found[1] == "-" else 1) if found else None
