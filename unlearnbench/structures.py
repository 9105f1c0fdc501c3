"""What an answer can be: a value with its unit, words, a tuple or set, intervals, a matrix, an equation, a choice."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from unlearnbench.expressions import Node
from unlearnbench.units import Unit


@dataclass(frozen=True, slots=True)
class Value:
    """An expression and what it counts. `half_step`: half a unit of the last place, if it is a decimal that rounds."""

    node: Node
    unit: Unit | None = None
    half_step: Fraction | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is no mathematics, in lower case without articles."""

    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A letter of a multiple-choice question, and what stands behind it."""

    letter: str
    rest: Answer | None


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day. `half`: am or pm, if it says so."""

    hour: int
    minute: int
    half: str | None


@dataclass(frozen=True, slots=True)
class Collection:
    """Answers in order (`tuple`), without order and repetition (`set`), or written as a bare `list`."""

    kind: Literal["tuple", "set", "list"]
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


Answer = Value | Words | Choice | Clock | Collection | Region | Infinite | Matrix | Labelled | Equation
