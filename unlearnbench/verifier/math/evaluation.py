"""The value of an expression as a ball that provably contains it (Arb, through python-flint)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from functools import reduce
from math import gcd, lcm

from flint import acb, arb, fmpq, fmpz

from unlearnbench.verifier.math.nodes import REPEATED, TRIGONOMETRIC, Apply, Node, Number, Symbol

_MOST_TERMS = 2_000
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
    """The values are too large or too small to be distinguished here."""


class Evaluation:
    """Values of subexpressions at one point, and the magnitudes (in bits, up or down) that occurred, added up."""

    def __init__(self, point: Mapping[str, fmpq], decimal: bool, unreal: bool) -> None:
        self._point = self._given = point
        self._decimal = decimal
        self._unreal = unreal
        self.magnitude = 0
        self._terms = 0

    def value(self, node: Node) -> acb:
        known = self._rational(node)
        if known is not None:
            self.magnitude += abs(int(known.p).bit_length() - int(known.q).bit_length())
            return acb(known)
        value = self._ball(node)
        if not value.is_finite():
            raise UndefinedError
        if not self._unreal and not value.imag.is_zero():
            if not value.imag.contains(0):
                raise UndefinedError
            value = acb(value.real)
        self._note(value)
        return value

    def _note(self, value: acb) -> None:
        imaginary = value.imag
        for part in (value.real,) if imaginary.is_zero() else (value.real, imaginary):
            if not part.contains(0):
                mantissa, exponent = part.mid().man_exp()
                self.magnitude += abs(int(exponent) + int(mantissa).bit_length())

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


def exact(value: Fraction) -> acb:
    """A rational number as a ball."""
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
