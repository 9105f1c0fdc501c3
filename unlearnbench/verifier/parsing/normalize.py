"""One spelling for answers: signs, spaces and the synonyms of LaTeX become one form each.

    >>> respelled("\\\\dfrac{1}{2} ± √3")
    '\\\\frac{1}{2} \\\\pm \\\\sqrt{3}'

Every step is one linear pass.
"""

from __future__ import annotations

import re

from unlearnbench.verifier.parsing.characters import latex_of

_SYNONYMS = {
    "\\frac": "dfrac tfrac cfrac nicefrac sfrac",
    "\\binom": "dbinom tbinom",
    "\\le": "leq leqslant leqq",
    "\\ge": "geq geqslant geqq",
    "\\ne": "neq",
    "<": "lt",
    ">": "gt",
    "\\emptyset": "varnothing",
    "\\{": "lbrace",
    "\\}": "rbrace",
    "(": "langle",
    ")": "rangle",
    "[": "lbrack",
    "]": "rbrack",
    "|": "vert",
    "\\|": "lVert rVert Vert",
    ":": "colon",
    "^{\\circ}": "degree textdegree",
    "\\$": "textdollar",
    "¢": "cent textcent",
    "£": "pounds textsterling",
    "€": "euro texteuro",
    "\\vee": "lor",
    "\\wedge": "land",
    "\\phi": "varphi",
    "\\epsilon": "varepsilon",
    "\\theta": "vartheta",
    "\\ldots": "dots cdots dotsc dotsb hdots",
    "\\infty": "infin",
    "\\mathbb{R}": "Reals",
    "\\mathbb": "Bbb mathds",
    "%": "percent",
    "\\cup": "bigcup sqcup",
    "\\cap": "bigcap",
    "\\setminus": "backslash smallsetminus",
    "\\approx": "simeq approxeq doteq fallingdotseq",
    "\\tan": "tg",
    "\\cot": "ctg",
    "\\arctan": "arctg",
    "\\csc": "cosec",
    "'": "prime",
    "": "left right displaystyle textstyle scriptstyle limits nolimits middle big Big bigl bigr Bigl Bigr bigg biggl "
    "biggr Bigg qed blacksquare",
}
_ONE_NAME = {name: same for same, names in _SYNONYMS.items() for name in names.split()}
_GLUED = ("qquad", "quad", "cdot", "times", "leq", "geq", "neq", "cup", "cap", "infty", "pi", "pm", "le", "ge", "ne")
_COMMAND = re.compile(r"\\([A-Za-z]+)(?:(?<=left)\.|(?<=right)\.)?")
_THIN_IN_NUMBER = re.compile(r"(?<=[0-9,])(?<!\^[0-9])(?:\\[!,;:]|~|\{,\}) ?(?=[0-9]{3}(?![0-9]))")
_SPACES = re.compile(r"(?<!\\)\\[!,;:> ]|~|\\q?quad(?![A-Za-z])|\s+")
_DECORATED = re.compile(
    r"\\(?:color|textcolor|mathcolor|hspace|phantom)\s?\{[^{}]*\}"
    r"|\\(?:tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it|sf)(?![A-Za-z])"
)
_REPEATING = re.compile(r"(?<=[0-9.])\\bar(?![A-Za-z])")
_MODULUS = re.compile(r"\\pmod\s*([0-9A-Za-z])")
_NEGATED = re.compile(r"\\not\s?=")
_DEGREES = re.compile(
    r"(?:\{\})?\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})"
    r"|(?<=[0-9})])\s?\^ ?(?:o(?![A-Za-z0-9(])|\\(?:text|mathrm|rm) ?\{ ?o ?\}"
    r"|\{ ?(?:o|\^ ?\{ ?\\circ ?\}|\\(?:text|mathrm|rm) ?\{ ?o ?\}) ?\})"
)
_DEGREE_IN_TEXT = re.compile(r"\\(?:text|mathrm)\s?\{\s*(\^\{\\circ\})\s*([CF]?)\s*\}")
_PRIMES = re.compile(r"\^ ?(?:\{\s*('+(?:\s*'+)*)\s*\}|('))")
_ORDINAL = re.compile(
    r"(?<=[0-9])\s?\^ ?\{? ?(?:\\(?:text|mathrm|textrm|rm|mbox)\s?\{)? ?(?:st|nd|rd|th) ?\}{0,2}(?![A-Za-z])"
)
_BLACKBOARD = re.compile(r"\\mathbb ?([A-Z])(?![A-Za-z])")
_OVER = re.compile(r"\{([^{}]*)\\(over|choose)(?![A-Za-z])([^{}]*)\}|^([^{}]*)\\(over|choose)(?![A-Za-z])([^{}]*)$")
_DOTS = re.compile(r"(?<![0-9.])\.\.\.(?![0-9.])")
_COMPARED = {"<=": "\\le ", ">=": "\\ge ", "!=": "\\ne ", "=<": "\\le "}
_COMPARISON = re.compile("<=|>=|!=|=<")
TEXT_GROUP = re.compile(r"\\(?:text|mathrm|textrm|textbf|mathbf|mbox|textit|textsf|mathit|mathsf|rm|bf)\s?\{([^{}]*)\}")
"""Words within mathematics."""
_JOINT_IN_GROUP = re.compile(r"\\(text|mathrm|mbox|textrm)\s?\{([^{}]*?[^\s{}])\s(and|or)\s*\}")
_JOINT_BEFORE_WORDS = re.compile(r"\\(text|mathrm|mbox|textrm)\s?\{\s*(and|or)\s([^{}]*[^\s{}])\s*\}")
NUMBERS = dict(
    zip(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ],
        range(21),
        strict=True,
    )
)
"""Numbers in words."""
SHORT_WORDS = frozenset(
    [
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
    ]
)
"""Words of few letters that are not a product of symbols."""
_ARTICLES = re.compile(r"\b(?:the|a|an)\s+")


def respelled(text: str) -> str:
    """The text in one spelling. Two texts that are the same after it mean the same."""
    if not text.isascii() or "<" in text or "&" in text:
        text = latex_of(text)
    if "\\" in text or "{" in text or "~" in text or "^" in text:
        text = _commands_respelled(text)
    if "..." in text:
        text = _DOTS.sub(r"\\ldots ", text)
    text = _SPACES.sub(" ", text)
    if "=" in text:
        text = _COMPARISON.sub(lambda found: _COMPARED[found.group()], text)
    return text.strip()


def _commands_respelled(text: str) -> str:
    text = _THIN_IN_NUMBER.sub(lambda found: "," if found.group() == "{,}" else "", text)
    text = _COMMAND.sub(_one_name, _DECORATED.sub("", text))
    text = _MODULUS.sub(r"\\pmod{\1}", _REPEATING.sub(r"\\overline", text))
    if "^" in text:
        text = _DEGREE_IN_TEXT.sub(r"\1\2", _DEGREES.sub(r"^{\\circ}", text))
        text = _ORDINAL.sub("", _PRIMES.sub(lambda found: (found[1] or found[2]).replace(" ", ""), text))
    text = _NEGATED.sub(r"\\ne ", text).replace("\\%", "%")
    if "\\mathbb" in text:
        text = _BLACKBOARD.sub(r"\\mathbb{\1}", text)
    if 0 < text.count("\\over") + text.count("\\choose") < 20:
        text = _OVER.sub(_fraction, text)
    return _JOINT_BEFORE_WORDS.sub(r"\\text{ \2 }\\\1{\3}", _JOINT_IN_GROUP.sub(r"\\\1{\2}\\text{ \3 }", text))


def _fraction(found: re.Match[str]) -> str:
    above, command, below = (part for part in found.groups() if part is not None)
    return f"\\{'frac' if command == 'over' else 'binom'}{{{above}}}{{{below}}}"


def _one_name(found: re.Match[str]) -> str:
    name = found.group(1)
    if name in _ONE_NAME:
        same, after = _ONE_NAME[name], found.string[found.end() : found.end() + 1]
        return f"{same} " if same[-1:].isalpha() and after.isalpha() else same
    if len(name) > 3 and (glued := next((start for start in _GLUED if name.startswith(start)), "")):
        rest = name[len(glued) :]
        if len(rest) == 1:  # \quadx, \cdotx
            return f"{_ONE_NAME.get(glued, chr(92) + glued)} {rest}"
    return found.group()


def folded(text: str) -> str:
    """Words for comparison: in lower case, without articles, hyphens and full stops.

    Capitals are kept where they matter: within a word (AaBb), and in short names (CO is not Co).
    """
    text = TEXT_GROUP.sub(r" \1 ", text).replace("-", " ").replace(".", " ")
    return _ARTICLES.sub("", " ".join(map(_lowered, text.split())))


def _lowered(word: str) -> str:
    lower = word.casefold()
    plain = word in (lower, lower.capitalize()) or (word.isupper() and (len(word) > 3 or lower in SHORT_WORDS))
    return lower if plain or not word.isalpha() else word
