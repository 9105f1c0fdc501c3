"""Mathematical text, LaTeX or plain, read into a tree by a grammar of our own; no text is ever evaluated as code.

    >>> parse("2\\\\sqrt{x}")
    Apply(head='mul', args=(Number(value=Fraction(2, 1)), Apply(head='sqrt', args=(Symbol(name='x'),))))

Only finite expressions are read: numbers, symbols, sums, products, powers, roots and named functions. Infinite sums,
integrals, limits and whatever else is not in the grammar raise UnreadableError.
"""

from __future__ import annotations

from fractions import Fraction

from unlearnbench.verifier.math.nodes import Apply, Node, Number, Symbol, UnreadableError
from unlearnbench.verifier.parsing.ellipsis import ELLIPSIS, without_ellipsis
from unlearnbench.verifier.parsing.numerals import in_base
from unlearnbench.verifier.parsing.tokens import (
    CLOSING,
    DIGITS,
    FONTS,
    FUNCTIONS,
    GROUPS,
    INVERSE,
    LETTERS,
    MARKED,
    PRODUCT,
    QUOTIENT,
    SEVERAL,
    is_number,
    tokens_of,
)

_MOST_REPEATED = 60
"""Digits of a repeating block."""


def parse(text: str) -> Node:
    """The expression that `text` is, whole. Raises UnreadableError."""
    return _Parser(tokens_of(text)).whole()


class _Parser:
    """Recursive descent. Its depth follows the nesting of brackets, which too_large() has bounded."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._bars = 0  # that are open: 2|a| is a product, and in |2| the second bar closes

    def whole(self) -> Node:
        node = self._sum()
        if self._at < len(self._tokens):
            raise UnreadableError(f"{self._peek()!r} is out of place")
        return node

    # --- tokens ---

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise UnreadableError("it ends too early")
        self._at += 1
        return token

    def _take(self, token: str) -> bool:
        if self._peek() == token:
            self._at += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise UnreadableError(f"{token!r} is missing")

    # --- grammar, from the loosest to the tightest binding ---

    def _sum(self) -> Node:
        terms = [self._signed_product()]
        while self._peek() in ("+", "-"):
            if self._peek(1) == "\\ldots" and self._peek(2) in ("+", "-"):
                self._at += 2
                terms.append(ELLIPSIS)
            terms.append(self._signed_product())
        if ELLIPSIS in terms:
            terms = without_ellipsis(terms, "add", parse)
        return terms[0] if len(terms) == 1 else Apply("add", tuple(terms))

    def _signed_product(self) -> Node:
        negative = False
        while self._peek() in ("+", "-"):
            negative ^= self._next() == "-"
        node = self._product()
        return Apply("neg", (node,)) if negative else node

    def _product(self) -> Node:
        node = self._power()
        while True:
            token = self._peek()
            if token in PRODUCT:
                self._next()
                if self._peek() != "\\ldots":
                    node = _times(node, self._signed_power())
            elif token == "\\ldots" and self._starts_factor(self._peek(2 if self._peek(1) in PRODUCT else 1)):
                self._next()
                node = _times(node, ELLIPSIS)
            elif token in QUOTIENT:
                self._next()
                node = Apply("div", (node, self._signed_power()))
            elif self._starts_factor(token):
                after_number = isinstance(node, Number) and is_number(self._peek(-1))
                factor = self._power()
                if after_number and is_number(self._tokens[self._at - 1]) and isinstance(factor, Number):
                    raise UnreadableError("two numbers stand side by side")
                # 2 1/2 and 2\frac{1}{2} are two and a half; the reader of whole answers has seen to the first
                if after_number and _is_proper(node, factor):
                    node = Apply("add", (node, factor))
                else:
                    node = _times(node, factor)
            elif isinstance(node, Apply) and ELLIPSIS in node.args:
                factors = without_ellipsis(node.args, "mul", parse)
                return factors[0] if len(factors) == 1 else Apply("mul", tuple(factors))
            else:
                return node

    def _signed_power(self) -> Node:
        if self._take("-"):
            return Apply("neg", (self._signed_power(),))
        if self._take("+"):
            return self._signed_power()
        return self._power()

    def _power(self) -> Node:
        node = self._postfix(self._primary())
        if self._peek() != "^":
            return node
        if self._peek(1) == "\\circ" or (self._peek(1) == "{" and self._peek(2) == "\\circ"):
            self._at += 2 if self._peek(1) == "\\circ" else 4
            node = self._postfix(Apply("degrees", (node,)))
            if self._peek() != "^":
                return node
        self._next()
        return self._postfix(Apply("pow", (node, self._exponent())))

    def _exponent(self) -> Node:
        """One group, one number, or one digit or letter, as TeX reads it; x^10 is meant as x^{10}."""
        if self._peek() in ("-", "+"):
            return self._signed_power()
        node = self._primary()
        return Apply("pow", (node, self._exponent())) if self._take("^") else node

    def _postfix(self, node: Node) -> Node:
        while self._peek() == "!":
            self._next()
            if self._peek() == "!":
                raise UnreadableError("double factorials are not read")
            node = Apply("factorial", (node,))
        return node

    def _starts_factor(self, token: str) -> bool:
        if not token or token in ("|", "\\|"):
            return token != "" and not self._bars
        if token[0].isalnum() or token[0] == ".":
            return token.isascii()
        if token in ("(", "[", "{", "\\{", "\\lfloor", "\\lceil"):
            return True
        name = token[1:]
        return token[0] == "\\" and (
            name in FUNCTIONS
            or name in LETTERS
            or name in FONTS
            or name in MARKED
            or name in ("frac", "binom", "pi", "infty", "lvert", "imath", "sum", "prod")
        )

    def _primary(self) -> Node:
        token = self._next()
        if is_number(token):
            return self._number(token)
        if token in GROUPS:
            return self._group(token)
        if token.isalpha() and token.isascii():
            return self._named(token) if len(token) > 1 else self._symbol(token)
        if token[0] == "\\":
            return self._command(token[1:])
        raise UnreadableError(f"{token!r} is out of place")

    def _number(self, token: str) -> Node:
        whole, _, part = token.partition(".")
        value = Fraction(int((whole + part) or "0"), 10 ** len(part))
        if self._peek() == "\\overline" and self._peek(2)[:1] in DIGITS:
            self._next()
            return Number(value + self._repeating(part))
        if self._peek() == "_":
            return self._in_base(token)
        return Number(value)

    def _repeating(self, places: str) -> Fraction:
        digits = "".join(self._braced())
        if not (digits.isascii() and digits.isdecimal()) or not self._tokens or len(digits) > _MOST_REPEATED:
            raise UnreadableError("what repeats is not a row of digits")
        return Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(places))

    def _in_base(self, digits: str) -> Node:
        self._next()
        name = "".join(self._braced()) if self._peek() == "{" else self._next()
        return Number(Fraction(in_base(digits, name)))

    def _group(self, opening: str) -> Node:
        closing = CLOSING[opening]
        self._bars += opening in ("|", "\\|")
        node = self._sum()
        self._bars -= opening in ("|", "\\|")
        self._expect(closing)
        function = GROUPS[opening]
        return node if function is None else Apply(function, (node,))

    def _symbol(self, name: str) -> Node:
        function = name in ("f", "g")
        if self._peek() == "_":
            self._next()
            index = "".join(self._braced()) if self._peek() == "{" else self._next()
            if name == "C" and index.isascii() and index.isdecimal() and self._peek() == "^" and int(index) > 1:
                self._next()  # C_5^2 counts choices, as \\binom{5}{2} does
                return Apply("binomial", (Number(Fraction(int(index))), self._exponent()))
            name += "_" + index
        while self._take("'"):
            name += "'"
        if function and self._peek() == "(":  # not defined here, so f(2) is a quantity of its own
            name += f"({''.join(self._inside('(', ')'))})"
        return Symbol(name)

    def _named(self, name: str) -> Node:
        if name == "pi":
            return Symbol("pi")
        if name in ("infinity", "inf"):
            raise UnreadableError("infinity is not a number")
        return self._function(name)

    def _command(self, name: str) -> Node:
        if name == "frac":
            above, below = self._argument(), self._argument()
            if _differential(above) and _differential(below):
                raise UnreadableError("derivatives are not read")
            return Apply("div", (above, below))
        if name == "binom":
            return Apply("binomial", (self._argument(), self._argument()))
        if name in ("sum", "prod"):
            return self._repeated(name)
        if name == "sqrt" and self._peek() == "[":
            self._next()
            index = self._sum()
            self._expect("]")
            return Apply("root", (self._argument(), index))
        if name == "sqrt":
            return Apply("sqrt", (self._argument(),))
        if name == "pi":
            return Symbol("pi")
        if name in FUNCTIONS:
            return self._function(name)
        if name in LETTERS:
            return self._symbol("\\" + name)
        if name == "imath":
            return Symbol("i")
        if name in FONTS:
            return self._upright("".join(self._braced()))
        if name in MARKED:
            return self._symbol(f"{name} " + ("".join(self._braced()) if self._peek() == "{" else self._next()))
        raise UnreadableError(f"\\{name} is not read")

    def _repeated(self, name: str) -> Node:
        """A sum or product over whole numbers; its body reaches to the next sign of a sum."""
        low = high = index = None
        for _ in range(2):
            if self._take("_"):
                self._expect("{")
                index = self._primary()
                self._expect("=")
                low = self._sum()
                self._expect("}")
            elif self._take("^"):
                high = self._exponent()
        if not isinstance(index, Symbol) or index.name in ("e", "pi") or low is None or high is None:
            raise UnreadableError(f"\\{name} without an index or an end")
        return Apply(name, (index, low, high, self._product()))

    def _upright(self, name: str) -> Node:
        if len(name) == 1 and name.isalpha():
            return self._symbol(name)
        if name in FUNCTIONS:
            return self._function(name)
        raise UnreadableError("it holds words")

    def _function(self, name: str) -> Node:
        power: Node | None = None
        base: Node | None = None
        for _ in range(2):
            if self._peek() == "^" and power is None:
                self._next()
                power = self._exponent()
            elif self._peek() == "_" and name == "log":
                self._next()
                base = self._argument()
        args = self._arguments(name)
        if isinstance(power, Apply) and power == Apply("neg", (Number(Fraction(1)),)) and name in INVERSE:
            return Apply(INVERSE[name], args)
        if name == "sqrt":
            node: Node = Apply("sqrt", args)
        elif base is not None:
            node = Apply("div", (Apply("ln", args), Apply("ln", (base,))))
        elif name in ("log", "lg"):
            node = Apply("log10" if name == "lg" else "log", args)
        else:
            node = Apply(name, args)
        return node if power is None else Apply("pow", (node, power))

    def _arguments(self, name: str) -> tuple[Node, ...]:
        if self._peek() in ("(", "{", "["):
            closing = CLOSING[self._next()]
            args = [self._sum()]
            while name in SEVERAL and self._take(","):
                args.append(self._sum())
            self._expect(closing)
            return tuple(args)
        if name in SEVERAL:
            raise UnreadableError(f"{name} of nothing")
        # sin 2x cos x: the factors up to the next function, bracket or sign belong to the first
        node = self._signed_power() if self._peek() == "-" else self._power()
        while self._starts_factor(self._peek()) and not self._ends_argument(self._peek()):
            node = _times(node, self._power())
        return (node,)

    @staticmethod
    def _ends_argument(token: str) -> bool:
        return token in ("(", "[", "{") or token.removeprefix("\\") in FUNCTIONS

    def _argument(self) -> Node:
        """What TeX takes for a macro's argument: a group, or one digit, letter or command."""
        token = self._peek()
        if token == "{":
            return self._primary()
        if token and token[0] in DIGITS:
            self._at += 1
            if len(token) > 1:  # \frac12
                self._tokens[self._at - 1 : self._at] = [token[0], token[1:]]
            return Number(Fraction(int(token[0])))
        return self._primary()

    def _braced(self) -> list[str]:
        """The tokens of a group, unread."""
        return self._inside("{", "}")

    def _inside(self, opening: str, closing: str) -> list[str]:
        self._expect(opening)
        start, depth = self._at, 1
        while depth:
            token = self._next()
            depth += (token == opening) - (token == closing)
        return self._tokens[start : self._at - 1]


def _differential(node: Node) -> bool:
    return isinstance(node, Apply) and node.head == "mul" and node.args[0] == Symbol("d") and len(node.args) == 2


def _times(a: Node, b: Node) -> Node:
    if isinstance(a, Apply) and a.head == "mul":
        return Apply("mul", (*a.args, b))
    return Apply("mul", (a, b))


def _is_proper(whole: Node, part: Node) -> bool:
    """Whether the second makes a mixed number of the first: 2 and 1/2."""
    return (
        isinstance(whole, Number)
        and whole.value.denominator == 1
        and isinstance(part, Apply)
        and part.head == "div"
        and all(isinstance(arg, Number) and arg.value.denominator == 1 for arg in part.args)
        and 0 < part.args[0].value < part.args[1].value  # type: ignore[union-attr]
    )
