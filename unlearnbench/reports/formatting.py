"""Numbers and foreign text as the pages and tables show them.

Narrow no-break spaces (U+202F) set thousands and percent signs apart, so that no number breaks over lines.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence


def plain(text: str) -> str:
    """Text with control, formatting and surrogate characters spelled out: none can hide or reorder others."""
    hidden = ("Cc", "Cf", "Cs", "Co")
    return "".join(f"\\u{{{ord(c):x}}}" if unicodedata.category(c) in hidden and c not in "\n\t" else c for c in text)


def pct(value: float) -> str:
    """A fraction in percent; a small one keeps a digit that is not 0."""
    return f"{_number(100 * value, 2 if 0 < abs(value) < 0.001 else 1)}\u202f%"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{_number(100 * value, 1, '+')} points"


def signed(value: float) -> str:
    """A difference of fractions in percentage points, with its sign and without their name."""
    return _number(100 * value, 1, "+")


def span(interval: Sequence[float]) -> str:
    """An interval of fractions, in percent."""
    return f"{_number(100 * interval[0], 1)} to {_number(100 * interval[1], 1)}\u202f%"


def point_span(interval: Sequence[float]) -> str:
    """An interval of differences, in percentage points with their signs."""
    return f"{_number(100 * interval[0], 1, '+')} to {_number(100 * interval[1], 1, '+')} points"


def count(value: int) -> str:
    """A whole number with its thousands set apart."""
    return f"{value:,}".replace(",", "\u202f")


def number(value: float) -> str:
    """A mean number of items: whole where it is, else with one digit."""
    whole = round(value)
    return count(whole) if abs(value - whole) < 0.05 else _number(value, 1)


def p_value(value: float) -> str:
    """A p-value with two digits that say something."""
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def cosine(value: float) -> str:
    """A cosine with its sign."""
    return _number(value, 3, "+")


def power(value: float) -> str:
    """A large number as a power of ten."""
    exponent = math.floor(math.log10(value)) if value >= 1 else 0
    if exponent < 7:
        return count(round(value))
    raised = str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{value / 10**exponent:.2f}\u202f\N{MULTIPLICATION SIGN}\u202f10{raised}"


def duration(seconds: float) -> str:
    """Seconds in units that can be read."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 2:
        return f"{seconds:.1f} s"
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def plural(number: int, noun: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def _number(value: float, digits: int, sign: str = "-") -> str:
    return f"{value:{sign}z.{digits}f}".replace("-", "\N{MINUS SIGN}")
