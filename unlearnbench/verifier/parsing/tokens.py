"""The tokens of LaTeX and plain mathematical text, and the words that the grammar knows."""

from __future__ import annotations

import re

from unlearnbench.verifier.math.nodes import TRIGONOMETRIC, UnreadableError

MOST_TOKENS = 2_000
SEVERAL = frozenset({"gcd", "lcm", "min", "max"})
FUNCTIONS = (
    TRIGONOMETRIC
    | SEVERAL
    | {"arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "coth", "ln", "log", "lg", "exp", "abs", "sqrt", "cis"}
)
INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
LETTERS = frozenset(
    {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa", "lambda"}
    | {"mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "ell", "hbar"}
    | {"Gamma", "Delta", "Theta", "Lambda", "Xi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "triangle", "angle"}
)
FONTS = frozenset(
    {"mathrm", "text", "textit", "textrm", "mathit", "mathsf", "operatorname", "mathnormal", "textnormal", "mbox"}
)
MARKED = frozenset(
    {"mathbf", "mathbb", "mathcal", "vec", "hat", "bar", "tilde", "boldsymbol", "mathfrak", "textbf", "underline"}
    | {"overline", "overrightarrow"}
)
PRODUCT = frozenset({"*", "\\cdot", "\\times", "\\ast"})
QUOTIENT = frozenset({"/", "\\div"})
CLOSING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "|": "|", "\\|": "\\|"}
CLOSING |= {"\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "\\lvert": "\\rvert"}
GROUPS = {
    "(": None,
    "[": None,
    "{": None,
    "|": "abs",
    "\\|": "abs",
    "\\lvert": "abs",
    "\\lfloor": "floor",
    "\\lceil": "ceil",
}
_NAMES = "|".join([*sorted(FUNCTIONS, key=len, reverse=True), "pi", "infinity", "inf"])
_TOKEN = re.compile(
    rf"\s*(?:(\d+(?:\.\d*)?|\.\d+)|(\\[A-Za-z]+|\\.)|({_NAMES})(?![A-Za-z])|([A-Za-z])|(\*\*|.))", re.DOTALL | re.ASCII
)
DIGITS = "0123456789"
_SPACING = frozenset({"\\,", "\\;", "\\:", "\\!", "\\ ", "\\quad", "\\qquad", "\\limits", "\\nolimits", "~"})


def tokens_of(text: str) -> list[str]:
    """The tokens without spaces. Raises UnreadableError where there are too many."""
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        token = match.group(match.lastindex or 0)
        if token.isspace() or token in _SPACING:
            continue
        tokens.append("^" if token == "**" else token)
        if len(tokens) > MOST_TOKENS:
            raise UnreadableError("it is too long")
    return tokens


def is_number(token: str) -> bool:
    """Whether a token is a number: digits, perhaps with a point."""
    return token != "" and (token[0] in DIGITS or (token[0] == "." and len(token) > 1))
