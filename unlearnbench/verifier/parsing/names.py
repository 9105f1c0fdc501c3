r"""The name that stands before an equals sign: x, f(x), \angle ABC, Area, m+n, P(X=2), \frac{NO}{BO}.

A name says what the value behind it is of, so `m+n=293` states 293. What is only an equation for an unknown (x^2=5,
2x=10, |x|=5) is not a name.
"""

from __future__ import annotations

import re

from unlearnbench.verifier.math.nodes import Apply, Node, Number, Symbol, UnreadableError, symbols
from unlearnbench.verifier.parsing.latex_parser import parse

_FONT = re.compile(
    r"\\(?:text|math)(?:rm|bf|it|sf|normal|cal)? ?\{([^{}]*)\}|\\(?:mbox|operatorname\*?|boldsymbol|bm) ?\{([^{}]*)\}"
    r"|\\(?:overline|widehat|bar) ?\{?([A-Z]{1,3})\}?"
)
_ANGLE = re.compile(r"(?:m ?)?\\(?:angle|triangle) ?(?=[A-Z])")
_BRACED_INDEX = re.compile(r"_ ?\{ ?([A-Za-z0-9]+|\\[a-z]+) ?\}")
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho|sigma|tau|upsilon|phi|chi|psi|omega|"
    "Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell"
)
_INDEX = r"(?:_(?:[A-Za-z0-9]+|\\[a-z]+|\{[^{}]*\}))?"
_SYMBOL = re.compile(rf"(?:[A-Za-df-hj-z]|\\(?:{_GREEK})|\\vec ?\{{?[A-Za-z]{{1,2}}\}}?|[ei]_){_INDEX}'*")
_POINTS = re.compile(r"[A-Z]{2,6}|\|[A-Z]{2}\||\[[A-Z]{3,6}\]|[A-Z]_[A-Z]{2,6}")
_SETS = re.compile(r"[A-Z](?:\\c[au]p[A-Z])+|\\complement_?\{?[A-Z]\}?\(?[A-Z](?:\\c[au]p[A-Z])*\)?")
_WORD = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z'. -]*")
_DENIAL = re.compile(
    r"(?:(?:the|an?|is|this) )*(?:(?:not|never|neither|nor|anything|everything|except|excluding|excluded)\b.*"
    r"|(?:wrong|incorrect|false|bad|rejected|invalid|no)"
    r"(?: (?:final )?(?:answer|value|solution|choice|option|result|guess)s?)?(?: ?:.*)?|(?:less|greater) than\b.*)"
    r"|.*(?:\b(?:but|except|excluding|excluded|than|is (?:not|wrong|incorrect|false|impossible))|\bnot|n't)"
    r"|.*\bbut not\b.*",
    re.DOTALL,
)
"""Names that deny the value behind them: wrong answer, anything but. Elsewhere "not" may say what is counted."""
_WORDS_LAST = re.compile(r"\\(?:text|mbox)[a-z]* ?\{[^{}]*[a-z]{2}[^{}]*\}\s*$")
"""Words at the end, 5 \\text{ is wrong}, which are no product of letters."""
_PRODUCT = re.compile(r"[a-z]{2,3}")
_CALL = re.compile(
    rf"(?<![A-Za-z\\])(?:\\(?:gcd|lcm|max|min|det|Pr|deg|dim|arg)|[A-Zfgh]|(?:gcd|lcm|Var|Cov)){_INDEX}"
    r"(?:\^\{-1\}|'+)? ?(?:\([^()]*\)|\[[^\[\]]*\])"
    r"|(?<![A-Za-z\\])[npqua] ?\((?:[A-Z](?: ?\\c[au]p ?[A-Z])*|[0-9]{1,4}|[a-z])\)"
)
_TRIGONOMETRIC = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc) ?"
    rf"(?:\([^()]*\)|\{{[^{{}}]*\}}|[0-9]?(?:[A-Za-z]|\\(?:{_GREEK})){_INDEX}|[A-Z]{{3}})"
)
_OF_UNKNOWN = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc) ?[({]?[0-9]? ?[xyzt](?![A-Za-z])")
_MODULUS = re.compile(r"\|(?=[^|]*(?:[A-Z]|\\vec|[a-z](?:_\w+)? ?[-+] ?[a-z])|[zwv]\|)[^|]{1,40}\|")
_SEGMENT = re.compile(
    r"(?<![A-Za-z\\])(?:\[[A-Z]{3,6}\]|[A-Z]_[A-Z]{2,6}|[A-Z]{2,6}(?![a-z]))"
    r"|\\over(?:right|leftright)arrow ?\{[A-Z]{2}\}"
)
_EXTREME = re.compile(r"\\(?:max|min|sup|inf)(?:_[a-z0-9]+)?([^\\].*)|(.*)_\\?(?:max|min)")
_QUOTIENT = re.compile(r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}")
_LONGEST = 160
"""Characters of a name."""
_STANDS_FOR = "\\Upsilon_{%d}"
_UNKNOWNS = frozenset("xyz")
FUNCTION = re.compile(
    r"([A-Za-z](?:_[0-9A-Za-z]+)?'*(?:\^\{-1\})?)\(((?:[A-Za-z]|\\[a-z]+)(?:,(?:[A-Za-z]|\\[a-z]+))*)\)"
)
"""The name of a function of variables, and its variables."""
SEQUENCE = re.compile(r"([A-Za-z])_([a-z])")


def name_of(text: str, *, closed: bool = True) -> str | None:
    """One spelling of a name; None if the text is not a name. `closed`: what follows it has no variables.

    Only a value without variables can have an expression for its name: m+n=293, but not y+1=2x.
    """
    if len(text) > _LONGEST:
        return None
    plain = text.strip()
    grouped = "\\text" in plain or "\\math" in plain
    for _ in range(3):
        plain = _FONT.sub(lambda found: found[1] or found[2] or found[3] or "", plain)
    plain = _ANGLE.sub("", plain).strip().rstrip(":").strip()
    plain = _BRACED_INDEX.sub(r"_\1", plain) if "_" in plain else plain
    words = " ".join(plain.lower().split())
    if _DENIAL.fullmatch(words):
        return None
    joined = _QUOTIENT.sub(r"\1/\2", plain).replace(" ", "").replace(":", "/")
    if not joined:
        return None
    if _SYMBOL.fullmatch(joined) or _POINTS.fullmatch(joined) or _SETS.fullmatch(joined):
        return joined.strip("|")
    if _WORD.fullmatch(plain):
        if not grouped and _PRODUCT.fullmatch(joined) and joined not in ("max", "min", "sum"):
            return joined if closed and not _UNKNOWNS.issuperset(joined) else None  # xy=5 is a curve
        return words
    if (greatest := _EXTREME.fullmatch(joined)) is not None and name_of(greatest[1] or greatest[2]) is not None:
        return joined
    if FUNCTION.fullmatch(joined) or _CALL.fullmatch(joined) or _MODULUS.fullmatch(joined):
        return joined
    return joined if closed and not _WORDS_LAST.search(text) and _is_quantity(plain) else None


def _is_quantity(text: str) -> bool:
    """Whether an expression is something to be found, and not the side of an equation that is to be solved."""
    count = 0

    def stand_in(_: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return _STANDS_FOR % count

    if _TRIGONOMETRIC.fullmatch(text):
        return True
    if _OF_UNKNOWN.search(text):  # 3\\cos y-\\sin y=-1 is to be solved
        return False
    for pattern in (_CALL, _TRIGONOMETRIC, _MODULUS, _SEGMENT):
        text = pattern.sub(stand_in, text)
    try:
        node = parse(text.replace(":", "/"))
    except UnreadableError:
        return False
    names = symbols(node)
    if isinstance(node, Symbol):
        return count == 1 and bool(names)
    if len(names) < 2 or not _adds_up(node):
        return False
    return names.isdisjoint(_UNKNOWNS) or _is_plain(node)


def _adds_up(node: Node) -> bool:
    """Whether an expression is made of names by arithmetic, without a constant that is added."""
    if isinstance(node, Symbol):
        return True
    if isinstance(node, Number):
        return False
    if node.head in ("add", "neg"):
        return all(map(_adds_up, node.args))
    if node.head in ("mul", "div"):
        return all(isinstance(arg, Number) or _adds_up(arg) for arg in node.args)
    return node.head == "pow" and _adds_up(node.args[0]) and isinstance(node.args[1], Number)


def _is_plain(node: Node) -> bool:
    """x+y, x-y+z or x/y: with the letters of unknowns nothing else is a name, since 2x+3y=5 is a line."""
    if not isinstance(node, Apply):
        return False
    if node.head == "div":
        return all(isinstance(arg, Symbol) for arg in node.args)
    terms = [arg.args[0] if isinstance(arg, Apply) and arg.head == "neg" else arg for arg in node.args]
    return node.head == "add" and all(isinstance(term, Symbol) for term in terms)


def is_word(name: str) -> bool:
    """Whether a name is a word: maximum, paolo."""
    return len(name) > 2 and _WORD.fullmatch(name) is not None and name.islower()


def names_agree(a: str, b: str) -> bool:
    """Whether two names can be of one thing: the same; y and f(x); P(x) and p(x); area and A; AB and BA."""
    if a == b:
        return True
    for one, other in ((a, b), (b, a)):
        if one == "y" and FUNCTION.fullmatch(other):
            return True
        if is_word(one) and len(other) == 1 and other.lower() in {word[0] for word in one.split()}:
            return True
    if {a, b} == {"p", "P"}:
        return True
    if len(a) == 2 and a.isalpha() and a.isupper() and a == b[::-1]:
        return True
    for one, other in ((a, b), (b, a)):
        if (function := FUNCTION.fullmatch(other)) and function[1] == one:  # f and f(x)
            return True
    one_function, other_function = FUNCTION.fullmatch(a), FUNCTION.fullmatch(b)
    if one_function and other_function and one_function[2] == other_function[2]:
        return one_function[1].lower() == other_function[1].lower() and one_function[1][0].lower() not in "fg"
    return False
