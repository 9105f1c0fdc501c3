"""Comparison of answers in the caller's process: by equal text, plain numbers or plain words; and what is too large.

Safe on any text, linear, and without any library. What this leaves open goes to a worker process (worker.py), which
compares structure and value (equivalence.py) and asks sympy last (math/sympy_fallback.py).
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from unlearnbench.verifier.parsing.normalize import NUMBERS, folded, respelled

_MAX_DIGITS = 400
_MAX_DEPTH = 100
PLACES_THAT_ROUND = 6
"""A decimal with at least this many significant digits stands for every value that rounds to it."""

_EXCESS = re.compile(rf"[0-9]{{{_MAX_DIGITS + 1}}}|\^\s?\{{?\s?[+-]?\s?[0-9]{{7}}|[0-9.][eE][+-]?[0-9]{{4}}")
_SPACE = re.compile(r"(?<![0-9A-Za-z,]) | (?![0-9A-Za-z])|(?<=,) (?![0-9]{3}(?![0-9]))")
_UPRIGHT = re.compile(r"\\(?:text|mathrm|textbf|textrm|mbox)\s?\{([^{}\\]*)\}")
_WORDS = re.compile(r"(?=.*[A-Za-z]{4})[A-Za-z][A-Za-z' ,-]*")
_BLANKS = re.compile(r"\s{2,}")
_ONE_SIGN = re.compile(r"(?<=[\^_])\{([A-Za-z0-9])\}")
_OPEN = re.compile(r",|\b(?:and|or)\b|infinit|\bno\b|exist|dne|empty|all|real", re.IGNORECASE)
"""In words that may mean the same as other words: a list in another order, infinitely many, no solution."""
_LETTER = re.compile(r"\(?([A-Za-z])\)?")
_UNSIGNED = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = rf"[+-]?{_UNSIGNED}"
_PLAIN = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<number>{_UNSIGNED})"
    r"(?:(?:[eE]|\\(?:times|cdot) ?10\^)(?P<exp>[+-]?[0-9]{1,3}|\{[+-]?[0-9]{1,3}\}))?"
    rf"|\\frac\{{(?P<a>{_SIGNED})\}}\{{(?P<b>{_SIGNED})\}}|\\frac(?P<c>[0-9])(?P<d>[0-9])|(?P<e>{_UNSIGNED})/(?P<f>{_UNSIGNED}))"
)


class _Reading(NamedTuple):
    """An answer's text in one spelling, and its value if it is a plain number."""

    text: str
    value: Fraction | None = None
    half_step: Fraction | None = None
    """Half a unit of the last place, for a decimal that represents every value that rounds to it."""
    words: bool = False


def quick_equal(gold: str, answer: str) -> bool | None:
    """True or False where equal text, two plain numbers or two plain words decide it, else None. Symmetric."""
    if gold == answer:
        return True
    if _is_integer(gold) and _is_integer(answer):
        return int(gold) == int(answer)
    a, b = _read(gold), _read(answer)
    if a.text == b.text:
        return True
    if a.value is not None and b.value is not None:
        return _rounds(a, b.value) or _rounds(b, a.value)
    if a.words and b.words:
        return folded(a.text) == folded(b.text) or (None if _OPEN.search(a.text) and _OPEN.search(b.text) else False)
    if (a.words and b.value is not None) or (b.words and a.value is not None):
        return None if (a.text if a.words else b.text).lower() in NUMBERS else False
    return None


def too_large(text: str) -> bool:
    """Whether nesting, a run of digits or an exponent exceeds that of any honest answer."""
    if _EXCESS.search(text):
        return True
    depth = 0
    for character in text:
        if character in "([{":
            depth += 1
            if depth > _MAX_DEPTH:
                return True
        elif character in ")]}":
            depth -= 1
    return False


def _is_integer(text: str) -> bool:
    digits = text[1:] if text.startswith("-") else text
    return len(digits) <= 18 and digits.isascii() and digits.isdecimal()


def _read(text: str) -> _Reading:
    return _read_cached(text) if len(text) <= 200 else _read_anew(text)


def _read_anew(text: str) -> _Reading:
    text = _UPRIGHT.sub(r"\1", respelled(text))
    if "{" in text:
        text = _ONE_SIGN.sub(r"\1", text)
    text = _SPACE.sub("", _BLANKS.sub(" ", text)).strip()
    if (letter := _LETTER.fullmatch(text)) is not None:
        return _Reading(letter.group(1))
    if len(text) <= _MAX_DIGITS and (match := _PLAIN.fullmatch(text)) is not None:
        return _number(text, match)
    return _Reading(text, words=_WORDS.fullmatch(text) is not None)


_read_cached = lru_cache(maxsize=1 << 14)(_read_anew)


def _number(text: str, match: re.Match[str]) -> _Reading:
    sign = -1 if match["sign"] == "-" else 1
    if (number := match["number"]) is not None:
        exponent = int((match["exp"] or "0").strip("{}"))
        scale = Fraction(10) ** exponent
        digits = number.replace(",", "")
        places = len(digits.partition(".")[2])
        significant = len(digits.replace(".", "").lstrip("0"))
        half_step = Fraction(1, 2 * 10**places) * scale if "." in digits else None
        return _Reading(
            text,
            sign * _exact(digits) * scale,
            half_step if significant >= PLACES_THAT_ROUND else None,
        )
    above, below = next((match[x], match[y]) for x, y in ("ab", "cd", "ef") if match[x] is not None)
    divisor = _exact(below)
    return _Reading(text, sign * _exact(above) / divisor if divisor else None)


def _exact(number: str) -> Fraction:
    whole, _, part = number.replace(",", "").partition(".")
    return Fraction(int(f"{whole}{part}" or "0"), 10 ** len(part))


def _rounds(reading: _Reading, value: Fraction) -> bool:
    """Whether a value equals the reading's, or rounds to it where the reading is a long enough decimal."""
    assert reading.value is not None
    return abs(reading.value - value) <= (reading.half_step or 0)
