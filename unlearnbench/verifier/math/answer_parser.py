"""The structure of an answer's text, taken apart at its outermost brackets, commas and signs."""

from __future__ import annotations

import re

from unlearnbench.verifier.math.brackets import MOST_PARTS, bare, closes, split
from unlearnbench.verifier.math.interval_sets import as_region, intersection, union, without
from unlearnbench.verifier.math.latex_parser import FUNCTIONS, parse
from unlearnbench.verifier.math.nodes import (
    Answer,
    Choice,
    Clock,
    Collection,
    Equation,
    Infinite,
    Labelled,
    Matrix,
    Node,
    Region,
    Span,
    Symbol,
    UnreadableError,
    Value,
    Words,
    difference,
    symbols,
)
from unlearnbench.verifier.math.normalize import SHORT_WORDS, TEXT_GROUP, folded
from unlearnbench.verifier.math.quantities import plain_number, quantity, ratio, ungrouped

_CHOICE = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf|textrm)\s?\{\s*)?(?:option|choice|answer)?\s*\(([A-Za-z])\s*\)\s*\}?(.*)",
    re.DOTALL | re.I,
)
_CHOICE_DOT = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf)\s?\{\s*)?([A-H])\s*(?:[.:)]\s*\}?|\}\s*[.:)]|\}(?=\s|$))(.*)", re.DOTALL
)
_ANOTHER_CHOICE = re.compile(r"\([A-Z]\)|\b[A-H][.:)]|\b(?:not|wrong|incorrect|and|or)\b")
_CLOCK = re.compile(r"(\d{1,2})(?::|\{:\})(\d{2})\s*(?:\\text\s?\{)?\s*([ap])?\.?\s?(?(3)m\.?)\s*\}?", re.I)
_PHRASE = re.compile(r"[A-Za-z]{4}|\b(?:no|on|yes|odd|off|out|and|the|none|all)\b", re.I)
_TWO_SIGNS = re.compile(r"\\(?:pm|mp)\s*[-+]?\s*\\(?:pm|mp)")
_DATED = re.compile(
    r"[0-9]+ ?- ?[0-9]+(?: ?- ?[0-9]+)?|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2,4}|\\(?:angle|triangle) ?[A-Z]+"
    r"|[A-Za-z]{3,}(?: [A-Za-z]+)* [0-9]{1,4}(?:st|nd|rd|th)?(?:,? [0-9]{4})?"
)
"""Dates, ranges and names that hold numbers: words, not differences or products."""
_OR, _AND = re.compile(r"\bor\b|vee"), re.compile(r"\band\b|wedge")
_SEPARATOR = re.compile(
    r",?\s*(?:\\(?:vee|wedge)(?![A-Za-z])|\\(?:text|mathrm|mbox|textrm)\s?\{\s*,?\s*(?:and|or)\s*\}"
    r"|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))|,|;"
)
_COMMA = re.compile(_SEPARATOR.pattern.replace(r"\\(?:vee|wedge)(?![A-Za-z])|", ""))
"""Without signs of logic, which join statements and never values."""
_ONE_NUMBER = re.compile(r"[-+]?(?:\\?\$|[€£¥₹])?\s?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9]|,).*", re.DOTALL)
_RELATIONS = re.compile(r"<|>|=|\\(?:le|ge|ne|in|approx|neq)(?![A-Za-z])")
_LABEL = re.compile(
    r"\|?(?:\\(?:angle|triangle|text|mathrm|overline|widehat|vec|mathbf|operatorname|alpha|beta|gamma|theta|phi|lambda|mu|det|max|min|Delta|"
    r"omega|sigma|rho|ell)|[A-Za-z'(){},| ]|_\{[A-Za-z0-9, \\]*\}|_[A-Za-z0-9]|\^\{-1\}|(?<=[a-zA-Z]\()[0-9]+(?=\)))+"
)
_MATRIX = re.compile(r"\\begin\{([pbBv]?matrix|array)\}(?:\{[clr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)


def read(text: str) -> Answer:
    """What a respelled text is. Raises UnreadableError."""
    text = bare(text)
    if not text:
        raise UnreadableError("it is empty")
    if ", " in text:  # 1,234, 5,678: a comma that separates has a space behind it
        text = ungrouped(text)
    if _TWO_SIGNS.search(text) or "\\not" in text:
        raise UnreadableError("signs that contradict")
    if "\\pm" in text or "\\mp" in text:
        return _both_signs(text)
    for reader in (_matrix, _clock, _choice, _words, _empty, _infinite):
        if (answer := reader(text)) is not None:
            return answer
    if "\\cup" in text or "\\setminus" in text or "\\mathbb{R}" in text:
        return _region(text)
    parts, joints = split(text, _SEPARATOR if _RELATIONS.search(text) else _COMMA)
    if len(parts) > 1 and not (_ONE_NUMBER.fullmatch(text) and set(joints) == {","}):
        return _listed(parts, joints)
    if _RELATIONS.search(text) and (answer := _relation(text)) is not None:
        return answer
    return _bracketed(text) or ratio(text) or quantity(text)


def _both_signs(text: str) -> Answer:
    upper = text.replace("\\pm", "+").replace("\\mp", "-")
    lower = text.replace("\\pm", "-").replace("\\mp", "+")
    items = [item for sign in (upper, lower) for item in _items(read(sign))]
    return Collection("list", tuple(items))


def _items(answer: Answer) -> tuple[Answer, ...]:
    return answer.items if isinstance(answer, Collection) and answer.kind != "tuple" else (answer,)


def _matrix(text: str) -> Answer | None:
    found = _MATRIX.fullmatch(text)
    if found is None or "\\begin" in found[2] or found[1] == "vmatrix":
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", found[2].replace("\\hline", "")) if row.strip()]
    cells = [row.split("&") for row in rows]
    if sum(map(len, cells)) > MOST_PARTS:
        raise UnreadableError("it has too many entries")
    return Matrix(tuple(tuple(read(cell) for cell in row) for row in cells))


def _clock(text: str) -> Answer | None:
    found = _CLOCK.fullmatch(text)
    if found is None or int(found[1]) > 24 or int(found[2]) > 59:
        return None
    return Clock(int(found[1]), int(found[2]), found[3].lower() if found[3] else None)


def _choice(text: str) -> Answer | None:
    found = _CHOICE.fullmatch(text) or _CHOICE_DOT.fullmatch(text)
    if found is None:
        return None
    rest = found[2].strip().strip("}{").strip()
    if (rest[:1] in "+-*/^=<>!'_" and rest) or _ANOTHER_CHOICE.search(found[2]):
        return None
    marked = "\\text" in text or "\\math" in text
    if rest and not marked and not text.startswith(("(", "O", "o", "C", "c")) and _CHOICE_DOT.fullmatch(text) is None:
        return None
    if rest and text.startswith("(") and (rest[0] == "(" or found[1].islower()):
        return None  # (x)(x+1) is a product
    if not rest and not marked and found[1] in "ei":
        return None
    try:
        return Choice(found[1].upper(), read(rest) if rest else None)
    except UnreadableError:
        return Choice(found[1].upper(), Words(folded(rest)))


def _words(text: str) -> Answer | None:
    if re.fullmatch("[A-Z]{2,}", text) or (_DATED.fullmatch(text) and text.split()[0] not in FUNCTIONS):
        return Words(folded(text))  # names: ABC is not ACB, and IV is not VI
    inner = text
    grouped = False
    for _ in range(4):
        if (found := TEXT_GROUP.fullmatch(inner)) is None:
            break
        inner, grouped = found[1].strip(), True
    if not grouped and _COMMA.search(inner):
        return None
    plain = TEXT_GROUP.sub(r" \1 ", inner)
    if not re.fullmatch(r"[A-Za-z' .\-]+", plain):
        return None
    letters = folded(plain)
    if letters in ("infinity", "pi"):
        return None
    if (grouped and len(letters) > 1) or _PHRASE.search(plain) or letters in SHORT_WORDS:
        return Words(letters)
    return None


def _empty(text: str) -> Answer | None:
    return Collection("set", ()) if text.replace(" ", "") in ("\\emptyset", "\\{\\}") else None


def _infinite(text: str) -> Answer | None:
    found = re.fullmatch(r"([-+]?) ?(?:\\infty|infinity)", text, re.I)
    return Infinite(-1 if found[1] == "-" else 1) if found else None


def _listed(parts: list[str], joints: list[str]) -> Answer:
    answers = [read(part) for part in parts]
    if answers and all(isinstance(answer, Region) for answer in answers):
        regions = [answer for answer in answers if isinstance(answer, Region)]
        if all(_OR.search(joint) for joint in joints):
            return union(regions)
        if all(region.variable for region in regions):  # x>1, x<5 means both; x<1, x>5 can only mean one of them
            both = intersection(regions)
            return both if both.spans or any(_AND.search(joint) for joint in joints) else union(regions)
    if answers and all(isinstance(answer, Labelled) for answer in answers):
        labels = {answer.label for answer in answers if isinstance(answer, Labelled)}
        if len(labels) == 1:
            answers = [answer.answer for answer in answers if isinstance(answer, Labelled)]
    elif isinstance(answers[0], Labelled) and not any(isinstance(answer, Labelled | Equation) for answer in answers):
        answers[0] = answers[0].answer  # x = 1, 2
    return Collection("list", tuple(answers)) if len(answers) > 1 else answers[0]


def _relation(text: str) -> Answer | None:
    terms, signs = split(text, _RELATIONS)
    signs = [sign.strip() for sign in signs]
    if not signs:
        return None
    if signs == ["\\in"] or signs == ["\\approx"]:
        if not _is_label(terms[0]):
            raise UnreadableError("a relation of something else than a name")
        return read(terms[1])
    if all(sign == "=" for sign in signs):
        return _equation(terms)
    if len(terms) > 3 or not all(terms) or {"\\in", "\\approx", "="} & set(signs):
        raise UnreadableError("a chain of relations")
    if "\\ne" in signs:
        if len(terms) > 2:
            raise UnreadableError("a chain of relations")
        left, right = (parse(plain_number(term)) for term in terms)
        if isinstance(left, Symbol) and not symbols(right):
            return Region((Span(None, right, False, False), Span(right, None, False, False)), left.name)
        return Equation(difference(left, right), "!=")
    return _inequality(terms, signs)


def _equation(terms: list[str]) -> Answer:
    if not all(terms):
        raise UnreadableError("an equation without a side")
    left, right = terms[0], terms[-1]
    if _is_label(right) and not _is_label(left) and len(terms) == 2:
        left, right = right, left
    equation = None
    try:
        equation = Equation(difference(parse(plain_number(left)), parse(plain_number(right))), "=")
    except UnreadableError:
        if not _is_label(left) and not left.startswith("("):
            raise
    if _is_label(left):
        return Labelled(left.replace(" ", ""), read(right), equation)
    if left.startswith("(") and closes(left, 0) == len(left) - 1 and not re.search("[0-9]", left):
        names, values = left[1:-1].replace(" ", "").split(","), read(right)  # (x,y)=(1,2)
        if isinstance(values, Collection) and values.kind == "tuple" and len(values.items) == len(names):
            return Collection("tuple", tuple(map(Labelled, names, values.items)))
        raise UnreadableError("names and values of different number")
    if equation is None:
        raise UnreadableError("an equation of something else than numbers")
    if not symbols(equation.node):
        return read(right)  # of a chain of numbers, 2+3=5, the last one is stated, true or not
    return equation


def _is_label(text: str) -> bool:
    return (
        _LABEL.fullmatch(text) is not None
        and not re.fullmatch(r"[()\[\]{}, ]*[A-Za-z](?:,[A-Za-z ]+)+[()]", text)
        and (text not in ("e", "i"))
        and not text.startswith("(")
        and not re.fullmatch("[a-z]{2,}", text)  # xy=5 is about a product
        and not re.fullmatch(r"\|.\|", text)  # |AB|=5 is a length, |x|=5 an equation
    )


def _inequality(terms: list[str], signs: list[str]) -> Answer:
    ascending = all(sign in ("<", "\\le") for sign in signs)
    if not ascending and not all(sign in (">", "\\ge") for sign in signs):
        raise UnreadableError("a chain of inequalities of both directions")
    if not ascending:
        terms, signs = terms[::-1], signs[::-1]
    closed = [sign in ("\\le", "\\ge") for sign in signs]
    ends = [_end(term) for term in terms]
    if len(terms) == 3:
        low, middle, high = ends
        if not isinstance(middle, Symbol):
            raise UnreadableError("a chain around an expression")
        return Region((Span(low, high, closed[0], closed[1]),), middle.name)
    low, high = ends
    if isinstance(low, Symbol) and (high is None or not symbols(high)):
        return Region((Span(None, high, False, closed[0]),), low.name)
    if isinstance(high, Symbol) and (low is None or not symbols(low)):
        return Region((Span(low, None, closed[0], False),), high.name)
    if low is None or high is None:
        raise UnreadableError("infinity in an inequality")
    return Equation(difference(high, low), ">=" if closed[0] else ">")


def _end(text: str) -> Node | None:
    """An end of an interval; None if it is infinite."""
    if _infinite(bare(text)) is not None:
        return None
    return quantity(bare(text)).node


def _region(text: str) -> Answer:
    text = re.sub(r"^[A-Za-z] ?\\in ?", "", text)
    wholes = re.split(r"\\setminus|(?<=\})\s*-\s*(?=\\\{)|(?<=\\mathbb\{R\})\s*\\backslash", text)
    parts = wholes[0].split("\\cup")
    if len(parts) > MOST_PARTS or len(wholes) > 2:
        raise UnreadableError("it has too many parts")
    regions: list[Region] = []
    points: list[Answer] = []
    for part in parts:
        part = bare(part)
        if part.replace(" ", "") == "\\mathbb{R}":
            regions.append(Region((Span(None, None, False, False),)))
            continue
        if "\\mathbb{R}" in part:
            raise UnreadableError("the real numbers within an expression")
        answer = read(part)
        if (region := as_region(answer)) is not None:
            regions.append(region)
        elif isinstance(answer, Collection) and answer.kind == "set":
            points += answer.items
        else:
            raise UnreadableError("a union of something else than intervals")
    if not regions:
        return Collection("set", tuple(points))
    regions += [Region((Span(node, node, True, True),)) for node in map(_node, points)]
    whole = union(regions)
    if len(wholes) == 1:
        return whole
    out = read(bare(wholes[1]))
    for point in _items(out):
        whole = without(whole, _node(point))
    return whole


def _node(answer: Answer) -> Node:
    if isinstance(answer, Value):
        return answer.node
    raise UnreadableError("a point that is no value")


def _bracketed(text: str) -> Answer | None:
    if text.startswith("\\{") and text.endswith("\\}"):
        return _set(text[2:-2])
    if text[0] not in "([" or text[-1] not in ")]" or closes(text, 0) != len(text) - 1:
        return None
    parts, _ = split(text[1:-1], re.compile(","))
    if len(parts) == 2 and (text[0] == "[" or text[-1] == "]" or any("\\infty" in part for part in parts)):
        return Region((Span(_end(parts[0]), _end(parts[1]), text[0] == "[", text[-1] == "]"),))
    if len(parts) == 1:
        return read(text[1:-1]) if text[0] == "(" and text[-1] == ")" else None
    if text[0] + text[-1] not in ("()", "[]"):
        raise UnreadableError("brackets that do not match")
    return Collection("tuple", tuple(read(part) for part in parts))


def _set(inner: str) -> Answer:
    for bar in ("\\mid", "|", ":"):
        element, found, condition = inner.partition(bar)
        if found and _RELATIONS.search(condition) and "|" not in condition:
            if re.fullmatch(r"\s*[A-Za-z]\s*(?:\\in\s*\\mathbb\{R\}\s*)?", element) is None:
                raise UnreadableError("a set of something else than the numbers of a region")
            return read(condition.strip().removeprefix("\\text{}"))
    parts, _ = split(inner, re.compile(","))
    return Collection("set", tuple(read(part) for part in parts if part))
