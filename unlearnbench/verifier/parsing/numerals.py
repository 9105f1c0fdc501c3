"""Whole numbers written in another base than ten."""

from __future__ import annotations

import re

from unlearnbench.verifier.math.nodes import UnreadableError

_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASES |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_AROUND_NAME = re.compile(r"\\(?:text|mathrm|textrm)|[{}() ]|base")


def in_base(digits: str, base: str) -> int:
    """A whole number written in a base from 2 to 36, which is named by digits or by a word. Raises UnreadableError."""
    name = _AROUND_NAME.sub("", base)
    value = _BASES.get(name) or (int(name) if name.isascii() and name.isdecimal() and len(name) < 3 else 0)
    try:
        return int(digits, value) if 2 <= value <= 36 else int("")
    except ValueError as error:
        raise UnreadableError(f"{digits} is not a number in base {name}") from error
