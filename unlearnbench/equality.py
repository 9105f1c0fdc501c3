"""Whether two answers are the same: quickly where text or exact arithmetic decides, else with math-verify.

`quick_equal` is safe on any text and needs no guard. `symbolic_equal` may take for ever or eat all memory, so it
is called only in a process of its own, which `serve` is the whole life of (verifier.py starts and guards it).
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, NamedTuple

Outcome = Literal["match", "mismatch", "unparsable", "too_large"]

EXHAUSTED = 3
"""Exit status of a worker that ran out of memory, for the text's sake."""

_MAX_DIGITS = 400
_MAX_DEPTH = 100
_PLACES_THAT_ROUND = 6
"""A decimal with at least so many significant digits stands for every value that rounds to it."""

_EXCESS = re.compile(rf"[0-9]{{{_MAX_DIGITS + 1}}}|\^\s?\{{?\s?[+-]?\s?[0-9]{{7}}|[0-9.][eE][+-]?[0-9]{{4}}")
_SPACE = re.compile(r"(?<![0-9A-Za-z,]) | (?![0-9A-Za-z])|(?<=,) (?![0-9]{3}(?![0-9]))")
_UPRIGHT = re.compile(r"\\(?:text|mathrm|textbf|mbox)\s?\{([^{}\\]*)\}")
_WORDS = re.compile(r"(?=.*[A-Za-z]{4})[A-Za-z][A-Za-z' ,-]*")
_LETTER = re.compile(r"\(?([A-Za-z])\)?")
_UNSIGNED = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = rf"[+-]?{_UNSIGNED}"
_PLAIN = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<number>{_UNSIGNED})"
    r"(?:(?:[eE]|\\(?:times|cdot) ?10\^)(?P<exp>[+-]?[0-9]{1,3}|\{[+-]?[0-9]{1,3}\}))?"
    rf"|\\frac\{{(?P<a>{_SIGNED})\}}\{{(?P<b>{_SIGNED})\}}|\\frac(?P<c>[0-9])(?P<d>[0-9])|(?P<e>{_UNSIGNED})/(?P<f>{_UNSIGNED}))"
)
_SAME = {
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "\\cfrac": "\\frac",
    "{,}": ",",
    "\u2212": "-",
    "\\leq": "\\le",
    "\\geq": "\\ge",
}


class UnparsableError(ValueError):
    """One of the two texts is no mathematics that the parser knows."""


class _Reading(NamedTuple):
    """An answer's text in one spelling, and what it is if that is plain to see."""

    text: str
    value: Fraction | None = None
    half_step: Fraction | None = None
    """Half a unit of the last place, for a decimal long enough to stand for what rounds to it."""
    is_decimal: bool = False
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
        return _same_number(a, b.value) or _same_number(b, a.value)
    if a.words and b.words:
        return a.text.casefold() == b.text.casefold()
    if (a.words and b.value is not None) or (b.words and a.value is not None):
        return False
    return None


def too_large(text: str) -> bool:
    """Whether nesting, a run of digits or an exponent is beyond what any honest answer has."""
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


def symbolic_equal(gold: str, answer: str, *, loose: bool = False) -> bool:
    """Whether math-verify finds the two equal, whichever is called the gold. Call it only in a guarded process.

    With `loose` (the rule `paper`) an answer may be any text that math-verify finds some mathematics in. Raises
    UnparsableError if either text is no mathematics, MemoryError or RecursionError if it is beyond the machine.
    """
    from math_verify import verify

    gold_expression, expression = _parse(gold, loose=False), _parse(answer, loose=loose)
    for reading, other in ((_read(gold), expression), (_read(answer), gold_expression)):
        if reading.is_decimal and (value := _value(other)) is not None:
            return _same_number(reading, value, slack=abs(value) / 10**40)
    for a, b in ((gold_expression, expression), (expression, gold_expression)):
        try:
            if verify(a, b, timeout_seconds=None, raise_on_error=True):
                return True
        except (MemoryError, RecursionError):
            raise
        except Exception:  # sympy raises all kinds where two things cannot be compared: then they are not equal
            continue
    return False


def serve(memory: int) -> None:
    """Answer requests on standard input (a socket) until it ends. This is the whole life of a worker."""
    import logging
    import signal
    from multiprocessing.connection import Connection

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _limit_memory(memory)
    logging.disable()
    channel = Connection(os.dup(0))
    symbolic_equal("\\frac{x}{2}", "0.5x")  # imports and first-use tables are paid before any clock starts
    channel.send_bytes(b"ready")
    while True:
        try:
            request = json.loads(channel.recv_bytes())
        except (EOFError, OSError):
            return  # the parent is gone
        # The kernel ends this process even inside C code, should the parent die before it can.
        signal.setitimer(signal.ITIMER_REAL, request["limit"] + 1.0)
        start = time.perf_counter()
        try:
            outcome = _outcome(request["gold"], request["answer"], request["loose"])
        except MemoryError:
            os._exit(EXHAUSTED)
        reply = {"outcome": outcome, "seconds": time.perf_counter() - start}
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        try:
            channel.send_bytes(json.dumps(reply).encode())
        except OSError:
            return


def _outcome(gold: str, answer: str, loose: bool) -> Outcome:
    try:
        return "match" if symbolic_equal(gold, answer, loose=loose) else "mismatch"
    except UnparsableError:
        return "unparsable"
    except RecursionError:
        return "too_large"


def _limit_memory(memory: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        if hard == resource.RLIM_INFINITY or limit < hard:
            try:
                resource.setrlimit(kind, (limit, limit))
            except (OSError, ValueError):  # macOS knows RLIMIT_AS but refuses it
                continue


# --- plain text and numbers -----------------------------------------------------------------------------------


def _is_integer(text: str) -> bool:
    digits = text[1:] if text.startswith("-") else text
    return len(digits) <= 18 and digits.isascii() and digits.isdecimal()


def _read(text: str) -> _Reading:
    return _read_cached(text) if len(text) <= 200 else _read_anew(text)


def _read_anew(text: str) -> _Reading:
    text = " ".join(text.split())
    if "\\" in text or "{" in text or "\u2212" in text:
        for spelling, same in _SAME.items():
            text = text.replace(spelling, same)
        text = _UPRIGHT.sub(r"\1", text)
    text = _SPACE.sub("", text).strip()
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
            half_step if significant >= _PLACES_THAT_ROUND else None,
            is_decimal="." in digits or exponent != 0,
        )
    above, below = next((match[x], match[y]) for x, y in ("ab", "cd", "ef") if match[x] is not None)
    divisor = _exact(below)
    return _Reading(text, sign * _exact(above) / divisor if divisor else None)


def _exact(number: str) -> Fraction:
    whole, _, part = number.replace(",", "").partition(".")
    return Fraction(int(f"{whole}{part}" or "0"), 10 ** len(part))


def _same_number(reading: _Reading, value: Fraction, slack: Fraction = Fraction(0)) -> bool:
    if reading.value is None:
        return False
    difference = abs(reading.value - value)
    return difference <= slack or (reading.half_step is not None and difference <= reading.half_step)


# --- expressions ----------------------------------------------------------------------------------------------


def _parse(text: str, *, loose: bool) -> Any:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse
    from sympy import nan, zoo

    configs: list[Any] = [LatexExtractionConfig(boxed_match_priority=0)]
    if loose:
        configs.append(ExprExtractionConfig())
    try:
        parsed = parse(
            f"\\boxed{{{text}}}",
            extraction_config=configs,
            fallback_mode="no_fallback",
            extraction_mode="any_match" if loose else "first_match",
            parsing_timeout=None,
            raise_on_error=True,
        )
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # the parser raises all kinds on text that it does not know
        raise UnparsableError(text) from error
    if not parsed or parsed[0] in (nan, zoo):
        raise UnparsableError(text)
    return parsed[0]


def _value(expression: Any) -> Fraction | None:
    """The real number that an expression is, to 50 digits, or None if it is none, or a percentage."""
    from sympy import Expr, Float, Rational, UnevaluatedExpr

    if not isinstance(expression, Expr) or not expression.is_number or expression.has(UnevaluatedExpr):
        return None
    as_written = {decimal: Rational(str(decimal)) for decimal in expression.atoms(Float)}  # 0.15 is 3/20 exactly
    number = expression.xreplace(as_written).doit().evalf(50)
    if not number.is_Float and not number.is_Rational:
        return None
    exact = Rational(number)
    return Fraction(int(exact.p), int(exact.q))
