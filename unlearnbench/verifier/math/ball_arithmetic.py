"""Whether two expressions have the same value, by ball arithmetic (Arb, through python-flint).

Two values whose difference excludes 0 are proved to be different. Two values whose difference still includes 0 at a
precision beyond every magnitude that occurs on the way are taken to be equal: texts of bounded size leave no room for a
coincidence of hundreds of digits. Expressions with variables are compared at rational points drawn from the texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from fractions import Fraction

from flint import arb, ctx, fmpq

from unlearnbench.verifier.math.evaluation import Evaluation, TooLargeError, UndecidedError, exact
from unlearnbench.verifier.math.nodes import COUNTERS, Apply, Node, Number, names_in, substituted, symbols

_FIRST_BITS = 128
_SPARE_BITS = 384
"""Bits of agreement beyond every magnitude on the way: over 100 decimal digits."""
_MOST_BITS = 1 << 19
_POINTS = 4
"""Points at which two expressions with variables must agree."""
_TRIES = 48
_WHOLE_FROM = 32
"""The try from which on points are whole numbers, as binomial coefficients and sums need them."""
_PIECEWISE = frozenset({"abs", "floor", "ceil", "min", "max", "sqrt", "root", "gcd", "lcm"})
"""Functions that may be alike here and different far away: compared at all points."""
_ROUNDED = frozenset({"floor", "ceil"})
_SIZES = (6, 12, 40, 400)
"""Of whole numbers at which expressions are compared that round something of n: all that is meant are whole n."""
_FAR = 10**9


def same_value(a: Node, b: Node) -> bool:
    """Whether two expressions have the same value wherever both are defined. Raises UndecidedError.

    A logarithm without a base may be natural or decimal, the same in both. Real variables; where neither mentions i
    only points at which every step is real are compared.
    """
    if a == b:
        return True
    used = names_in(a) | names_in(b)
    return _same(a, b, used, decimal=False) or ("log" in used and _same(a, b, used, decimal=True))


def rounds_to(value: Node, decimal: Fraction, half_step: Fraction) -> bool:
    """Whether a constant lies within half a step of a decimal. Raises UndecidedError."""
    if symbols(value):
        return False
    low, high = Evaluation({}, False, True), fmpq(half_step.numerator, half_step.denominator)
    ctx.prec = _FIRST_BITS + 2 * _SPARE_BITS
    difference = abs(low.value(value) - exact(decimal))
    return not bool(difference.real > arb(high)) and bool(abs(difference.imag) < arb(2) ** -_SPARE_BITS)


def near_integer(node: Node) -> int:
    """A whole number within 1 of a real constant. Raises UndecidedError."""
    ctx.prec = _FIRST_BITS
    value = Evaluation({}, False, False).value(node).real
    whole = value.mid().floor().unique_fmpz()
    if whole is None or abs(whole) > _FAR:
        raise TooLargeError("it is too large")
    return int(whole)


def rational(node: Node, largest: int) -> Fraction | None:
    """The rational number with a denominator up to `largest` that a constant is; None if it is none of them."""
    ctx.prec = _FIRST_BITS
    middle = Evaluation({}, False, False).value(node).real.mid()
    mantissa, exponent = middle.man_exp()
    if int(exponent) > 64 or int(exponent) < -4 * _FIRST_BITS:
        return None
    near = (Fraction(int(mantissa)) * Fraction(2) ** int(exponent)).limit_denominator(largest)
    return near if same_value(node, Number(near)) else None


def order(a: Node, b: Node) -> int:
    """-1, 0 or 1: how two real constants compare. Raises UndecidedError."""
    if same_value(a, b):
        return 0
    ctx.prec = _FIRST_BITS + _SPARE_BITS
    evaluation = Evaluation({}, False, False)
    difference = (evaluation.value(a) - evaluation.value(b)).real
    if difference > 0:
        return 1
    if difference < 0:
        return -1
    raise UndecidedError("the order of two constants")


def ratio(a: Node, b: Node) -> int | None:
    """The sign of a/b if that is one constant other than 0 (at all points), else None. Raises UndecidedError."""
    names = sorted(symbols(a) | symbols(b))
    if not names:
        raise UndecidedError("no variable")
    first: tuple[Node, Node] | None = None
    sign, agreed = 0, 0
    for point in _points(names, a, b):
        values = {name: Number(Fraction(int(value.p), int(value.q))) for name, value in point.items()}
        here = substituted(a, values), substituted(b, values)
        ctx.prec = _FIRST_BITS
        try:
            one, other = (Evaluation({}, False, False).value(side) for side in here)
        except UndecidedError:
            continue
        if one.contains(0) or other.contains(0):
            if one.contains(0) != other.contains(0):
                return None
            continue
        if first is None:
            first = here
            sign = 1 if (one / other).real > 0 else -1
        elif not same_value(Apply("mul", (first[0], here[1])), Apply("mul", (here[0], first[1]))):
            return None
        agreed += 1
        if agreed > _POINTS:
            return sign
    raise UndecidedError("too few points")


def _same(a: Node, b: Node, used: frozenset[str], *, decimal: bool) -> bool:
    """`used`: the heads and symbols of both."""
    names = sorted(symbols(a) | symbols(b))
    unreal = not used.isdisjoint({"i", "cis"})
    if not names:
        return _same_at({}, a, b, decimal, True)
    piecewise = not used.isdisjoint(_PIECEWISE)
    whole = not used.isdisjoint(_ROUNDED) and COUNTERS.issuperset(names)
    for allowed in (unreal, True):
        agreed = 0
        for point in _points(names, a, b, whole=whole):
            try:
                if not _same_at(point, a, b, decimal, allowed):
                    return False
            except UndecidedError:
                continue
            agreed += 1
            if agreed >= _POINTS and not piecewise:
                return True
        if agreed >= _POINTS:
            return True
        if allowed:
            break
    raise UndecidedError("too few points at which both are defined")


def _same_at(point: Mapping[str, fmpq], a: Node, b: Node, decimal: bool, unreal: bool) -> bool:
    bits = _FIRST_BITS
    while True:
        ctx.prec = bits
        evaluation = Evaluation(point, decimal, unreal)
        one, other = evaluation.value(a), evaluation.value(b)
        difference = one - other
        if not difference.contains(0):
            return False
        needed = 2 * evaluation.magnitude + _SPARE_BITS
        if bits >= needed:
            return True
        if needed > _MOST_BITS:
            raise TooLargeError("it is too large")
        bits = needed + _FIRST_BITS


def _points(names: list[str], a: Node, b: Node, *, whole: bool = False) -> Iterator[dict[str, fmpq]]:
    """Rational points of many sizes and signs: nobody can write an answer that fits them, and order plays no part."""
    texts = "\n".join(sorted((repr(a), repr(b))))
    for number in range(_TRIES):
        point = {}
        for name in names:
            drawn = hashlib.sha256(f"{number}\n{name}\n{texts}".encode("utf-8", "surrogatepass")).digest()
            if whole or number >= _WHOLE_FROM:
                size = _SIZES[number % 4] if whole else 12
                point[name] = fmpq(1 + int.from_bytes(drawn[:4], "big") % size)
                continue
            size = (1, 3, 1, 12, 1, 100, 3, 4000)[number % 8]
            fraction = Fraction(int.from_bytes(drawn[:6], "big") | 1, 1 << 48) * size
            negative = number % 4 == 2 or (number % 4 == 3 and drawn[7] & 1)
            fraction = -fraction if negative else fraction
            point[name] = fmpq(fraction.numerator, fraction.denominator)
        yield point
