"""Whether math-verify and sympy find two answers equal: the last resort, for what our own grammar cannot read.

It may run forever or exhaust memory, inside C code too, so it runs only in a guarded process (worker.py).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from unlearnbench.verifier.fast_path import PLACES_THAT_ROUND

_DECIMAL = re.compile(r"[-+]?[0-9]{0,200}\.[0-9]{1,200}")
_SLACK = Fraction(1, 10**40)
"""Relative error that 50 digits of a value may have."""


class UnparsableError(ValueError):
    """One of the two texts is no mathematics that the parser knows."""


def symbolic_equal(gold: str, answer: str, *, loose: bool = False) -> bool:
    """Whether math-verify finds the two equal in either order. Call it only in a guarded process.

    With `loose` (the rule `paper`), an answer may be any text in which math-verify finds some mathematics. Raises
    UnparsableError if either text is no mathematics or the two cannot be compared in either order; MemoryError or
    RecursionError if the machine's limits are exceeded.
    """
    from math_verify import verify

    gold_expression, expression = _parse(gold, loose=False), _parse(answer, loose=loose)
    for text, other in ((gold, expression), (answer, gold_expression)):
        if _DECIMAL.fullmatch(text.strip()) and (value := _value(other)) is not None:
            return _is_close(text, value)
    failures: list[Exception] = []
    for a, b in ((gold_expression, expression), (expression, gold_expression)):
        try:
            if verify(a, b, timeout_seconds=None, raise_on_error=True):
                return True
        except (MemoryError, RecursionError):
            raise
        except Exception as failure:  # sympy raises all kinds of errors where two things cannot be compared
            failures.append(failure)
    if len(failures) == 2:
        raise UnparsableError(answer) from failures[0]
    return False


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
    except Exception as error:  # the parser raises all kinds of errors on text that it cannot read
        raise UnparsableError(text) from error
    if not parsed or parsed[0] in (nan, zoo):
        raise UnparsableError(text)
    return parsed[0]


def _value(expression: Any) -> Fraction | None:
    """The value of a real expression to 50 digits; None if it is not a real number, or a percentage."""
    from sympy import Expr, Float, Rational, UnevaluatedExpr

    if not isinstance(expression, Expr) or not expression.is_number or expression.has(UnevaluatedExpr):
        return None
    as_written = {decimal: Rational(str(decimal)) for decimal in expression.atoms(Float)}  # 0.15 is 3/20 exactly
    number = expression.xreplace(as_written).doit().evalf(50)
    if not number.is_Float and not number.is_Rational:
        return None
    exact = Rational(number)
    return Fraction(int(exact.p), int(exact.q))


def _is_close(decimal: str, value: Fraction) -> bool:
    """Whether a decimal equals the value or, if it has enough digits, is what the value rounds to."""
    difference = abs(Fraction(decimal) - value)
    digits = decimal.strip().lstrip("+-")
    half_step = Fraction(1, 2 * 10 ** len(digits.partition(".")[2]))
    rounds = len(digits.replace(".", "").lstrip("0")) >= PLACES_THAT_ROUND
    return difference <= abs(value) * _SLACK or (rounds and difference <= half_step)
