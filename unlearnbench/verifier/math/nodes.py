"""What an answer can be: a value with its unit, words, a tuple or set, intervals, a matrix, an equation, a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Literal, TypeVar

from unlearnbench.verifier.math.units import Unit

TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})
CONSTANTS = frozenset({"pi", "e", "i"})
COUNTERS = frozenset("jkmnN")
"""Names of whole numbers by convention."""
REPEATED = frozenset({"sum", "prod"})
"""Heads whose arguments are an index, its first and last value, and what is added or multiplied."""


class UnreadableError(ValueError):
    """The text is not in the grammar."""


@dataclass(frozen=True, slots=True)
class Number:
    """A rational number, exact: 0.15 is 3/20."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, or one of the constants `pi`, `e` and `i`."""

    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    """A function of other expressions: add, mul, div, pow, neg, sqrt, root, log, sin, factorial, binomial and so on."""

    head: str
    args: tuple[Node, ...]


Node = Number | Symbol | Apply


def symbols(node: Node) -> frozenset[str]:
    """The free variables of an expression; the index of a sum is not free."""
    if isinstance(node, Symbol):
        return frozenset() if node.name in CONSTANTS else frozenset({node.name})
    if isinstance(node, Number):
        return frozenset()
    if node.head in REPEATED:
        index, low, high, body = node.args
        return symbols(low) | symbols(high) | (symbols(body) - symbols(index))
    return frozenset().union(*map(symbols, node.args))


def difference(left: Node, right: Node) -> Node:
    """left - right."""
    return Apply("add", (left, Apply("neg", (right,))))


def names_in(node: Node) -> frozenset[str]:
    """The heads and symbols that occur, constants and indices included."""
    if isinstance(node, Apply):
        return frozenset({node.head}).union(*map(names_in, node.args))
    return frozenset({node.name}) if isinstance(node, Symbol) else frozenset()


def substituted(node: Node, values: Mapping[str, Node]) -> Node:
    """The expression with expressions in place of some of its free variables."""
    if isinstance(node, Symbol):
        return values.get(node.name, node)
    if isinstance(node, Apply) and node.head in REPEATED:
        index, low, high, body = node.args
        inner = {name: value for name, value in values.items() if Symbol(name) != index}
        return Apply(node.head, (index, substituted(low, values), substituted(high, values), substituted(body, inner)))
    if isinstance(node, Apply):
        return Apply(node.head, tuple(substituted(arg, values) for arg in node.args))
    return node


@dataclass(frozen=True, slots=True)
class Value:
    """An expression and what it counts. `half_step`: half a unit of the last place, if it is a decimal that rounds."""

    node: Node
    unit: Unit | None = None
    half_step: Fraction | None = None
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is no mathematics, in lower case without articles."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple-choice question, and the text after it."""

    letter: str
    rest: Answer | None


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day. `half`: am or pm, if it says so."""

    hour: int
    minute: int
    half: str | None


@dataclass(frozen=True, slots=True)
class Date:
    """A day of a year; of any year if that is None."""

    month: int
    day: int
    year: int | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two or more quantities to one another, 2:3; only their proportion counts."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """Answers in order (`tuple`), without order and repetition (`set`), or written as a bare `list`.

    A `record` is a list in which every item has a name of its own: x=1, y=2.
    """

    kind: Literal["tuple", "set", "list", "record"]
    items: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """An interval; an end that is None is infinite."""

    low: Node | None
    high: Node | None
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True)
class Region:
    """A union of intervals, in order, perhaps of values of a variable."""

    spans: tuple[Span, ...]
    variable: str | None = None


@dataclass(frozen=True, slots=True)
class Infinite:
    """Infinity with its sign."""

    sign: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of answers."""

    rows: tuple[tuple[Answer, ...], ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A value with a name: x=5, f(x)=2x+1, \\angle ABC=48^\\circ."""

    label: str
    answer: Answer
    equation: Equation | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation or an inequality: `node` = 0, `node` > 0 (strict), or `node` >= 0."""

    node: Node
    sign: Literal["=", ">", ">=", "!="]


@dataclass(frozen=True, slots=True)
class Ordering:
    """A chain a < b <= c of three or more expressions, in ascending order."""

    terms: tuple[Node, ...]
    signs: tuple[Literal[">", ">="], ...]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A function by cases: answers and the conditions under which they hold."""

    rows: tuple[tuple[Answer, Answer], ...]


@dataclass(frozen=True, slots=True)
class Family:
    """An answer for every value of some parameters, with the domain of each: `Z`, `N`, `N+`, `R`, ... or "" (any)."""

    answer: Answer
    domains: tuple[tuple[str, str], ...]


Answer = (
    Value
    | Words
    | Choice
    | Clock
    | Date
    | Ratio
    | Collection
    | Region
    | Infinite
    | Matrix
    | Labelled
    | Equation
    | Ordering
    | Pieces
    | Family
)
Part = TypeVar("Part")


def answer_with(part: Part, values: Mapping[str, Node]) -> Part:
    """An answer, or any part of one, with expressions in place of some variables, names of values included."""
    if isinstance(part, Number | Symbol | Apply):
        return substituted(part, values)  # type: ignore[return-value]
    if isinstance(part, tuple) and not isinstance(part, Unit):
        return tuple(answer_with(item, values) for item in part)  # type: ignore[return-value]
    if isinstance(part, Answer | Span):
        changed = {one.name: answer_with(getattr(part, one.name), values) for one in fields(part)}
        return replace(part, **changed)
    return part


def free_symbols(part: object) -> frozenset[str]:
    """The free variables of an answer, or of any part of one; names of values are not among them."""
    if isinstance(part, Number | Symbol | Apply):
        return symbols(part)
    if isinstance(part, tuple):
        return frozenset().union(*map(free_symbols, part))
    if isinstance(part, Labelled):
        return free_symbols(part.answer)
    if isinstance(part, Answer | Span):
        return frozenset().union(*(free_symbols(getattr(part, one.name)) for one in fields(part)))
    return frozenset()
