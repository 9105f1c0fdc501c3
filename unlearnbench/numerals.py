"""Numerals: grouped thousands, decimals that repeat or go on, powers of ten, and which decimals are rounded."""

from __future__ import annotations

import re
from fractions import Fraction

from unlearnbench.expressions import UnreadableError

PLACES_THAT_ROUND = 6
"""A decimal with at least so many significant digits stands for every value that rounds to it."""

_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_SPACED = re.compile(r"[0-9]{1,3}(?: [0-9]{3})+(?:\.[0-9]+)?")
_SCIENTIFIC = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))[eE]([-+]?[0-9]+)")
_DECIMAL = re.compile(r"[-+]?([0-9]+)?\.([0-9]+)(?:\\times ?10\^\{?([-+]?[0-9]{1,4})\}?)?")
_RECURRING = re.compile(r"([0-9]*\.[0-9]*)(?:\(([0-9]+)\)|\\dot ?\{?([0-9])\}?(?:([0-9]*)\\dot ?\{?([0-9])\}?)?)")
_NO_WHOLE = re.compile(r"(?<![0-9])\.(?=\\)")
_ENDLESS = re.compile(r"([0-9]*\.[0-9]+)(?:\\ldots|\.\.\.)")


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
