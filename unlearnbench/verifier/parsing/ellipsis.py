r"""Sums and products with an ellipsis, a_1 + a_2 + \ldots + a_n, as what they abbreviate.

The first two terms before the ellipsis say what changes from one term to the next and by how much. Every other term
that is written must fit; otherwise the text is unreadable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from unlearnbench.verifier.math.ball_arithmetic import same_value
from unlearnbench.verifier.math.evaluation import UndecidedError
from unlearnbench.verifier.math.families import affine
from unlearnbench.verifier.math.nodes import (
    Apply,
    Node,
    Number,
    Symbol,
    UnreadableError,
    difference,
    substituted,
    symbols,
)

ELLIPSIS = Apply("ellipsis", ())
_COUNTER = "\\iota"
_STEPS = (1, -1, 2, -2)
_NOTHING = Number(Fraction(0))


def without_ellipsis(terms: Sequence[Node], head: str, parse: Callable[[str], Node]) -> list[Node]:
    """Terms of a sum (`add`) or product (`mul`), those around an ellipsis as one. Raises UnreadableError.

    `parse` reads the indices of symbols, k-1 of a_{k-1}.
    """
    if ELLIPSIS not in terms:
        return list(terms)
    at = terms.index(ELLIPSIS)
    before, after = terms[:at], terms[at + 1 :]
    if ELLIPSIS in after or not after or not before:
        raise UnreadableError("an ellipsis without an end")
    for start in range(max(0, len(before) - 6), len(before)):
        run = [_indexed(term, parse) for term in before[start:]]
        try:
            whole = _abbreviated(run, _indexed(after[0], parse), "sum" if head == "add" else "prod")
        except UndecidedError:
            whole = None
        if whole is not None:
            return [*before[:start], whole, *after[1:]]
    raise UnreadableError("an ellipsis of an unknown rule")


def _indexed(node: Node, parse: Callable[[str], Node]) -> Node:
    """The expression with a_{k-1} as a function of its index."""
    if isinstance(node, Symbol):
        letter, found, index = node.name.partition("_")
        return Apply(f"{letter}_", (parse(index),)) if found and index and len(letter) == 1 else node
    if isinstance(node, Apply):
        return Apply(node.head, tuple(_indexed(arg, parse) for arg in node.args))
    return node


def _abbreviated(run: Sequence[Node], last: Node, head: str) -> Node | None:
    """The sum or product from the first term of the run to the last; None where the first two follow no rule.

    Raises UnreadableError where they do and another term does not fit.
    """
    body = _rule(run[0], run[1]) if len(run) > 1 else _rule_to(run[0], last)
    if body is None:
        return None
    ends: list[Node] = []
    fits = all(
        same_value(term, substituted(body, {_COUNTER: Number(Fraction(number))})) for number, term in enumerate(run)
    )
    if not fits or not _collect(body, last, ends) or not ends:
        raise UnreadableError("an ellipsis of an unknown rule")
    even = all(same_value(end, ends[0]) for end in ends[1:])
    if not even or any(affine(ends[0], name) is None for name in symbols(ends[0])):  # 2+4+\ldots+2^n is no such sum
        raise UnreadableError("an ellipsis of an unknown rule")
    return Apply(head, (Symbol(_COUNTER), _NOTHING, ends[0], body))


def _moving(first: Node, step: int) -> Node:
    return Apply("add", (first, Apply("mul", (Number(Fraction(step)), Symbol(_COUNTER)))))


def _rule(first: Node, second: Node) -> Node | None:
    """The term of number j, given those of 0 and 1; None where they differ by no whole step."""
    if first == second:
        return first
    if isinstance(first, Apply) and isinstance(second, Apply) and _alike(first, second):
        args = [_rule(x, y) for x, y in zip(first.args, second.args, strict=True)]
        if all(arg is not None for arg in args):
            return Apply(first.head, tuple(arg for arg in args if arg is not None))
    for step in _STEPS:
        if same_value(second, Apply("add", (first, Number(Fraction(step))))):
            return _moving(first, step)
    return None


def _rule_to(first: Node, last: Node) -> Node | None:
    """The same where only the first and the last term are written: in steps of 1, up from a number or down to one."""
    if first == last:
        return first
    if isinstance(first, Apply) and isinstance(last, Apply) and _alike(first, last):
        args = [_rule_to(x, y) for x, y in zip(first.args, last.args, strict=True)]
        return Apply(first.head, tuple(arg for arg in args if arg is not None)) if None not in args else None
    if isinstance(first, Number):
        return _moving(first, 1)
    return _moving(first, -1) if isinstance(last, Number) else None


def _collect(body: Node, last: Node, ends: list[Node]) -> bool:
    """Note the values of the counter at which the parts of the term become those of the last one."""
    if isinstance(body, Apply) and body.head == "add" and len(body.args) == 2:
        first, product = body.args
        if isinstance(product, Apply) and product.head == "mul" and product.args[-1] == Symbol(_COUNTER):
            ends.append(Apply("div", (difference(last, first), product.args[0])))
            return True
    if isinstance(body, Apply) and isinstance(last, Apply) and _alike(body, last):
        return all(_collect(x, y, ends) for x, y in zip(body.args, last.args, strict=True))
    return body == last


def _alike(a: Apply, b: Apply) -> bool:
    return a.head == b.head and len(a.args) == len(b.args)
