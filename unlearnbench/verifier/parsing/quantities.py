"""Quantities: a number, which may be mixed, in a base or a ratio, and the unit or currency that stands beside it."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from unlearnbench.verifier.fast_path import PLACES_THAT_ROUND
from unlearnbench.verifier.math.nodes import Apply, Number, Ratio, UnreadableError, Value
from unlearnbench.verifier.math.units import DEGREE, PERCENT, Unit, known, parse_unit
from unlearnbench.verifier.parsing.brackets import balanced, bare
from unlearnbench.verifier.parsing.latex_parser import parse
from unlearnbench.verifier.parsing.normalize import TEXT_GROUP
from unlearnbench.verifier.parsing.numerals import in_base

_MIXED = re.compile(r"([-+]?)([0-9]+) ([0-9]+)/([0-9]+)")
_BASED = re.compile(r"[({]?([0-9A-F]*[0-9][0-9A-F]*|[A-F]{2,})[)}]?_\{?(?:\\text\s?\{)?([0-9]{1,2}|[a-z]{3,7})\}?\}?")
_BASE_WORDS = re.compile(
    r"([0-9A-F]+)\s?(?:\\text\s?\{|\(|,|_\{(?:\\text\s?\{)?)?\s*(?:in )?base[ -]?(?:\})?\s?(\w{1,7})\s*\}?\)?\}?"
)
_ORDINAL = re.compile(r"([0-9]+) ?(?:\\(?:text|mathrm|textrm) ?\{ ?)?(?:st|nd|rd|th) ?\}?")

_UNIT_TAIL = re.compile(r"(.*[0-9)}\]!])( ?)((?:[A-Za-z. /]|\^ ?\{?-?[0-9]\}?)+)", re.DOTALL)
_UNIT_WORD = re.compile(r"[A-Za-z]+")
_UPRIGHT = r"(?:\\(?:text|mathrm|textrm) ?\{[A-Za-z. ]+\}|\^ ?\{?-?[0-9]\}?|\\cdot| )+"
_UNIT_FRACTION = re.compile(rf"(.*[0-9)}}!]) ?\\frac ?\{{({_UPRIGHT})\}} ?\{{({_UPRIGHT})\}}", re.DOTALL)
_COMPOSED = re.compile(r"\\(?:frac|sqrt)(?![A-Za-z])")
_UNIT_IN_BRACKETS = re.compile(r"(.*[0-9)}!])\s*\(\s*([A-Za-z]{2,}[^()]*|\\(?:text|mathrm|textrm)[^()]*)\)", re.DOTALL)
_DEGREES = re.compile(r"(.*)\^\{\\circ\} ?(?:\\text ?\{ ?|\\mathrm ?\{)?([CF])? ?\}?", re.DOTALL)
_TURNED = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc|cis)")

_CURRENCY = {"$": "dollar", "\\$": "dollar", "€": "euro", "£": "gbp", "¥": "yen", "₹": "rupee", "¢": "cent"}
_CURRENCY |= {"USD": "dollar", "US$": "dollar", "US\\$": "dollar", "EUR": "euro", "GBP": "gbp", "JPY": "yen"}
_CURRENCY |= {"INR": "rupee", "Rs": "rupee", "Rs.": "rupee", "CNY": "yuan", "RMB": "yuan"}
_SIGN_IN_TEXT = re.compile(r"\\(?:text|mathrm|mbox) ?\{ ?([$€£¥₹¢]|\\\$|USD|EUR|GBP|INR|Rs\.?) ?\}")
_MONEY = re.compile(
    r"([-+]?)\s?(US\\?\$|\\?\$|[€£¥₹]|(?:USD|EUR|GBP|JPY|INR|CNY|RMB|Rs\.?)(?![A-Za-z]))\s?(.*)", re.DOTALL
)
_MONEY_AFTER = re.compile(r"(.*[0-9}])\s?(\\\$|[€£¥₹¢])", re.DOTALL)

_MINUTES = re.compile(r"([0-9]+)\^\{\\circ\} ?([0-9]+(?:\.[0-9]+)?)' ?(?:([0-9]+(?:\.[0-9]+)?)(?:''|\"))?")
_FEET = re.compile(r"([0-9]+)' ?([0-9]+(?:\.[0-9]+)?)(?:''|\")")
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)\.?(,? ?and |, ?| )?")
_DOLLARS = re.compile(r"^\\?\$ ?([0-9]+)(?=[ \\,a])")
_JOINED = frozenset({"time", "month", "dollar", "degree"})
_JOINED_UNITS = frozenset({"foot", "feet", "ft", "inch", "inches", "yard", "pound", "lb", "ounce", "oz"})
"""What `and` joins to one quantity, 2 hours and 30 minutes; other measures joined by it are two quantities."""

_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_SPACED = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_SCIENTIFIC = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))[eE]([-+]?[0-9]+)")
_DECIMAL = re.compile(r"[-+]?([0-9]+)?\.([0-9]+)(?:\\times ?10\^\{?([-+]?[0-9]{1,4})\}?)?")
_RECURRING = re.compile(r"([0-9]*\.[0-9]*)(?:\(([0-9]+)\)|\\dot ?\{?([0-9])\}?(?:([0-9]*)\\dot ?\{?([0-9])\}?)?)")
_NO_WHOLE = re.compile(r"(?<![0-9])\.(?=\\)")
_ENDLESS = re.compile(r"([0-9]*\.[0-9]+)(?:\\ldots|\.\.\.)")
_RATIO = re.compile(r"\s*(?::|\\(?:text|mbox) ?\{ ?to ?\}|\bto\b)\s*")


def quantity(text: str) -> Value:
    """The number that the text is, with its unit. Raises UnreadableError."""
    number, unit = _unit_of(_SIGN_IN_TEXT.sub(r"\1", text) if "\\" in text else text)
    number, scale = bare(number), 1 if unit is None else unit.scale
    if found := _MIXED.fullmatch(number):
        whole = Fraction(int(found[2])) + Fraction(int(found[3]), int(found[4]) or 1)
        if not int(found[4]):
            raise UnreadableError("a fraction with denominator 0")
        return Value(Number(scale * (-whole if found[1] == "-" else whole)), unit, text=text)
    based = _BASED.fullmatch(number) or _BASE_WORDS.fullmatch(number)
    if based is not None:
        return Value(Number(Fraction(scale * in_base(based[1], based[2]))), unit, text=text)
    if found := _ORDINAL.fullmatch(number):
        number = found[1]
    number = plain_number(number)
    node = parse(number)
    if scale != 1:
        return Value(Apply("mul", (node, Number(Fraction(scale)))), unit, text=text)
    return Value(node, unit, half_step(number), text)


def compound(text: str) -> Value | None:
    """One quantity in several units, in the smallest of them: 2 hours 30 minutes, 5 ft 6 in; None where it is none."""
    if found := _MINUTES.fullmatch(text):
        parts = [Fraction(part or 0) for part in found.groups()]
        return Value(Number(parts[0] + parts[1] / 60 + parts[2] / 3600), DEGREE, text=text)
    if found := _FEET.fullmatch(text):
        return Value(Number(12 * Fraction(found[1]) + Fraction(found[2])), parse_unit("inch"), text=text)
    plain = " ".join(TEXT_GROUP.sub(r" \1 ", _DOLLARS.sub(r"\1 dollars", text)).split())
    found_parts = [found.groups() for found in _PARTS.finditer(plain)]
    if not 2 <= len(found_parts) <= 4 or _PARTS.sub("", plain):
        return None
    units = [parse_unit(name) for _, name, _ in found_parts]
    if any(unit is None or unit.noun or not unit.measures for unit in units):
        return None
    sizes = [unit.size for unit in units if unit]
    names = [str(name).lower() for _, name, _ in found_parts]
    if names[0].startswith("deg") and all(name.startswith(("min", "sec")) for name in names[1:]):
        units = [DEGREE, *(DEGREE._replace(size=size / 3600) for size in sizes[1:])]
        sizes = [Fraction(1), *(size / 3600 for size in sizes[1:])]
    if {unit.measures for unit in units if unit} != {units[0].measures if units[0] else ()}:
        return None
    if any(large <= small for large, small in pairwise(sizes)):
        return None
    joined = any(joint and joint.strip(" ") for _, _, joint in found_parts[:-1])
    one_thing = _JOINED & {measure for unit in units if unit for measure, _ in unit.measures}
    if joined and not one_thing and not all({name, name.rstrip("s")} & _JOINED_UNITS for name in names):
        return None
    total = sum(Fraction(number) * size for (number, _, _), size in zip(found_parts, sizes, strict=True))
    return Value(Number(total / sizes[-1]), units[-1], text=text)


def ratio(text: str) -> Ratio | None:
    """The ratio that 3:4 or `3 to 4` is; None where the text is none. Raises UnreadableError."""
    parts = _RATIO.split(text)
    if len(parts) < 2 or not all(parts) or len(parts) > 20:
        return None
    return Ratio(tuple(parse(plain_number(bare(part))) for part in parts))


def _unit_of(text: str) -> tuple[str, Unit | None]:
    """A number's text and the unit after it (for money, before it)."""
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
    if found := _DEGREES.fullmatch(text):
        if balanced(found[1]) and not _TURNED.search(found[1]):
            name = {"C": "celsius", "F": "fahrenheit", None: None}[found[2]]
            return found[1], DEGREE if name is None else parse_unit(name)
        return text, None
    if (found := _UNIT_IN_BRACKETS.fullmatch(text)) and balanced(found[1]):
        words = TEXT_GROUP.sub(r" \1 ", found[2])
        names = _UNIT_WORD.findall(words)
        if names and all(known(name) or name in ("squared", "cubed", "per") for name in names):
            return found[1], parse_unit(words)
    if (found := _UNIT_FRACTION.fullmatch(text)) and balanced(found[1]):  # 9.8 \frac{\text{m}}{\text{s}^2}
        unit = parse_unit("/".join(TEXT_GROUP.sub(r" \1 ", part) for part in found.groups()[1:]))
        return (text, None) if unit is None else (found[1], unit)
    return _unit_in_group(text) or _unit_in_words(text) or (text, None)


def _unit_in_group(text: str) -> tuple[str, Unit | None] | None:
    """5\\text{ cm}, 9.8\\mathrm{ m}/\\mathrm{s}^{2}."""
    group = TEXT_GROUP.search(text)
    if (
        group is None
        or not group.start()
        or not text[: group.start()].strip()
        or not text.endswith(("}", *"0123456789"))
    ):
        return None
    head, tail = text[: group.start()].rstrip("\\ "), TEXT_GROUP.sub(r" \1 ", text[group.start() :])
    if not balanced(head):
        return None
    unit = parse_unit(tail)
    if unit is None:
        return None
    inner, before = _unit_of(head)
    if before is not None and before.scale != 1:
        return inner, unit._replace(scale=before.scale)
    return head, unit


def _unit_in_words(text: str) -> tuple[str, Unit | None] | None:
    """5 cm, 3 apples: words that can be nothing else than a unit or a noun."""
    found = _UNIT_TAIL.fullmatch(text)
    if found is None or not balanced(found[1]):
        return None
    names = _UNIT_WORD.findall(found[3])
    unit = parse_unit(found[3]) if names else None
    if unit is None or names[0] in ("base", "sqrt", "choose"):
        return None
    if len(names[0]) == 1 and _COMPOSED.search(found[1]):  # \\frac{1}{2} h is a product
        return None
    first_is_unit = known(names[0]) and (len(names[0]) > 1 or found[2]) and names[0] not in ("pi", "in")
    if (
        all(len(name) > 3 for name in names)
        or first_is_unit
        or (names[0] in ("in", "per") and found[2])
        or (len(names) > 1 and len(names[0]) > 3)
    ):
        return found[1], unit
    return None


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
