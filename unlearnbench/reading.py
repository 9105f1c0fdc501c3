"""The structure of an answer's text, taken apart at its outermost brackets, commas and signs."""

from __future__ import annotations

import re
from fractions import Fraction

from unlearnbench.expressions import (
    FUNCTIONS,
    Apply,
    Node,
    Number,
    Symbol,
    UnreadableError,
    difference,
    in_base,
    parse,
    symbols,
)
from unlearnbench.regions import as_region, intersection, union, without
from unlearnbench.spelling import SHORT_WORDS, TEXT_GROUP, folded
from unlearnbench.structures import (
    Answer,
    Choice,
    Clock,
    Collection,
    Equation,
    Infinite,
    Labelled,
    Matrix,
    Region,
    Span,
    Value,
    Words,
)
from unlearnbench.units import DEGREE, PERCENT, Unit, known, parse_unit

MOST_PARTS = 200
PLACES_THAT_ROUND = 6
"""A decimal with at least so many significant digits stands for every value that rounds to it."""

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
_ANSWER_IS = re.compile(
    r"(?:\\text\s?\{\s*)?(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final |correct )?answer(?: is|:)[: ]*\}?\s*",
    re.I,
)
_OR, _AND = re.compile(r"\bor\b|vee"), re.compile(r"\band\b|wedge")
_NAMED = re.compile(r"\\text\s?\{[A-Za-z ]{3,40}: ?\}\s*")
_SEPARATOR = re.compile(
    r",?\s*(?:\\(?:vee|wedge)(?![A-Za-z])|\\(?:text|mathrm|mbox|textrm)\s?\{\s*,?\s*(?:and|or)\s*\}"
    r"|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))|,|;"
)
_COMMA = re.compile(_SEPARATOR.pattern.replace(r"\\(?:vee|wedge)(?![A-Za-z])|", ""))
"""Without signs of logic, which join statements and never values."""
_OPENING, _CLOSING = "([{", ")]}"
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_ONE_NUMBER = re.compile(r"[-+]?(?:\\?\$|[€£¥₹])?\s?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9]|,).*", re.DOTALL)
_SPACED = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_MIXED = re.compile(r"([-+]?)([0-9]+) ([0-9]+)/([0-9]+)")
_SCIENTIFIC = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))[eE]([-+]?[0-9]+)")
_DECIMAL = re.compile(r"[-+]?([0-9]+)?\.([0-9]+)(?:\\times ?10\^\{?([-+]?[0-9]{1,4})\}?)?")
_RECURRING = re.compile(r"([0-9]*\.[0-9]*)(?:\(([0-9]+)\)|\\dot ?\{?([0-9])\}?(?:([0-9]*)\\dot ?\{?([0-9])\}?)?)")
_NO_WHOLE = re.compile(r"(?<![0-9])\.(?=\\)")
_ENDLESS = re.compile(r"([0-9]*\.[0-9]+)(?:\\ldots|\.\.\.)")
_BASED = re.compile(r"[({]?([0-9A-F]*[0-9][0-9A-F]*|[A-F]{2,})[)}]?_\{?(?:\\text\s?\{)?([0-9]{1,2}|[a-z]{3,7})\}?\}?")
_BASE_WORDS = re.compile(
    r"([0-9A-F]+)\s?(?:\\text\s?\{|\(|,|_\{(?:\\text\s?\{)?)?\s*(?:in )?base[ -]?(?:\})?\s?(\w{1,7})\s*\}?\)?\}?"
)
_RELATIONS = re.compile(r"<|>|=|\\(?:le|ge|ne|in|approx|neq)(?![A-Za-z])")
_LABEL = re.compile(
    r"\|?(?:\\(?:angle|triangle|text|mathrm|overline|widehat|vec|mathbf|operatorname|alpha|beta|gamma|theta|phi|lambda|mu|det|max|min|Delta|"
    r"omega|sigma|rho|ell)|[A-Za-z'(){},| ]|_\{[A-Za-z0-9, \\]*\}|_[A-Za-z0-9]|\^\{-1\}|(?<=[a-zA-Z]\()[0-9]+(?=\)))+"
)
_UNIT_GROUP = re.compile(
    r"(.*?)\s*\\(?:text|mathrm|textrm|mbox|rm)\s?\{([^{}]*)\}\s*(?:\^\s?\{?\s?(-?[0-9])\s?\}?)?", re.DOTALL
)
_UNIT_TAIL = re.compile(r"(.*[0-9)}\]!])( ?)((?:[A-Za-z. /]|\^ ?\{?-?[0-9]\}?)+)", re.DOTALL)
_UNIT_WORD = re.compile(r"[A-Za-z]+")
_CURRENCY = {"$": "dollar", "\\$": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee"}
_MONEY = re.compile(r"([-+]?)\s?(\\?\$|[€£¥₹])\s?(.*)", re.DOTALL)
_MONEY_AFTER = re.compile(r"(.*[0-9}])\s?(\\\$|[€£¥₹])", re.DOTALL)
_MATRIX = re.compile(r"\\begin\{([pbBv]?matrix|array)\}(?:\{[clr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)


def read(text: str) -> Answer:
    """What a respelled text is. Raises UnreadableError."""
    text = _bare(text)
    if not text:
        raise UnreadableError("it is empty")
    if ", " in text:  # 1,234, 5,678: a comma that separates has a space behind it
        text = _THOUSANDS.sub(lambda found: found.group().replace(",", ""), text)
    if _TWO_SIGNS.search(text) or "\\not" in text:
        raise UnreadableError("signs that contradict")
    if "\\pm" in text or "\\mp" in text:
        return _both_signs(text)
    for reader in (_matrix, _clock, _choice, _words, _empty, _infinite):
        if (answer := reader(text)) is not None:
            return answer
    if "\\cup" in text or "\\setminus" in text or "\\mathbb{R}" in text:
        return _region(text)
    parts, joints = _split(text, _SEPARATOR if _RELATIONS.search(text) else _COMMA)
    if len(parts) > 1 and not (_ONE_NUMBER.fullmatch(text) and set(joints) == {","}):
        return _listed(parts, joints)
    if _RELATIONS.search(text) and (answer := _relation(text)) is not None:
        return answer
    return _bracketed(text) or _ratio(text) or _value(text)


def _bare(text: str) -> str:
    text = text.strip()
    for _ in range(12):
        before = text
        text = text.strip()
        if text.endswith(".") and not text.endswith(("..", "m.")):
            text = text[:-1].rstrip()
        if len(text) > 1 and text[0] == "$" == text[-1]:
            text = text[1:-1]
        if text.startswith("{") and _closes(text, 0) == len(text) - 1:
            text = text[1:-1]
        if (found := TEXT_GROUP.fullmatch(text)) and re.search(r"[0-9]|\([A-Z]\).*\([A-Z]\)", found[1]):
            text = found[1]
        if len(text) > 4 and text.startswith("**") and text.endswith("**"):
            text = text[2:-2]
        if found := _ANSWER_IS.match(text) or _NAMED.match(text):
            text = text[found.end() :]
            text = text.removesuffix("}") if text.count("}") > text.count("{") else text
        if text == before:
            break
    return text


def _closes(text: str, start: int) -> int:
    """Where the bracket at `start` closes, by depth alone (intervals mix brackets), or -1."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in _OPENING:
            depth += 1
        elif text[at] in _CLOSING:
            depth -= 1
            if depth == 0:
                return at
    return -1


def _split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The parts between separators that stand outside all brackets, and the separators."""
    ends: list[tuple[int, int]] = []
    places = {found.start(): found.end() for found in separator.finditer(text)}
    if not places:
        return [text], []
    depth, after = 0, 0
    for at, character in enumerate(text):
        if depth == 0 and at in places and at >= after:
            ends.append((at, places[at]))
            after = places[at]
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
    if len(ends) >= MOST_PARTS:
        raise UnreadableError("it has too many parts")
    starts = [0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), len(text)]
    return [text[a:b].strip() for a, b in zip(starts, stops, strict=True)], [text[a:b] for a, b in ends]


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
    terms, signs = _split(text, _RELATIONS)
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
    if left.startswith("(") and _closes(left, 0) == len(left) - 1 and not re.search("[0-9]", left):
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
    if _infinite(_bare(text)) is not None:
        return None
    value = _value(_bare(text))
    return value.node if isinstance(value, Value) else None


def _region(text: str) -> Answer:
    text = re.sub(r"^[A-Za-z] ?\\in ?", "", text)
    wholes = re.split(r"\\setminus|(?<=\})\s*-\s*(?=\\\{)|(?<=\\mathbb\{R\})\s*\\backslash", text)
    parts = wholes[0].split("\\cup")
    if len(parts) > MOST_PARTS or len(wholes) > 2:
        raise UnreadableError("it has too many parts")
    regions: list[Region] = []
    points: list[Answer] = []
    for part in parts:
        part = _bare(part)
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
    out = read(_bare(wholes[1]))
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
    if text[0] not in "([" or text[-1] not in ")]" or _closes(text, 0) != len(text) - 1:
        return None
    parts, _ = _split(text[1:-1], re.compile(","))
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
    parts, _ = _split(inner, re.compile(","))
    return Collection("set", tuple(read(part) for part in parts if part))


def _ratio(text: str) -> Answer | None:
    if text.count(":") != 1:
        return None
    left, right = (parse(plain_number(part)) for part in text.split(":"))
    return Value(Apply("div", (left, right)), text=text)


def _value(text: str) -> Answer:
    number, unit = _unit_of(text)
    number = _bare(number)
    if found := _MIXED.fullmatch(number):
        whole = Fraction(int(found[2])) + Fraction(int(found[3]), int(found[4]) or 1)
        if not int(found[4]):
            raise UnreadableError("a fraction with denominator 0")
        return Value(Number(-whole if found[1] == "-" else whole), unit, text=text)
    based = _BASED.fullmatch(number) or _BASE_WORDS.fullmatch(number)
    if based is not None:
        return Value(Number(Fraction(in_base(based[1], based[2]))), unit, text=text)
    number = plain_number(number)
    node = parse(number)
    if unit is not None and unit.scale != 1:
        node = Apply("mul", (node, Number(Fraction(unit.scale))))
        return Value(node, unit, text=text)
    return Value(node, unit, _half_step(number), text)


def plain_number(text: str) -> str:
    """Numbers as the grammar has them: no thousands separators, powers of ten and repeating digits spelled out."""
    text = _THOUSANDS.sub(lambda found: found.group().replace(",", ""), text)
    if _SPACED.fullmatch(text):
        text = text.replace(" ", "")
    if found := _SCIENTIFIC.fullmatch(text):
        text = f"{found[1]}\\times 10^{{{found[2]}}}"
    if "." in text:
        text = _NO_WHOLE.sub("0.", text)
        text = _RECURRING.sub(_overlined, text)
        if found := _ENDLESS.fullmatch(text.lstrip("+-")):
            sign = "-" if text.startswith("-") else ""
            text = sign + _repeated(found[1])
    return text


def _overlined(found: re.Match[str]) -> str:
    digits = found[2] or "".join(found[group] or "" for group in (3, 4, 5))
    return f"{found[1]}\\overline{{{digits}}}"


def _repeated(decimal: str) -> str:
    """0.1666... with what repeats under a line: the shortest block that stands at its end three times (or two)."""
    whole, _, places = decimal.partition(".")
    for length in range(1, len(places) // 2 + 1):
        block = places[-length:]
        times = 3 if length == 1 else 2
        if len(places) >= length * times and places.endswith(block * times):
            while places.endswith(block):
                places = places[:-length]
            return f"{whole}.{places}\\overline{{{block}}}"
    raise UnreadableError("an unfinished decimal")


def _half_step(number: str) -> Fraction | None:
    found = _DECIMAL.fullmatch(number.replace(" ", "").replace("\\times10", "\\times10"))
    if found is None:
        return None
    significant = len(((found[1] or "") + found[2]).lstrip("0"))
    if significant < PLACES_THAT_ROUND:
        return None
    return Fraction(1, 2 * 10 ** len(found[2])) * Fraction(10) ** int(found[3] or 0)


def _unit_of(text: str) -> tuple[str, Unit | None]:
    """A number's text and the unit that stands behind (or, for money, before) it."""
    if text.endswith("%"):
        return text[:-1], PERCENT
    if found := _MONEY.fullmatch(text):
        number, unit = _unit_of(found[3])
        money = parse_unit(_CURRENCY[found[2]])
        if unit is not None and unit.scale != 1 and money is not None:
            money = money._replace(scale=unit.scale)
        return found[1] + number, money
    if found := _MONEY_AFTER.fullmatch(text):
        return found[1], parse_unit(_CURRENCY[found[2]])
    if found := re.fullmatch(r"(.*)\^\{\\circ\} ?(?:\\text ?\{ ?|\\mathrm ?\{)?([CF])? ?\}?", text, re.DOTALL):
        if _balanced(found[1]) and not re.search(r"\\?(?:sin|cos|tan|cot|sec|csc|cis)", found[1]):
            name = {"C": "celsius", "F": "fahrenheit", None: None}[found[2]]
            return found[1], DEGREE if name is None else parse_unit(name)
        return text, None
    if (found := _UNIT_GROUP.fullmatch(text)) and found[1] and _balanced(found[1]):
        name = found[2] if found[3] is None else f"{found[2]}^{found[3]}"
        inner, before = _unit_of(found[1])
        unit = parse_unit(name)
        if before is not None and before.scale != 1 and unit is not None:
            return inner, unit._replace(scale=before.scale)
        if unit is not None:
            return found[1].rstrip("\\ "), unit
    if (found := _UNIT_TAIL.fullmatch(text)) and _balanced(found[1]):
        names = _UNIT_WORD.findall(found[3])
        if (
            names
            and parse_unit(found[3]) is not None
            and (
                all(len(name) > 3 for name in names)
                or (known(names[0]) and (len(names[0]) > 1 or found[2]) and names[0] not in ("pi", "in"))
                or (names[0] in ("in",) and bool(found[2]))
                or (len(names) > 1 and len(names[0]) > 3)
            )
            and names[0] not in ("base", "sqrt", "choose")
        ):
            return found[1], parse_unit(found[3])
    return text, None


def _balanced(text: str) -> bool:
    return text.count("{") == text.count("}") and text.count("(") == text.count(")")
