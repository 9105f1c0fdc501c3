"""Whether two quantities agree: number, unit, currency, percentage and angle."""

from __future__ import annotations

from fractions import Fraction

from unlearnbench.verifier.math import ball_arithmetic
from unlearnbench.verifier.math.nodes import Apply, Node, Number, Symbol, UnreadableError, Value, names_in
from unlearnbench.verifier.math.units import DEGREE, PERCENT, SINGLE, Unit, parse_unit
from unlearnbench.verifier.parsing.latex_parser import parse
from unlearnbench.verifier.parsing.quantities import plain_number

_RADIAN = parse_unit("radian")
_ANGLES = {DEGREE.measures, _RADIAN.measures if _RADIAN else ()}
_POUNDS = {parse_unit("gbp"), parse_unit("pounds")}
"""Of money and of mass, which have one name."""


def same_quantity(a: Value, b: Value) -> bool:
    """Units that contradict are wrong; one that is missing is accepted; of percent both readings are."""
    one, other = a.unit, b.unit
    if one is not None and other is not None and _measures(one) and _measures(other):
        if {one.measures, other.measures} == _ANGLES:
            return _same_angle(a, b)
        if {one, other} == _POUNDS:
            return _same_number(a, b)
        if (one.measures, one.noun) != (other.measures, other.noun):
            return False
        return (one.size == other.size and _same_number(a, b)) or ball_arithmetic.same_value(_sized(a), _sized(b))
    if _same_number(a, b):
        return True
    for percent, plain in ((a, b), (b, a)):
        if percent.unit == PERCENT and plain.unit is None:
            step = None if percent.half_step is None else percent.half_step * PERCENT.size
            return _same_number(Value(_sized(percent), None, step), plain)
        if percent.unit == DEGREE and plain.unit is None and "pi" in names_in(plain.node):
            return _same_angle(a, b)
        if plain.unit is None and percent.unit is not None and (reread := _with_unit(plain, percent.unit)) is not None:
            return same_quantity(percent, reread)
    return False


def _same_angle(a: Value, b: Value) -> bool:
    """30 degrees and pi/6."""
    degrees, radians = (a, b) if a.unit == DEGREE else (b, a)
    turned = Apply("div", (Apply("mul", (_sized(degrees), Symbol("pi"))), Number(Fraction(180))))
    return ball_arithmetic.same_value(turned, radians.node)


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
