"""Equality: what is decided at once, by structure and value, or by sympy; and that order never matters."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unlearnbench.verifier import Verifier
from unlearnbench.verifier.equivalence import same_answer
from unlearnbench.verifier.fast_path import quick_equal, too_large
from unlearnbench.verifier.math.evaluation import UndecidedError
from unlearnbench.verifier.math.nodes import UnreadableError
from unlearnbench.verifier.math.sympy_fallback import UnparsableError, symbolic_equal

QUICK = [
    ("17", "17", True),
    ("17", "18", False),
    ("17", "+17", True),
    ("17", "017", True),
    ("-17", "17", False),
    ("-17", "\u221217", True),
    ("0.5", "1/2", True),
    ("0.5", r"\frac{1}{2}", True),
    (r"\dfrac{1}{2}", r"\frac12", True),
    (r"-\frac{1}{2}", r"\frac{-1}{2}", True),
    (r"\frac{2}{4}", "1/2", True),
    ("1/2", "1/3", False),
    ("1,234,567", "1234567", True),
    ("1{,}234", "1234", True),
    ("1,234", "1.234", False),
    ("2.50", "2.5", True),
    (".5", "0.5", True),
    ("5.", "5", True),
    ("1e3", "1000", True),
    ("1e-7", "2e-7", False),
    (r"3 \times 10^{5}", "300000", True),
    ("0.33", "1/3", False),
    ("0.333333", "1/3", True),
    ("0.333334", "1/3", False),
    ("0.6666667", r"\frac{2}{3}", True),
    ("123456", "123456.4", False),
    ("12345678901234567890", "12345678901234567891", False),
    ("(1, 2)", "(1,2)", True),
    (r"\text{east}", "East", True),
    ("east", "west", False),
    ("none", "0", False),
    ("(B)", "B", True),
    ("3 4", "34", None),
    ("2 1/2", "21/2", None),
    ("1, 234", "1,234", None),
    ("1/0", "5", None),
    ("x", "y", None),
    ("ab", "ba", None),
    ("1" * 1000, "2", None),
    ("1e999999999", "2", None),
]

SYMBOLIC = [
    (r"\frac{x}{2}", "0.5x", True),
    ("ab", "ba", True),
    ("(x+1)^2", "x^2+2x+1", True),
    (r"\sqrt{8}", r"2\sqrt{2}", True),
    (r"\sqrt{8}", r"3\sqrt{2}", False),
    (r"\sqrt{2}", "1.414", False),
    (r"\sqrt{2}", "1.41421", True),
    (r"\sqrt{2}", "1.41422", False),
    (r"\sqrt{4}", "2.0", True),
    (r"\pi", "3.14", False),
    (r"0.15\text{ m}", "0.15", True),
    (r"\frac{0.6}{\sqrt{16}}", "0.15", True),
    (r"2\frac{1}{2}", "5/2", True),
    ("x=5", "5", True),
    ("x=5", "6", False),
    ("(1,2)", "(2,1)", False),
    (r"\{1,2\}", r"\{2,1\}", True),
    ("[1,2)", "[1,2]", False),
    (r"\frac{\pi}{4}", r"\frac{\pi}{3}", False),
    (r"5\text{ cm}", "5", True),
    ("x<5", "5>x", True),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}", False),
]


@pytest.mark.parametrize(("gold", "answer", "equal"), QUICK)
def test_decided_at_once(gold: str, answer: str, equal: bool | None) -> None:
    assert quick_equal(gold, answer) is equal
    assert quick_equal(answer, gold) is equal


@pytest.mark.parametrize(("gold", "answer", "equal"), SYMBOLIC)
def test_decided_by_structure_and_value(gold: str, answer: str, equal: bool) -> None:
    assert quick_equal(gold, answer) is None
    assert same_answer(gold, answer) is equal
    assert same_answer(answer, gold) is equal


@pytest.mark.parametrize(("gold", "answer", "equal"), QUICK)
def test_structure_agrees_with_what_was_decided_at_once(gold: str, answer: str, equal: bool | None) -> None:
    if equal is not None:
        assert same_answer(gold, answer) is equal


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        (r"\frac{x}{2}", "0.5x", True),
        (r"\int_0^1 x\,dx", r"\frac12", True),
        (r"\int_0^1 x\,dx", r"\frac13", False),
        (r"\sum_{k=1}^{4} k^2", "30", True),
        (r"\int_0^1 x^2\,dx", "0.333333", True),
        (r"\int_0^1 x^2\,dx", "0.333", False),
    ],
)
def test_sympy_decides_what_the_grammar_does_not_read(gold: str, answer: str, equal: bool) -> None:
    assert symbolic_equal(gold, answer) is equal
    assert symbolic_equal(answer, gold) is equal


@pytest.mark.parametrize("text", [r"\frac{", "&&&", r"\frac{1}{0}"])
def test_unparsable(text: str) -> None:
    with pytest.raises((UnreadableError, UndecidedError)):
        same_answer("5", text)
    with pytest.raises(UnparsableError):
        symbolic_equal("5", text)
    with pytest.raises(UnparsableError):
        symbolic_equal(text, "5")


@pytest.mark.parametrize("text", ["1" * 401, "2^{99999999}", "2^99999999", "1e99999", "(" * 101, "{" * 101, "[" * 2000])
def test_too_large(text: str) -> None:
    assert too_large(text)


@pytest.mark.parametrize("text", ["17", "2^{2005}", "x^{2}" * 100, r"\{" * 90, "1" * 400])
def test_not_too_large(text: str) -> None:
    assert not too_large(text)


ANSWERS = st.one_of(
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.fractions(max_denominator=50).map(lambda value: f"\\frac{{{value.numerator}}}{{{value.denominator}}}"),
    st.fractions(max_denominator=50).map(str),
    st.sampled_from([*(pair[0] for pair in QUICK), *(pair[1] for pair in QUICK)]),
    st.text(alphabet="0123456789.,/-+ eE\\{}frac()\u0661\ud800", max_size=12),
)


@given(ANSWERS, ANSWERS)
def test_quick_equality_is_symmetric_and_reflexive(a: str, b: str) -> None:
    assert quick_equal(a, b) is quick_equal(b, a)
    assert quick_equal(a, a) is True


@given(st.fractions(max_denominator=999), st.fractions(max_denominator=999))
def test_fractions_compare_exactly(a: Fraction, b: Fraction) -> None:
    written = f"\\frac{{{3 * b.numerator}}}{{{3 * b.denominator}}}"
    assert quick_equal(str(a), written) is (a == b)


BY_SPACE = r"""
\frac{1}{2} \frac \sqrt \sqrt{ \pi \infty \cup \cap \setminus \pm \mp \text{ \le \ge \ne \in \{ \} \overline{3}
\sum_{k=1}^{3} \binom \log \sin \cos ^\circ \mathbb{R} \mathbb{Z} \mid \angle \vec{a} \begin{pmatrix} \end{pmatrix}
\begin{cases} \end{cases} & \\ \ldots \approx \equiv \pmod{7} \forall |x| f(x)= x= y=2 m+n= P(X=2)= AB:CD k\pi 2k+1
(-1)^k x_1 a_{n-1} a_n k\in\mathbb{Z} C_5^2 1011_2 ... 10:30 p.m. 1,234 e sqrt !! 20:34 ^{\mathrm{th}} \\frac
<sup>2</sup> &lt;
"""
BY_BAR = r"""
 or | and | cm| apples|(B) |_2|May 5|2 hours|30 minutes|USD |Rs. |\text{ for all }|\text{ where }|\text{ is an integer}|
\text{ and }|\text{ or }|\text{ cm}|approximately
"""
SIGNS = (
    "\u00bd\u221a\u03c0\u6216\u4e14\u5398\u7c73\u5143\u2460\u2462\u2264\uff1e\uff08\uff09\uff5b\uff5d\u3001\u3002\u2032\u00b0"
    "\x00\x0c\ud800\u0301"
)
PIECES = [*"0123456789xyabitkmnPRS+-*/^_=<>()[]{},.:;!%$| '", *BY_SPACE.split(), *BY_BAR.strip("\n").split("|"), *SIGNS]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join)


def decided(a: str, b: str) -> bool | str:
    """The answer, or that there is none; any other error than these two is a flaw of the reader."""
    try:
        return same_answer(a, b)
    except (UnreadableError, UndecidedError):
        return "open"


@settings(max_examples=600)
@given(TEXTS, TEXTS)
def test_any_text_is_read_or_refused_and_order_never_matters(a: str, b: str) -> None:
    assert decided(a, b) == decided(b, a)
    assert decided(a, f" {a} ") is not False


@pytest.mark.parametrize(
    "text", ["", " ", "\\\\", r"$$\approx", r"\approx", "$", "{}", r"\text{}", r"\left", r"\quad", "...", "\x00"]
)
def test_markup_without_content_is_read_or_refused(text: str) -> None:
    assert decided("0", text) in (False, "open")
    assert decided(text, "0") == decided("0", text)
    assert decided(text, text) in (True, "open")


@pytest.mark.parametrize(
    "text",
    [r"\frac{\pi R^2" + "pi R^2" * 300 + " H}{2}", "a_bc" * 400 + "!=3", "1 or " * 199 + "2", "5" + "ab " * 900 + "!"],
)
def test_no_pattern_takes_exponential_time(text: str) -> None:
    with Verifier(time_limit=5.0) as verifier:
        verdict = verifier.verify("5", rf"\boxed{{{text}}}")
    assert (verdict.correct, verdict.reason == "timeout") == (False, False)


def test_importing_is_light() -> None:
    heavy = "{'torch', 'sympy', 'math_verify', 'transformers'}"
    code = f"import sys, unlearnbench.verifier, unlearnbench.cli.verify; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
