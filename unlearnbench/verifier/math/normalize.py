"""One spelling for answers: Unicode signs, spaces and the synonyms of LaTeX become one form each.

    >>> respelled("\\\\dfrac{1}{2} ± √3")
    '\\\\frac{1}{2} \\\\pm \\\\sqrt{3}'

Every step is one linear pass.
"""

from __future__ import annotations

# ruff: noqa: RUF001 - signs that look alike are what this module is about
import re
import unicodedata

_SIGNS = {
    "\u2212": "-",
    "\u2013": "-",
    "\u2010": "-",
    "\u2011": "-",
    "\u2044": "/",
    "×": "\\times ",
    "·": "\\cdot ",
    "⋅": "\\cdot ",
    "∙": "\\cdot ",
    "÷": "\\div ",
    "∞": "\\infty ",
    "≤": "\\le ",
    "⩽": "\\le ",
    "≥": "\\ge ",
    "⩾": "\\ge ",
    "≠": "\\ne ",
    "≈": "\\approx ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∈": "\\in ",
    "∖": "\\setminus ",
    "∅": "\\emptyset ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "°": "^{\\circ}",
    "º": "^{\\circ}",
    "∠": "\\angle ",
    "△": "\\triangle ",
    "…": "\\ldots ",
    "′": "'",
    "\u2019": "'",
    "⟨": "(",
    "⟩": ")",
    "（": "(",
    "）": ")",
    "，": ",",
    "％": "%",
    "∛": "\\sqrt[3]",
    "\xa0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "\u2002": " ",
    "\u2003": " ",
    "\u3000": " ",
}
_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "ε": "epsilon",
    "ζ": "zeta",
    "η": "eta",
    "θ": "theta",
    "λ": "lambda",
    "μ": "mu",
    "ν": "nu",
    "π": "pi",
    "ρ": "rho",
    "σ": "sigma",
    "τ": "tau",
    "φ": "phi",
    "χ": "chi",
    "ψ": "psi",
    "ω": "omega",
    "Δ": "Delta",
    "Σ": "Sigma",
    "Ω": "Omega",
}
_SIGNS |= {letter: f"\\{name} " for letter, name in _GREEK.items()}
_SIGNS |= {
    sign: f"\\frac{{{above}}}{{{below}}}"
    for sign, above, below in zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "112131234151357", "233445555668888", strict=True)
}
_SIGNS |= {chr(0xFF10 + digit): str(digit) for digit in range(10)}
_TABLE = str.maketrans(_SIGNS)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT = re.compile(r"√ ?(\d+(?:\.\d+)?|[A-Za-z])")
_STYLED = re.compile("[\U0001d400-\U0001d7ff]+")

_WORDS = {
    "dfrac": "\\frac",
    "tfrac": "\\frac",
    "cfrac": "\\frac",
    "nicefrac": "\\frac",
    "dbinom": "\\binom",
    "tbinom": "\\binom",
    "leq": "\\le",
    "leqslant": "\\le",
    "geq": "\\ge",
    "geqslant": "\\ge",
    "neq": "\\ne",
    "lt": "<",
    "gt": ">",
    "varnothing": "\\emptyset",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "lbrack": "[",
    "rbrack": "]",
    "vert": "|",
    "colon": ":",
    "degree": "^{\\circ}",
    "textdegree": "^{\\circ}",
    "textdollar": "\\$",
    "lor": "\\vee",
    "land": "\\wedge",
    "varphi": "\\phi",
    "varepsilon": "\\epsilon",
    "dots": "\\ldots",
    "cdots": "\\ldots",
    "infin": "\\infty",
    "Reals": "\\mathbb{R}",
    "percent": "%",
}
_DROPPED = frozenset(
    {"left", "right", "displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "big", "Big", "bigl", "bigr"}
    | {"Bigl", "Bigr", "bigg", "biggl", "biggr"}
)
_COMMAND = re.compile(r"\\([A-Za-z]+)(?:(?<=left)\.|(?<=right)\.)?")
_THIN_IN_NUMBER = re.compile(r"(?<=[0-9,])(?:\\[!,;:]|~|\{,\}) ?(?=[0-9])")
_SPACES = re.compile(r"(?<!\\)\\[!,;:> ]|~|\\q?quad(?![A-Za-z])|\s+")
_DECORATED = re.compile(
    r"\\(?:color|textcolor|mathcolor|hspace|phantom)\s?\{[^{}]*\}"
    r"|\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it|sf)(?![A-Za-z])"
)
_REPEATING = re.compile(r"(?<=[0-9.])\\bar(?![A-Za-z])")
_MODULUS = re.compile(r"\\pmod\s*([0-9A-Za-z])")
_DEGREES = re.compile(r"(?:\{\})?\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})")
_OVER = re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}|^([^{}]*)\\over(?![A-Za-z])([^{}]*)$")
_COMPARED = {"<=": "\\le ", ">=": "\\ge ", "!=": "\\ne ", "=<": "\\le "}
_COMPARISON = re.compile("<=|>=|!=|=<")
TEXT_GROUP = re.compile(r"\\(?:text|mathrm|textrm|textbf|mathbf|mbox|textit|textsf|mathit|mathsf|rm|bf)\s?\{([^{}]*)\}")
"""Words within mathematics."""
SHORT_WORDS = frozenset(
    {
        "no",
        "on",
        "yes",
        "odd",
        "off",
        "red",
        "up",
        "out",
        "one",
        "two",
        "six",
        "ten",
        "true",
        "all",
        "none",
        "the",
        "an",
    }
)
"""Words of few letters that are no product of symbols."""
_ARTICLES = re.compile(r"\b(?:the|a|an)\s+")


def respelled(text: str) -> str:
    """The text in one spelling. What two texts have in common after it, they mean alike."""
    if not text.isascii():
        text = _ROOT.sub(r"\\sqrt{\1}", text).replace("√", "\\sqrt ")
        text = _SUPERSCRIPT.sub(lambda found: f"^{{{found.group().translate(_RAISED)}}}", text)
        text = _SUBSCRIPT.sub(lambda found: f"_{{{found.group().translate(_LOWERED)}}}", text)
        text = _STYLED.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text).translate(_TABLE)
    if "\\" in text or "{" in text or "~" in text:
        text = _THIN_IN_NUMBER.sub(lambda found: "," if found.group() == "{,}" else "", text)
        text = _COMMAND.sub(_one_name, _DECORATED.sub("", text))
        text = _MODULUS.sub(r"\\pmod{\1}", _REPEATING.sub(r"\\overline", text))
        text = _DEGREES.sub(r"^{\\circ}", text).replace("\\%", "%")
        if 0 < text.count("\\over") < 20:
            text = _OVER.sub(_fraction, text)
    text = _SPACES.sub(" ", text)
    if "=" in text:
        text = _COMPARISON.sub(lambda found: _COMPARED[found.group()], text)
    return text.strip()


def _fraction(found: re.Match[str]) -> str:
    above, below = (part for part in found.groups() if part is not None)
    return f"\\frac{{{above}}}{{{below}}}"


def _one_name(found: re.Match[str]) -> str:
    name = found.group(1)
    if name in _DROPPED:
        return ""
    if name in _WORDS:
        same, after = _WORDS[name], found.string[found.end() : found.end() + 1]
        return f"{same} " if same[-1].isalpha() and after.isalpha() else same
    return found.group()


def folded(text: str) -> str:
    """Words for comparison: without articles, hyphens and full stops, and in lower case.

    Capitals stay where they tell: within a word (AaBb), and in short names (CO is not Co).
    """
    text = TEXT_GROUP.sub(r" \1 ", text).replace("-", " ").replace(".", " ")
    return _ARTICLES.sub("", " ".join(map(_lowered, text.split())))


def _lowered(word: str) -> str:
    lower = word.casefold()
    plain = word in (lower, lower.capitalize()) or (word.isupper() and (len(word) > 3 or lower in SHORT_WORDS))
    return lower if plain or not word.isalpha() else word
