"""Units of measure: their names, what they measure, and their exact size.

>>> parse_unit("km / h").size
Fraction(5, 18)
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


class Unit(NamedTuple):
    """What is measured, as sorted powers of base units, and the size of one unit."""

    measures: tuple[tuple[str, int], ...]
    size: Fraction
    noun: str | None = None
    """A word that is not a known unit: apples. Units with different nouns are different."""
    scale: int = 1
    """The factor for the number before it: 1,000,000 for `million dollars`."""


PERCENT = Unit((("percent", 1),), Fraction(1, 100))
DEGREE = Unit((("degree", 1),), Fraction(1))

_TABLE = {
    "length": "m metre meter=1; mm millimeter millimetre=1/1000; cm centimeter centimetre=1/100; dm decimeter=1/10; "
    "km kilometer kilometre=1000; in inch inches=127/5000; "
    "ft foot feet=381/1250; yd yard=1143/1250; mi mile=201168/125",
    "mass": "g gram=1; mg milligram=1/1000; kg kilogram kilo=1000; lb lbs pound=45359237/100000; "
    "oz ounce=45359237/1600000; ton=907184740/1000; tonne=1000000",
    "time": "s sec second=1; ms millisecond=1/1000; min minute=60; h hr hour=3600; day=86400; week=604800",
    "month": "month=1; year yr=12",
    "dollar": "dollar usd buck=1; cent=1/100; dime=1/10; nickel=1/20",
    "euro": "euro eur=1",
    "sterling": "gbp=1; pence penny=1/100",
    "yen": "yen jpy=1",
    "rupee": "rupee inr rs=1; paisa=1/100",
    "yuan": "yuan rmb cny=1; jiao=1/10",
    "degree": "degree deg=1",
    "radian": "radian rad=1",
    "percent": "percent pct=1/100",
    "volume": "l liter litre=1; ml milliliter millilitre=1/1000; cl=1/100; gallon gal=473176473/125000000; "
    "quart qt=473176473/500000000; pint pt=473176473/1000000000; cup=473176473/2000000000",
    "force": "n newton=1",
    "energy": "j joule=1; kj kilojoule=1000; cal calorie=523/125; kcal=4184; "
    "ev electronvolt=1602176634/10000000000000000000000000000; erg=1/10000000",
    "pressure": "pa pascal=1; kpa kilopascal=1000; atm=101325",
    "power": "w watt=1; kw kilowatt=1000",
    "voltage": "v volt=1",
    "current": "ampere amp=1",
    "frequency": "hz hertz=1",
    "celsius": "celsius=1",
    "fahrenheit": "fahrenheit=1",
    "kelvin": "kelvin=1",
}
_KNOWN: dict[str, tuple[str, Fraction]] = {
    name: (measure, Fraction(size))
    for measure, row in _TABLE.items()
    for names, size in (entry.split("=") for entry in row.split("; "))
    for name in names.split()
}
SINGLE = frozenset("mgshLlNJWV")
_NOTHING = frozenset({"unit", "of", "the", "a", "an", "in", "total", "about", "each"})
_NO_NOUN = frozenset(
    {"not", "is", "incorrect", "wrong", "plus", "minus", "time", "squared", "cubed", "factorial", "half", "halve"}
    | {"third", "quarter", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "hundredth", "thousandth"}
    | {"midnight", "noon", "pi", "below", "above", "at", "least", "most", "less", "more", "or", "and", "than", "no"}
    | {"zero", "mod", "modulo", "over", "choose", "never", "except", "only", "if", "false", "true", "negative", "base"}
    | {"to", "by", "point", "doubled", "tripled", "halved", "twice", "thrice", "unless", "without", "nor", "neither"}
    | {"impossible", "invalid", "rejected", "excluded", "eliminated", "too", "mil"}
)
"""Words that change what the number before them states."""
_DENOMINATOR = re.compile(
    r"(?:eleven|twelf|(?:thir|four|fif|six|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)tie|[mb]illion)ths?"
)
"""Seventeen twelfths are not seventeen. Smaller denominators are among the words above."""
_MOST_NOUNS = 3
_CASED = frozenset(
    {
        "kW",
        "Hz",
        "kJ",
        "eV",
        "kPa",
        "mL",
        "W",
        "N",
        "J",
        "V",
        "L",
        "CM",
        "KM",
        "Kg",
        "KG",
        "USD",
        "EUR",
        "GBP",
        "JPY",
        "INR",
        "CNY",
        "RMB",
        "Rs",
    }
)
_NUMBER_WORDS = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "lakh": 10**5,
    "crore": 10**7,
    "myriad": 10**4,
    "hundredmillion": 10**8,
}
_TOKEN = re.compile(r"\s*(?:([A-Za-z]+)\.?|\^ ?\{? ?(-?[0-9])\}?|(/|\bper\b)|(\*|\\cdot|\\times|-)|(.))")
_PER_CENT = re.compile(r"\bper ?cent\b")
_POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_AFTER = {"squared": 2, "cubed": 3}


_SHORT = {"mph": "miles per hour", "kph": "km per hour", "kmh": "km per hour", "fps": "feet per second"}


def known(word: str) -> bool:
    """Whether a word is a unit, a number word or a word about units."""
    return _named(word) is not None or word in _NUMBER_WORDS or word in _POWER_WORDS or word in _SHORT


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    """The unit that `text` names; None if it is neither a unit nor a noun. Words such as `units` measure nothing."""
    powers: dict[str, int] = {}
    size, scale = Fraction(1), 1
    nouns: list[str] = []
    sign, pending = 1, 1
    last: tuple[str, Fraction, int] | None = None
    text = _PER_CENT.sub("percent", text.strip())
    for match in _TOKEN.finditer(_SHORT.get(text, text)):
        word, exponent, per, _, other = match.groups()
        if other is not None and not other.isspace():
            return None
        if exponent is not None:
            if last is None:  # units^2
                if nouns or not match.start():
                    return None
                continue
            measure, one, power = last
            more = int(exponent) * (1 if power > 0 else -1) - power
            powers[measure] = powers.get(measure, 0) + more
            size *= one**more
            last = None
        elif per is not None or word == "per":
            sign = -1
        elif word is not None and word.lower() in _POWER_WORDS:
            pending = _POWER_WORDS[word.lower()]
        elif word is not None and word.lower() in _POWERS_AFTER and last is not None:
            measure, one, power = last
            more = power * (_POWERS_AFTER[word.lower()] - 1)
            powers[measure] = powers.get(measure, 0) + more
            size *= one**more
        elif word is not None and word.lower() in _NUMBER_WORDS:
            scale *= _NUMBER_WORDS[word.lower()]
        elif word is not None:
            found = _named(word)
            if found is None:
                single = _singular(word.lower())
                if single in _NO_NOUN or word.lower() in _NO_NOUN or _DENOMINATOR.fullmatch(single):
                    return None
                if len(word) < 3 and single not in _NOTHING:
                    return None
                if single not in _NOTHING:
                    nouns.append(single)
                if len(nouns) > _MOST_NOUNS:
                    return None
                pending, last = 1, None
                continue
            measure, one = found
            power = sign * pending
            powers[measure] = powers.get(measure, 0) + power
            size *= one**power
            last, pending = (measure, one, power), 1
    if "celsius" in powers or "fahrenheit" in powers:
        powers.pop("degree", None)
    litres = powers.pop("volume", 0)
    if litres:
        powers["length"] = powers.get("length", 0) + 3 * litres
        size *= Fraction(1, 1000) ** litres
    measures = tuple(sorted((measure, power) for measure, power in powers.items() if power))
    return Unit(measures, size, " ".join(sorted(nouns)) or None, scale)


def _named(word: str) -> tuple[str, Fraction] | None:
    """A unit by its name. In short names, capitals matter: mW is not MW."""
    if len(word) <= 3 and not (word.islower() or word.istitle() or word in _CASED or word in SINGLE):
        return None
    for name in (word.lower(), _singular(word.lower())):
        if name in _KNOWN and (len(name) > 1 or word in SINGLE):
            return _KNOWN[name]
    return None


def _singular(word: str) -> str:
    if word in ("people", "persons"):
        return "person"
    if word in ("men", "women"):
        return word[:-2] + "an"
    if word == "children":
        return "child"
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word
