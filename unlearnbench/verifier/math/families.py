r"""Families of answers in a parameter, k\pi for every integer k, compared as the sets that they are.

A family that is affine in its parameter is a progression: an offset and a step, for each of its coordinates. Unions of
progressions with commensurable steps are expanded to one common step and compared offset by offset, so that 2k+1 is
2k-1, and k\pi is not 2k\pi.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import NamedTuple

from unlearnbench.verifier.math.ball_arithmetic import near_integer, rational, same_value
from unlearnbench.verifier.math.evaluation import UndecidedError
from unlearnbench.verifier.math.nodes import (
    Answer,
    Apply,
    Collection,
    Labelled,
    Node,
    Number,
    Region,
    Symbol,
    Value,
    difference,
    substituted,
    symbols,
)
from unlearnbench.verifier.math.units import DEGREE

_LARGEST = 60
"""Of the denominators of one step over another."""
_MOST_OFFSETS = 24
"""Progressions of one union after they were expanded to a common step."""
_CYCLES = (1, 2, 3, 4)
"""Lengths of the cycles in which something like (-1)^k repeats."""
_CHECKED = (2, 5, -3, 17)
_Vector = tuple[Node, ...]


class Named(NamedTuple):
    """The shape of a value that has a name."""

    name: str
    shape: Hashable


class Progression(NamedTuple):
    """offset + step * k for every integer k, in each coordinate. `shape`: what the coordinates belong to."""

    shape: Hashable
    offsets: tuple[Node, ...]
    steps: tuple[Node, ...]

    @property
    def in_degrees(self) -> bool:
        """Whether it is one of angles in degrees."""
        shape = self.shape.shape if isinstance(self.shape, Named) else self.shape
        return shape == ("value", DEGREE)


def affine(node: Node, name: str) -> tuple[Node, Node] | None:
    """Offset and slope of an expression that is affine in a variable, by its values; else None."""
    if name not in symbols(node):
        return node, Number(Fraction(0))

    def at(number: int) -> Node:
        return substituted(node, {name: Number(Fraction(number))})

    offset = at(0)
    slope = difference(at(1), offset)
    try:
        if all(same_value(at(k), _plus(offset, k, slope)) for k in _CHECKED):
            return offset, slope
    except UndecidedError:
        pass
    return None


def progressions(answer: Answer, name: str) -> list[Progression] | None:
    """The progressions in the parameter `name` that make up an answer; None where it is something else."""
    found: list[Progression] = []
    for shape, nodes in _coordinates(answer):
        if shape is None:
            return None
        for cycle in _CYCLES:
            rows = [_affine_row(nodes, name, cycle, rest) for rest in range(cycle)]
            if all(row is not None for row in rows):
                found += [Progression(shape, *row) for row in rows if row is not None]
                break
        else:
            return None
    return found


def _affine_row(
    nodes: Sequence[Node], name: str, cycle: int, rest: int
) -> tuple[tuple[Node, ...], tuple[Node, ...]] | None:
    step = Apply("add", (Apply("mul", (Number(Fraction(cycle)), Symbol(name))), Number(Fraction(rest))))
    pairs = [affine(node if cycle == 1 else substituted(node, {name: step}), name) for node in nodes]
    if any(pair is None for pair in pairs):
        return None
    return tuple(pair[0] for pair in pairs if pair), tuple(pair[1] for pair in pairs if pair)


def _coordinates(answer: Answer) -> Iterator[tuple[Hashable, list[Node]]]:
    """The items of an answer with their coordinates; a shape of None is of something that has none."""
    if isinstance(answer, Value):
        yield ("value", answer.unit), [answer.node]
    elif isinstance(answer, Labelled):
        for shape, nodes in _coordinates(answer.answer):
            yield (None if shape is None else Named(answer.label, shape)), nodes
    elif isinstance(answer, Region):
        for span in answer.spans:
            shape = ("span", span.low is None, span.high is None, span.low_closed, span.high_closed)
            nodes = [one for one in (span.low, span.high) if one is not None]
            yield (Named(answer.variable, shape) if answer.variable else shape), nodes
    elif isinstance(answer, Collection) and answer.kind in ("list", "set"):
        for item in answer.items:
            yield from _coordinates(item)
    elif isinstance(answer, Collection):
        parts = [list(_coordinates(item)) for item in answer.items]
        if any(len(part) != 1 or part[0][0] is None for part in parts):
            yield None, []
        else:
            yield tuple(part[0][0] for part in parts), [node for part in parts for node in part[0][1]]
    else:
        yield None, []


def same_unions(a: Sequence[Progression], b: Sequence[Progression]) -> bool:
    """Whether two unions of progressions over all integers are the same set. Raises UndecidedError."""
    if {one.shape for one in a} != {one.shape for one in b}:
        return False
    return all(
        _same_of_shape([one for one in a if one.shape == shape], [one for one in b if one.shape == shape])
        for shape in {one.shape for one in a}
    )


def same_from(a: Sequence[Progression], b: Sequence[Progression], a_start: int, b_start: int) -> bool:
    """The same where the parameters begin at a number: first members and steps must agree. Raises UndecidedError."""
    if len(a) != len(b):
        return False
    left = [(one.shape, _moved(one, a_start), one.steps) for one in a]
    right = [(one.shape, _moved(one, b_start), one.steps) for one in b]
    return all(any(s == t and _same_vector(x, y) and _same_vector(d, e) for t, y, e in right) for s, x, d in left)


def same_lines(a: Progression, b: Progression) -> bool:
    """Whether two progressions are the same line where their parameter is any real number. Raises UndecidedError."""
    if a.shape != b.shape or len(a.offsets) != len(b.offsets):
        return False
    between = [difference(x, y) for x, y in zip(a.offsets, b.offsets, strict=True)]
    return _parallel(a.steps, b.steps) and _parallel(between, b.steps)


def _parallel(a: Sequence[Node], b: Sequence[Node]) -> bool:
    return all(
        same_value(Apply("mul", (a[i], b[j])), Apply("mul", (a[j], b[i]))) for i in range(len(a)) for j in range(i)
    )


def _same_of_shape(a: list[Progression], b: list[Progression]) -> bool:
    fixed, others = ([one.offsets for one in side if _is_constant(one)] for side in (a, b))
    if not (_within(fixed, others, _same_vector) and _within(others, fixed, _same_vector)):
        return False
    left, right = ([one for one in side if not _is_constant(one)] for side in (a, b))
    if not left or not right:
        return not left and not right
    unit = left[0].steps
    ratios = [_ratio(one.steps, unit) for one in (*left, *right)]
    known = [ratio for ratio in ratios if ratio is not None]
    if len(known) < len(ratios):
        return False
    common = Fraction(lcm(*(ratio.numerator for ratio in known)), gcd(*(ratio.denominator for ratio in known)))
    if max(common / ratio for ratio in known) > _MOST_OFFSETS:
        return False
    period = tuple(_times(common, step) for step in unit)

    def congruent(x: _Vector, y: _Vector) -> bool:
        return _congruent(x, y, period)

    offsets, more = _expanded(left, known, common), _expanded(right, known[len(left) :], common)
    return _within(offsets, more, congruent) and _within(more, offsets, congruent)


def _expanded(union: Sequence[Progression], ratios: Sequence[Fraction], common: Fraction) -> list[_Vector]:
    """The offsets of a union whose progressions have steps of `ratios`, written with the one step `common`."""
    counts = [int(common / ratio) for _, ratio in zip(union, ratios, strict=False)]
    if sum(counts) > _MOST_OFFSETS:
        raise UndecidedError("too many progressions")
    return [_moved(one, start) for one, count in zip(union, counts, strict=True) for start in range(count)]


def _within(left: Sequence[_Vector], right: Sequence[_Vector], same: Callable[[_Vector, _Vector], bool]) -> bool:
    """Whether each vector of one side is the same as one of the other side."""
    return all(any(same(x, y) for y in right) for x in left)


def _ratio(steps: Sequence[Node], unit: Sequence[Node]) -> Fraction | None:
    """The positive rational q with steps = q * unit or -q * unit."""
    at = next(at for at, step in enumerate(unit) if not _is_zero(step))
    try:
        quotient = rational(Apply("div", (steps[at], unit[at])), _LARGEST)
    except UndecidedError:
        quotient = next((q for q in map(Fraction, (1, -1)) if same_value(steps[at], _times(q, unit[at]))), None)
    if not quotient or not _same_vector(steps, [_times(quotient, step) for step in unit]):
        return None
    return abs(quotient)


def _congruent(x: tuple[Node, ...], y: tuple[Node, ...], period: tuple[Node, ...]) -> bool:
    at = next(at for at, step in enumerate(period) if not _is_zero(step))
    try:
        near = near_integer(Apply("div", (difference(x[at], y[at]), period[at])))
        candidates = range(near - 1, near + 2)
    except UndecidedError:
        candidates = range(-2, 3)
    return any(_same_vector(x, [_plus(one, n, step) for one, step in zip(y, period, strict=True)]) for n in candidates)


def _is_constant(one: Progression) -> bool:
    return all(map(_is_zero, one.steps))


def _is_zero(node: Node) -> bool:
    return same_value(node, Number(Fraction(0)))


def _same_vector(a: Sequence[Node], b: Sequence[Node]) -> bool:
    return len(a) == len(b) and all(map(same_value, a, b))


def _moved(one: Progression, start: int) -> tuple[Node, ...]:
    return tuple(_plus(offset, start, step) for offset, step in zip(one.offsets, one.steps, strict=True))


def _times(number: Fraction, node: Node) -> Node:
    return Apply("mul", (Number(number), node))


def _plus(offset: Node, number: int, step: Node) -> Node:
    return Apply("add", (offset, _times(Fraction(number), step)))
