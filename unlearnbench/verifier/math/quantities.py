"""Quantities: a number, which may be mixed, in a base or a ratio, and the unit or currency that stands beside it."""

from __future__ import annotations

import re
from fractions import Fraction

from unlearnbench.verifier.math.brackets import balanced, bare
from unlearnbench.verifier.math.latex_parser import in_base, parse
from unlearnbench.verifier.math.nodes import Apply, Number, UnreadableError, Value
from unlearnbench.verifier.math.units import DEGREE, PERCENT, Unit, known, parse_unit

_MIXED = re.compile(r"([-+]?)([0-9]+) ([0-9]+)/([0-9]+)")
_BASED = re.compile(r"[({]?([0-9A-F]*[0-9][0-9A-F]*|[A-F]{2,})[)}]?_\{?(?:\\text\s?\{)?([0-9]{1,2}|[a-z]{3,7})\}?\}?")
_BASE_WORDS = re.compile(
    r"([0-9A-F]+)\s?(?:\\text\s?\{|\(|,|_\{(?:\\text\s?\{)?)?\s*(?:in )?base[ -]?(?:\})?\s?(\w{1,7})\s*\}?\)?\}?"
)
_UNIT_GROUP = re.compile(
    r"(.*?)\s*\\(?:text|mathrm|textrm|mbox|rm)\s?\{([^{}]*)\}\s*(?:\^\s?\{?\s?(-?[0-9])\s?\}?)?", re.DOTALL
)
_UNIT_TAIL = re.compile(r"(.*[0-9)}\]!])( ?)((?:[A-Za-z. /]|\^ ?\{?-?[0-9]\}?)+)", re.DOTALL)
_UNIT_WORD = re.compile(r"[A-Za-z]+")
_CURRENCY = {"$": "dollar", "\\$": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee"}
_MONEY = re.compile(r"([-+]?)\s?(\\?\$|[€£¥₹])\s?(.*)", re.DOTALL)
_MONEY_AFTER = re.compile(r"(.*[0-9}])\s?(\\\$|[€£¥₹])", re.DOTALL)

PLACES_THAT_ROUND = 6
"""A decimal with at least so many significant digits stands for every value that rounds to it."""
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_SPACED = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_SCIENTIFIC = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))[eE]([-+]?[0-9]+)")
_DECIMAL = re.compile(r"[-+]?([0-9]+)?\.([0-9]+)(?:\\times ?10\^\{?([-+]?[0-9]{1,4})\}?)?")
_RECURRING = re.compile(r"([0-9]*\.[0-9]*)(?:\(([0-9]+)\)|\\dot ?\{?([0-9])\}?(?:([0-9]*)\\dot ?\{?([0-9])\}?)?)")
_NO_WHOLE = re.compile(r"(?<![0-9])\.(?=\\)")
_ENDLESS = re.compile(r"([0-9]*\.[0-9]+)(?:\\ldots|\.\.\.)")


def quantity(text: str) -> Value:
    """The number that the text is, with its unit. Raises UnreadableError."""
    number, unit = _unit_of(text)
    number = bare(number)
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
    return Value(node, unit, half_step(number), text)


def ratio(text: str) -> Value | None:
    """The quotient that 3:4 is; None where the text is no ratio. Raises UnreadableError."""
    if text.count(":") != 1:
        return None
    left, right = (parse(plain_number(part)) for part in text.split(":"))
    return Value(Apply("div", (left, right)), text=text)


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
        if balanced(found[1]) and not re.search(r"\\?(?:sin|cos|tan|cot|sec|csc|cis)", found[1]):
            name = {"C": "celsius", "F": "fahrenheit", None: None}[found[2]]
            return found[1], DEGREE if name is None else parse_unit(name)
        return text, None
    if (found := _UNIT_GROUP.fullmatch(text)) and found[1] and balanced(found[1]):
        name = found[2] if found[3] is None else f"{found[2]}^{found[3]}"
        inner, before = _unit_of(found[1])
        unit = parse_unit(name)
        if before is not None and before.scale != 1 and unit is not None:
            return inner, unit._replace(scale=before.scale)
        if unit is not None:
            return found[1].rstrip("\\ "), unit
    if (found := _UNIT_TAIL.fullmatch(text)) and balanced(found[1]):
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


def ungrouped(text: str) -> str:
    """The text without commas between thousands."""
    return _THOUSANDS.sub(lambda found: found.group().replace(",", ""), text)


def plain_number(text: str) -> str:
    """Numbers as the grammar has them: no thousands separators, powers of ten and repeating digits spelled out."""
    text = ungrouped(text)
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


def half_step(number: str) -> Fraction | None:
    """Half a unit of the last place of a decimal that stands for every value that rounds to it; else None."""
    found = _DECIMAL.fullmatch(number.replace(" ", ""))
    if found is None:
        return None
    significant = len(((found[1] or "") + found[2]).lstrip("0"))
    if significant < PLACES_THAT_ROUND:
        return None
    return Fraction(1, 2 * 10 ** len(found[2])) * Fraction(10) ** int(found[3] or 0)
