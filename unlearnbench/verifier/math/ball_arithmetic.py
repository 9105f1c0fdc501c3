"""Values of expressions as balls that are proved to hold them (Arb, through python-flint), and whether two agree.

Two values whose difference excludes 0 are different, by proof. Two values whose difference still holds 0 at a precision
beyond every magnitude that occurs on the way are taken for equal: texts of bounded size leave no room for a
coincidence of hundreds of digits. Expressions with variables are compared at rational points drawn from the texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import reduce
from math import gcd, lcm

from flint import acb, arb, ctx, fmpq, fmpz

from unlearnbench.verifier.math.nodes import (
    REPEATED,
    TRIGONOMETRIC,
    Apply,
    Node,
    Number,
    Symbol,
    mentions,
    substituted,
    symbols,
)

_FIRST_BITS = 128
_SPARE_BITS = 384
"""Bits of agreement beyond every magnitude on the way: over 100 decimal digits."""
_MOST_BITS = 1 << 19
_POINTS = 4
"""Points at which two expressions with variables must agree."""
_TRIES = 48
_WHOLE_FROM = 32
"""The try from which on points are whole numbers, as binomial coefficients and sums need them."""
_PIECEWISE = ("abs", "floor", "ceil", "min", "max", "sqrt", "root", "gcd", "lcm")
"""Functions that may be alike here and different far away: compared at all points."""
_MOST_TERMS = 2_000
_FAR = 10**9
_LOG10 = "log10"
_ELEMENTARY = {
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "cot": "cot",
    "sec": "sec",
    "csc": "csc",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "coth": "coth",
    "exp": "exp",
    "ln": "log",
    "sqrt": "sqrt",
}


class UndecidedError(ValueError):
    """The values are beyond what is computed here, or not defined."""


class UndefinedError(UndecidedError):
    """The expression has no value there."""


class TooLargeError(UndecidedError):
    """The values are of a size at which they are not told apart here."""


def same_value(a: Node, b: Node) -> bool:
    """Whether two expressions have the same value wherever both are defined. Raises UndecidedError.

    A logarithm without a base may be natural or decimal, the same in both. Real variables; where neither mentions i
    only points at which every step is real are compared.
    """
    if a == b:
        return True
    return any(_same(a, b, decimal) for decimal in ((False, True) if _has_log(a) or _has_log(b) else (False,)))


def rounds_to(value: Node, decimal: Fraction, half_step: Fraction) -> bool:
    """Whether a constant lies within half a step of a decimal. Raises UndecidedError."""
    if symbols(value):
        return False
    low, high = _Evaluation({}, False, True), fmpq(half_step.numerator, half_step.denominator)
    ctx.prec = _FIRST_BITS + 2 * _SPARE_BITS
    difference = abs(low.value(value) - _exact(decimal))
    return not bool(difference.real > arb(high)) and bool(abs(difference.imag) < arb(2) ** -_SPARE_BITS)


def near_integer(node: Node) -> int:
    """A whole number within 1 of a real constant. Raises UndecidedError."""
    ctx.prec = _FIRST_BITS
    value = _Evaluation({}, False, False).value(node).real
    whole = value.mid().floor().unique_fmpz()
    if whole is None or abs(whole) > _FAR:
        raise TooLargeError("it is too large")
    return int(whole)


def rational(node: Node, largest: int) -> Fraction | None:
    """The rational number with a denominator up to `largest` that a constant is; None if it is none of them."""
    ctx.prec = _FIRST_BITS
    middle = _Evaluation({}, False, False).value(node).real.mid()
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
    evaluation = _Evaluation({}, False, False)
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
            one, other = (_Evaluation({}, False, False).value(side) for side in here)
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


def _same(a: Node, b: Node, decimal: bool) -> bool:
    names = sorted(symbols(a) | symbols(b))
    unreal = any(mentions(node, name) for node in (a, b) for name in ("i", "cis"))
    if not names:
        return _same_at({}, a, b, decimal, True)
    piecewise = any(mentions(node, name) for node in (a, b) for name in _PIECEWISE)
    for allowed in (unreal, True):
        agreed = 0
        for point in _points(names, a, b):
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
        evaluation = _Evaluation(point, decimal, unreal)
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


def _points(names: list[str], a: Node, b: Node) -> Iterator[dict[str, fmpq]]:
    """Rational points of many sizes and signs: nobody can write an answer that fits them, and order plays no part."""
    texts = "\n".join(sorted((repr(a), repr(b))))
    for number in range(_TRIES):
        point = {}
        for name in names:
            drawn = hashlib.sha256(f"{number}\n{name}\n{texts}".encode("utf-8", "surrogatepass")).digest()
            if number >= _WHOLE_FROM:
                point[name] = fmpq(1 + drawn[0] % 12)
                continue
            size = (1, 3, 1, 12, 1, 100, 3, 4000)[number % 8]
            fraction = Fraction(int.from_bytes(drawn[:6], "big") | 1, 1 << 48) * size
            negative = number % 4 == 2 or (number % 4 == 3 and drawn[7] & 1)
            fraction = -fraction if negative else fraction
            point[name] = fmpq(fraction.numerator, fraction.denominator)
        yield point


def _has_log(node: Node) -> bool:
    return isinstance(node, Apply) and (node.head == "log" or any(map(_has_log, node.args)))


class _Evaluation:
    """Values of subexpressions at one point, and the magnitudes (in bits, up or down) that occurred, added up."""

    def __init__(self, point: Mapping[str, fmpq], decimal: bool, unreal: bool) -> None:
        self._point = self._given = point
        self._decimal = decimal
        self._unreal = unreal
        self.magnitude = 0
        self._terms = 0

    def value(self, node: Node) -> acb:
        exact = self._rational(node)
        value = acb(exact) if exact is not None else self._ball(node)
        if not value.is_finite():
            raise UndefinedError
        if not self._unreal and not value.imag.is_zero():
            if not value.imag.contains(0):
                raise UndefinedError
            value = acb(value.real)
        self._note(value)
        return value

    def _note(self, value: acb) -> None:
        for part in (value.real, value.imag):
            if part.is_zero() or part.contains(0):
                continue
            mantissa, exponent = part.mid().man_exp()
            size = abs(int(exponent) + int(mantissa).bit_length())
            self.magnitude += size

    def _rational(self, node: Node) -> fmpq | None:
        """The exact value where it is a rational number that takes no more than a few operations to know."""
        if isinstance(node, Number):
            return fmpq(node.value.numerator, node.value.denominator)
        if isinstance(node, Symbol):
            return self._point.get(node.name)
        return None

    def _ball(self, node: Node) -> acb:
        if isinstance(node, Symbol):
            return self._constant(node.name)
        assert isinstance(node, Apply)
        head = node.head
        if (head in TRIGONOMETRIC or head == "cis") and isinstance(node.args[0], Apply) and _in_degrees(node.args[0]):
            argument = self.value(node.args[0]) * acb(arb.pi()) / 180
            return (argument * acb(0, 1)).exp() if head == "cis" else acb(getattr(argument, _ELEMENTARY[head])())
        if head in REPEATED:
            return self._repeated(node)
        args = [self.value(arg) for arg in node.args]
        if head in ("tanh", "coth"):  # as near to 1 as exp(-2|x|) is to 0
            self._note(args[0].exp())
        if head == "add":
            return reduce(lambda x, y: x + y, args)
        if head == "mul":
            return reduce(lambda x, y: x * y, args)
        if head == "neg":
            return -args[0]
        if head == "div":
            return self._quotient(*args)
        if head == "pow":
            return self._power(node.args, *args)
        if head == "degrees":
            return args[0]
        if head == "root":
            return self._root(args[0], args[1])
        if head == "abs":
            return acb(args[0].real.__abs__()) if args[0].imag.is_zero() else acb(abs(args[0]))
        if head == "log" or head == _LOG10:
            natural = self._logarithm(args[0])
            return natural / acb(arb(10).log()) if self._decimal or head == _LOG10 else natural
        if head == "cis":
            return (args[0] * acb(0, 1)).exp()
        if head == "ln":
            return self._logarithm(args[0])
        if head == "factorial":
            return self._factorial(args[0])
        if head == "binomial":
            return self._binomial(*args)
        if head in ("floor", "ceil"):
            return _whole(args[0], head)
        if head in ("gcd", "lcm"):
            return acb(fmpz((gcd if head == "gcd" else lcm)(*map(_integer, args))))
        if head.endswith("_"):
            return self._indexed(head, _integer(args[0]))
        if head in ("min", "max"):
            return reduce(lambda x, y: x if bool(x.real < y.real) == (head == "min") else y, args)
        return acb(getattr(args[0], _ELEMENTARY[head])())

    def _repeated(self, node: Apply) -> acb:
        index, low, high, body = node.args
        assert isinstance(index, Symbol)
        first, last = _integer(self.value(low)), _integer(self.value(high))
        self._terms += max(0, last - first)
        if self._terms > _MOST_TERMS:
            raise TooLargeError("a sum of that many terms")
        whole, outside = acb(0 if node.head == "sum" else 1), self._point
        for term in range(first, last + 1):
            self._point = {**outside, index.name: fmpq(term)}
            value = self.value(body)
            whole = whole + value if node.head == "sum" else whole * value
        self._point = outside
        return whole

    def _indexed(self, head: str, index: int) -> acb:
        """a_k: for every whole k a value of its own, as for a variable."""
        known = self._given.get(f"{head}{index}")
        if known is not None:
            return acb(known)
        drawn = hashlib.sha256(f"{head}{index}\n{sorted(self._given.items())}".encode()).digest()
        return acb(fmpq(1 + int.from_bytes(drawn[:6], "big"), 1 << 46))

    def _constant(self, name: str) -> acb:
        if name == "pi":
            return acb(arb.pi())
        if name == "e":
            return acb(arb.const_e())
        if name == "i":
            return acb(0, 1)
        raise UndecidedError(f"{name} has no value")

    @staticmethod
    def _quotient(a: acb, b: acb) -> acb:
        if b.contains(0):
            raise UndefinedError
        return a / b

    @staticmethod
    def _logarithm(a: acb) -> acb:
        if a.contains(0):
            raise UndefinedError
        return a.log()

    def _power(self, nodes: tuple[Node, ...], base: acb, exponent: acb) -> acb:
        index = _literal(nodes[1])
        if index is not None:
            if index.denominator == 1 and abs(index) < 1 << 40:
                if index <= 0 and base.contains(0):
                    raise UndefinedError
                return base ** fmpz(index.numerator)
            if base.imag.is_zero() and base.real < 0 and index.denominator % 2 == 1:  # the real root
                size = acb((-base.real) ** arb(fmpq(index.numerator, index.denominator)))
                return -size if index.numerator % 2 else size
        if base.contains(0):
            if base.is_zero() and exponent.real > 0:
                return acb(0)
            raise UndefinedError
        return base**exponent

    @staticmethod
    def _root(base: acb, index: acb) -> acb:
        n = _integer(index)
        if not 0 < n < 1000:
            raise TooLargeError("a root of that index")
        if base.is_zero():
            return acb(0)
        if base.imag.is_zero() and base.real < 0 and n % 2 == 1:
            return acb(-((-base.real) ** (arb(1) / n)))
        return base ** (acb(1) / n)

    @staticmethod
    def _factorial(a: acb) -> acb:
        if not a.imag.is_zero() or not a.real > -1:
            raise UndefinedError
        return (a + 1).gamma()

    def _binomial(self, n: acb, k: acb) -> acb:
        below = _integer(k)
        if not 0 <= below <= 2000:
            above = _integer(n)
            if not 0 <= below <= above or above - below > 2000:
                raise TooLargeError("that binomial coefficient")
            below = above - below
        value = acb(1)
        for j in range(below):
            value = value * (n - j) / (j + 1)
        return value


def _exact(value: Fraction) -> acb:
    return acb(fmpq(value.numerator, value.denominator))


def _literal(node: Node) -> Fraction | None:
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Apply) and node.head == "neg":
        value = _literal(node.args[0])
        return None if value is None else -value
    if isinstance(node, Apply) and node.head == "div":
        above, below = _literal(node.args[0]), _literal(node.args[1])
        return None if above is None or not below else above / below
    return None


def _integer(value: acb) -> int:
    whole = value.unique_fmpz()
    if whole is None or not value.imag.contains(0):
        raise UndefinedError("a whole number is needed")
    return int(whole)


def _whole(value: acb, head: str) -> acb:
    if not value.imag.is_zero():
        raise UndefinedError
    rounded = value.real.floor() if head == "floor" else value.real.ceil()
    if rounded.unique_fmpz() is None:
        raise UndecidedError("where it is rounded")
    return acb(rounded)


def _in_degrees(node: Apply) -> bool:
    return node.head == "degrees" or any(isinstance(arg, Apply) and _in_degrees(arg) for arg in node.args)
