"""Expressions as trees: numbers, symbols, and functions of other expressions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

TRIGONOMETRIC = frozenset({"sin", "cos", "tan", "cot", "sec", "csc"})


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
CONSTANTS = frozenset({"pi", "e", "i"})
REPEATED = frozenset({"sum", "prod"})
"""Heads whose arguments are an index, its first and last value, and what is added or multiplied."""


def symbols(node: Node) -> frozenset[str]:
    """The variables of an expression; the index of a sum is none."""
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


def mentions(node: Node, name: str) -> bool:
    """Whether a symbol or function of that name occurs, constants included."""
    if isinstance(node, Apply):
        return node.head == name or any(mentions(arg, name) for arg in node.args)
    return isinstance(node, Symbol) and node.name == name
