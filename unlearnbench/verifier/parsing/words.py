"""Answers that are not mathematics: words, choices of a multiple-choice question, times of day, dates."""

from __future__ import annotations

import re
from fractions import Fraction

from unlearnbench.verifier.math.nodes import (
    Answer,
    Choice,
    Clock,
    Collection,
    Date,
    Infinite,
    Number,
    UnreadableError,
    Value,
    Words,
)
from unlearnbench.verifier.math.units import known
from unlearnbench.verifier.parsing.normalize import NUMBERS, SHORT_WORDS, TEXT_GROUP, folded
from unlearnbench.verifier.parsing.relations import Reader
from unlearnbench.verifier.parsing.tokens import FUNCTIONS

_CHOICE = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf|textrm)\s?\{\s*)?(?:option|choice|answer)?\s*\(([A-Za-z])\s*\)\s*\}?(.*)",
    re.DOTALL | re.I,
)
_CHOICE_DOT = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf)\s?\{\s*)?([A-H])\s*(?:[.:)]\s*\}?|\}\s*[.:)]|\}(?=\s|$))(.*)", re.DOTALL
)
_CHOICE_NAMED = re.compile(r"(?:\\(?:text|textbf|mathrm) ?\{ ?)?(?:option|choice|statement) ([A-H])(?: ?\})?", re.I)
_ANOTHER_CHOICE = re.compile(
    r"\([A-Z]\)|\b[A-H][.:)]|[ {}]*[A-H][ {}]*$|\?|\b(?:not|wrong|incorrect|excluded|eliminated|and|or)\b"
)

_CLOCK = re.compile(
    r"(?:at )?(\d{1,2})(?: ?(?::|\{:\}) ?(\d{2})(?::00)?)?\s*"
    r"(?:\\(?:text|mathrm)\s?\{)?\s*(?:([ap])\.?\s?m\.?|(o'clock)|hours)?\s*\}?",
    re.I,
)
_NOON = {"noon": Clock(12, 0, "p"), "12 noon": Clock(12, 0, "p"), "midnight": Clock(12, 0, "a")}
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_MONTH = rf"(?P<month>{'|'.join(f'{name[:3]}(?:{name[3:]}|t)?' for name in _MONTHS)})\.?"
_DAY = r"(?P<day>[0-9]{1,2})(?: ?(?:st|nd|rd|th))?"
_YEAR = r"(?:,? ?(?P<year>[0-9]{4}))?"
_DATES = [
    re.compile(rf"(?:on )?{_MONTH} {_DAY}{_YEAR}", re.I),
    re.compile(rf"(?:on )?(?:the )?{_DAY}(?: of)? {_MONTH}{_YEAR}", re.I),
    re.compile(r"(?P<year>[0-9]{4}) ?- ?(?P<month>[0-9]{2}) ?- ?(?P<day>[0-9]{2})"),
    re.compile(r"(?:(?P<year>[0-9]{4})年)?(?P<month>[0-9]{1,2})月(?P<day>[0-9]{1,2})[日号]"),
]
_PHRASE = re.compile(r"[A-Za-z]{4}|\b(?:no|on|yes|odd|off|out|and|the|none|all)\b", re.I)
_DATED = re.compile(
    r"[0-9]+ ?- ?[0-9]+(?: ?- ?[0-9]+)?|[0-9]{1,2}/[0-9]{1,2}/[0-9]{2,4}|\\(?:angle|triangle) ?[A-Z]+"
    r"|[A-Za-z]{3,}(?: [A-Za-z]+)* [0-9]{1,4}(?:st|nd|rd|th)?(?:,? [0-9]{4})?"
)
"""Ranges and names that hold numbers: words, not differences or products."""
_JOINT = re.compile(r"\s*(?:,(?: and\b| or\b)?|\band\b|\bor\b)\s*")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_ENDLESS = re.compile(
    r"(?:there are )?(?:infinite|infinitely many|infinity|an? infinite number(?: of)?)(?: solutions?| values?)?"
)
_NONE = re.compile(
    r"(?:there (?:is|are) )?(?:no solutions?|empty set|no such (?:values?|numbers?)(?: exists?)?)|none exists?"
)
_ALL_OF = re.compile(
    r"(?:set of )?(?:all )?(?:the )?"
    r"(?=(?:positive |non ?negative )?(?:integers|(?:natural|rational|complex) numbers)$)"
)
_SAME = {"dne": "does not exist", "no solutions": "no solution", "no real solutions": "no real solution"}


def choice(text: str, read: Reader) -> Answer | None:
    """A letter of a multiple-choice question, with what stands behind it."""
    if named := _CHOICE_NAMED.fullmatch(text):
        return Choice(named[1].upper(), None)
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


def clock(text: str) -> Clock | None:
    """A time of day: 8:34 PM, 20:34, 8 p.m., 3 o'clock, noon."""
    plain = TEXT_GROUP.sub(r"\1", text).strip()
    if plain.lower() in _NOON:
        return _NOON[plain.lower()]
    found = _CLOCK.fullmatch(text)
    if found is None or int(found[1]) > 24 or int(found[2] or 0) > 59 or not (found[2] or found[3] or found[4]):
        return None
    if found[3] and not 0 < int(found[1]) <= 12:
        return None
    return Clock(int(found[1]), int(found[2] or 0), found[3].lower() if found[3] else None)


def date(text: str) -> Date | None:
    """A day: May 5, the 5th of May, 2024-05-05."""
    plain = " ".join(TEXT_GROUP.sub(r" \1 ", text).split()).replace("^{th}", "th")
    for pattern in _DATES:
        if found := pattern.fullmatch(plain):
            name = found["month"].lower()
            month = int(name) if name.isdecimal() else 1 + next(at for at, m in enumerate(_MONTHS) if m[:3] == name[:3])
            if 1 <= month <= 12 and 1 <= int(found["day"]) <= 31:
                return Date(month, int(found["day"]), int(found["year"]) if found["year"] else None)
    return None


def words(text: str) -> Answer | None:
    """Text without mathematics; a list where commas, `and` or `or` join its parts. None where it may be mathematics."""
    first = text.split()[0]
    if re.fullmatch("[A-Z]{2,}", text) or (_DATED.fullmatch(text) and first not in FUNCTIONS and not known(first)):
        return Words(_SAME.get(text.lower(), folded(text)))  # names: ABC is not ACB, and IV is not VI
    inner, grouped = text, False
    for _ in range(4):
        if (found := TEXT_GROUP.fullmatch(inner)) is None:
            break
        inner, grouped = found[1].strip(), True
    plain = TEXT_GROUP.sub(r" \1 ", inner)
    if _HAN.search(plain) and not re.search(r"[0-9=<>\\]", plain):
        return Words("".join(plain.split()))
    if not re.fullmatch(r"[A-Za-z' .,;\-]+", plain) or (not grouped and _JOINT.search(plain)):
        return None
    letters = folded(plain)
    if letters in ("infinity", "pi"):
        return None
    if (grouped and len(letters) > 1) or _PHRASE.search(plain) or letters in SHORT_WORDS:
        return _phrase(letters)
    return None


def _phrase(letters: str) -> Answer:
    letters = _ALL_OF.sub("", _SAME.get(letters.lower(), letters), count=1)
    if letters in NUMBERS:
        return Value(Number(Fraction(NUMBERS[letters])), text=letters)
    if _ENDLESS.fullmatch(letters):
        return Infinite(1)
    if _NONE.fullmatch(letters):
        return Collection("set", ())
    parts = [part for part in _JOINT.split(letters) if part]
    if len(parts) > 1 and not re.match(r"(?:neither|either|both|not)\b", letters):
        return Collection("list", tuple(map(Words, parts)))
    return Words(letters)
