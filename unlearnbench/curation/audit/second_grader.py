"""A second opinion on answers, independent of the verifier: other code, another grammar, sympy alone.

It exists to find the verifier's mistakes (PROTOCOL 4), so nothing here is shared with the verifier's modules, patterns
that look alike included: the box is found by counting braces, plain numbers are compared as fractions, and the rest is
read by sympy's own LaTeX grammar (its lark backend, which builds expressions and never runs text) in a process that is
killed at its time or memory limit. What it cannot read is unknown, which agrees with everything.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from fractions import Fraction
from itertools import permutations
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from unlearnbench.io.child import command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST = 300
"""Characters of an answer that sympy's grammar is asked to read; its parser's time grows with their cube."""
TIME_LIMIT = 3.0
"""Seconds for one pair of answers."""
MEMORY = 1 << 30
_REMEMBERED = 1 << 17
_POINTS = ("17/13", "29/11", "5/19")
"""Where expressions with variables are compared: no special point of anything in the problems."""

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_SPACES = re.compile(r"\\(?:[,;:!> ]|quad\b|qquad\b)|~|\s")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,|\\!|\\ )(?=\d{3}(?!\d))")
_DECORATION = re.compile(r"\\(?:left|right|displaystyle|big|Big|bigg|Bigg)(?![a-z])|\\?\$|\\[()\[\]]")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_DECIMAL = re.compile(r"([+-]?)(\d{0,40})(?:\.(\d{0,40}))?")
_FRACTION = re.compile(
    r"([+-]?)(?:\\[dt]?frac\{(-?\d{1,40})\}\{(-?\d{1,40})\}|\\[dt]?frac(\d)(\d)|(\d{1,40})/(\d{1,40}))"
)
_MIXED = re.compile(r"([+-]?)(\d{1,40})(\\[dt]?frac.*)")
_WORDS = re.compile(r"[A-Za-z]{2,}(?: ?[A-Za-z]+)*")


def boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} (or \fbox) whose braces close; None if there is none. Linear in time."""
    opened: list[int] = []
    last, content = -1, None
    for token in _BRACES.finditer(text):
        mark = token.group()
        if mark == "}":
            start = opened.pop() if opened else -1
            if start > last:
                last, content = start, text[start : token.start()]
        elif mark == "{":
            opened.append(-1)
        elif mark.endswith("{") and len(mark) > 2:
            opened.append(token.end())
    return content


class SecondGrader:
    """Opinions on pairs of gold and completion, each different pair of gold and answer graded once.

    One process is started when first needed and again after each that was killed; leaving the `with` block, garbage
    collection or the end of this process ends it. For one thread at a time.
    """

    def __init__(self, *, time_limit: float = TIME_LIMIT) -> None:
        self.time_limit = time_limit
        self._known: dict[tuple[str, str], bool | None] = {}
        self._reader: _Reader | None = None

    def grade(self, gold: str, completion: str) -> bool | None:
        """Whether the completion's last box holds the gold answer; None where that is unknown."""
        answer = boxed(completion)
        if answer is None or not answer.strip():
            return False
        key = (gold, answer)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            inner = boxed(gold)
            self._known[key] = self._compare(gold if inner is None else inner, answer)
        return self._known[key]

    def close(self) -> None:
        """End the process. A later call starts a new one."""
        if self._reader is not None:
            self._reader.end()
            self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _compare(self, gold: str, answer: str) -> bool | None:
        if max(len(gold), len(answer)) > 4 * LONGEST:
            return True if gold == answer else None
        first, second = _plain(gold), _plain(answer)
        if _SPACES.sub("", first) == _SPACES.sub("", second):
            return True
        one, other = _number(first), _number(second)
        if one is not None and other is not None:
            return one == other or _rounds(first, other) or _rounds(second, one)
        words = [bool(_WORDS.fullmatch(side)) for side in (first, second)]
        if all(words) and sorted(first) != sorted(second):  # "ab" and "ba" may be products
            return first.casefold() == second.casefold()
        if not (_readable(first) and _readable(second)):
            return None
        if self._reader is None:
            self._reader = _Reader(self.time_limit)
        try:
            return self._reader.equal(_for_grammar(first), _for_grammar(second))
        except (OSError, EOFError, ValueError):  # it was killed in the middle, and nobody knows what it would say
            self.close()
            return None


# --- plain text and plain numbers -----------------------------------------------------------------------------


def _plain(answer: str) -> str:
    """Without what changes no meaning: dollars, sizes, fonts, degree signs, commas of thousands, a full stop."""
    text = _DECORATION.sub("", answer)
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree(?![a-z])|°", "", text)
    whole = _WRAPPER.fullmatch(text.strip())
    text = whole.group(1) if whole else text
    text = _THOUSANDS.sub("", text.strip().removesuffix(".").strip())
    return re.sub(r"\s+", " ", text)


def _number(text: str) -> Fraction | None:
    """The rational that a plain decimal, fraction or mixed number is."""
    text = _SPACES.sub("", text).replace("\u2212", "-")
    if (match := _DECIMAL.fullmatch(text)) and (match[2] or match[3]):
        places = match[3] or ""
        value = Fraction(int((match[2] or "") + places or "0"), 10 ** len(places))
        return -value if match[1] == "-" else value
    if match := _FRACTION.fullmatch(text):
        over, under = next((a, b) for a, b in zip(match.groups()[1::2], match.groups()[2::2], strict=True) if b)
        if int(under):
            value = Fraction(int(over), int(under))
            return -value if match[1] == "-" else value
    if match := _MIXED.fullmatch(text):
        part = _number(match[3])
        if part is not None and 0 < part < 1:
            return (int(match[2]) + part) * (-1 if match[1] == "-" else 1)
    return None


def _rounds(text: str, value: Fraction) -> bool:
    """Whether text is a decimal of six significant digits or more that `value` rounds to at its precision."""
    match = _DECIMAL.fullmatch(_SPACES.sub("", text))
    if match is None or not match[3] or len((match[2] + match[3]).lstrip("0")) < 6:
        return False
    stated = _number(text)
    return stated is not None and abs(stated - value) * 2 * 10 ** len(match[3]) <= 1


def _readable(text: str) -> bool:
    """Whether the grammar would read this as it is meant; it takes `5 cm` for a product, and `3 4` for 12."""
    bare = re.sub(r"\\(?:begin|end)\{[a-z]+\}|\\[A-Za-z]+", "*", text)
    return (
        len(text) <= LONGEST
        and text.isascii()
        and not _MIXED.fullmatch(_SPACES.sub("", text))
        and "%" not in text
        and not re.search(r"[A-Za-z]{2}|\d\s+\d|\d{60}|_|\d\s*\^\s*\{?\s*\d{4}", bare)
        and not _WRAPPER.search(text)
        and not re.search(r"\\(?:psi|pm|mp|cup|cap)(?![a-z])", text)
    )


def _for_grammar(text: str) -> str:
    """Words that sympy's grammar lacks, put into words that it has: pi, decimals as exact fractions, spaces."""
    text = re.sub(r"\\[,;:!> ]|~", " ", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"\\pi(?![a-z])", r"\\psi ", text)  # `_readable` has made sure that psi is free
    return re.sub(r"(\d+)\.(\d+)", lambda m: rf"{{\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}}}", text).strip()


# --- the guarded process --------------------------------------------------------------------------------------


class _Reader:
    """A process that runs `serve`: one question a line, one answer a line."""

    def __init__(self, time_limit: float) -> None:
        self._process = subprocess.Popen(
            command("unlearnbench.curation.audit.second_grader:serve", time_limit, isolated=False),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        )
        self.end = weakref.finalize(self, _end, self._process)
        self._line()  # its libraries are loaded: from here on, time is the text's

    def equal(self, first: str, second: str) -> bool | None:
        """What the process finds. Raises OSError or EOFError if it was killed over this text."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([first, second]).encode() + b"\n")
        self._process.stdin.flush()
        found = self._line()
        return found if isinstance(found, bool) else None

    def _line(self) -> object:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError
        return json.loads(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # a question that it never read
                pipe.close()


def serve(time_limit: float) -> None:
    """Answer questions from standard input until it closes. Runs in the guarded process."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    from sympy.parsing.latex import parse_latex

    parse_latex("1", backend="lark")  # loads the grammar
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process wherever it is, in C code too
    answers.write("null\n")
    answers.flush()
    for line in sys.stdin:
        first, second = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, time_limit)
        try:
            found = _same(first, second)
        except Exception:  # any text may raise anything in sympy, and then nothing is known
            found = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(found) + "\n")
        answers.flush()


# --- in that process: lists, then expressions ------------------------------------------------------------------

_PAIRS = {"(": ")", "[": "]", "\\{": "\\}"}


def _same(first: str, second: str) -> bool | None:
    """Whether two answers are equal: element by element if they are lists, else as expressions."""
    one, other = _listed(first), _listed(second)
    if one is None and other is None:
        return _equal(_read(first), _read(second))
    if one is None or other is None:
        return None  # a list against a single value: what that means is the verifier's to say
    if one[0] != other[0]:
        return None
    if len(one[1]) != len(other[1]):
        return False
    if one[0] in ("(", "["):
        return _all(_same(a, b) for a, b in zip(one[1], other[1], strict=True))
    if len(one[1]) > 4:
        return None
    found = [_all(_same(a, b) for a, b in zip(one[1], order, strict=True)) for order in permutations(other[1])]
    if True in found:
        return True
    return None if None in found else False


def _listed(text: str) -> tuple[str, list[str]] | None:
    """The opening bracket and the elements of a list; None for a single value."""
    bracket = next((b for b, end in _PAIRS.items() if text.startswith(b) and text.endswith(end)), "")
    inner = text[len(bracket) : len(text) - len(bracket)]
    parts, depth, start = [], 0, 0
    for place, mark in enumerate(inner):
        depth += (mark in "([{") - (mark in ")]}")
        if depth < 0:
            return None  # "(a)(b)": the first bracket does not close at the end
        if mark == "," and depth == 0:
            parts.append(inner[start:place].strip())
            start = place + 1
    parts.append(inner[start:].strip())
    return (bracket, parts) if len(parts) > 1 and all(parts) else None


def _all(found: Iterator[bool | None]) -> bool | None:
    known: list[bool | None] = list(found)
    if False in known:
        return False
    return None if None in known else True


def _read(text: str) -> Any:
    """The sympy expression that sympy's grammar makes of a text. Raises what lark and sympy raise."""
    import sympy
    from sympy.parsing.latex import parse_latex

    try:
        read = parse_latex(text, backend="lark")
    except Exception:  # it misses a product after a closing brace, as in x^{2} y
        read = parse_latex(re.sub(r"(?<=\})\s*(?=[A-Za-z(]|\\(?:sqrt|frac|psi))", r" \\cdot ", text), backend="lark")
    if not isinstance(read, sympy.Basic | sympy.MatrixBase):
        return None  # more than one reading
    constants = {sympy.Symbol("psi"): sympy.pi, sympy.Symbol("e"): sympy.E, sympy.Symbol("i"): sympy.I}
    return read.subs(constants).doit()


def _equal(first: Any, second: Any) -> bool | None:
    import sympy

    if first is None or second is None:
        return None
    if isinstance(first, sympy.MatrixBase) and isinstance(second, sympy.MatrixBase):
        if first.shape != second.shape:
            return False
        return _all(_equal(a, b) for a, b in zip(first, second, strict=True))
    named: Callable[[Any], bool] = lambda side: isinstance(side, sympy.Eq) and side.lhs.is_Symbol  # noqa: E731
    if named(first) and named(second) and first.lhs != second.lhs:
        return False
    first, second = (side.rhs if named(side) else side for side in (first, second))
    if not (isinstance(first, sympy.Expr) and isinstance(second, sympy.Expr)):
        return True if first == second else None
    if first == second:
        return True
    if not (first.is_finite is not False and second.is_finite is not False):
        return False if first.is_Number and second.is_Number else None
    return _vanishes(first - second)


def _vanishes(difference: Any) -> bool | None:
    """Whether an expression is 0: at several points to 40 digits, and then by `simplify`."""
    import sympy

    names = sorted(difference.free_symbols, key=str)
    values = []
    for shift in range(len(_POINTS)):
        at = {name: sympy.Rational(_POINTS[(place + shift) % 3]) + place for place, name in enumerate(names)}
        value = sympy.Abs(difference.subs(at)).evalf(40)
        if not value.is_Number or value in (sympy.nan, sympy.zoo, sympy.oo):
            return None
        values.append(value)
    if any(value > sympy.Float("1e-12") for value in values):
        return False
    if any(value > sympy.Float("1e-30") for value in values):
        return None
    return True if sympy.simplify(difference) == 0 else None
