"""The stated answer: what is found, what is not, and how long the worst texts take."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnbench.verifier.extraction import Stated, offers_alternatives, stated_answer, without_formatting


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"so \boxed{17}", "17"),
        (r"so $\boxed{17}$.", "17"),
        (r"first \boxed{3}. Wait, \boxed{5}", "5"),
        (r"\boxed{3} and an unfinished \boxed{4", "3"),
        (r"\fbox{3} then \boxed{4}", "4"),
        (r"\boxed{4} then \fbox{3}", "3"),
        (r"\boxed {4}", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\{1}", r"\{1"),
        (r"a stray } and a { before \boxed{x^{2}}", "x^{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\\boxed{7}", "7"),
        (r"\begin{pmatrix} 1 \\ \boxed{2} \end{pmatrix}", "2"),
        (r"\boxed{\text{east}.}", "east"),
        (r"\boxed{\textbf{(B)}}", "(B)"),
        (r"\boxed{\mathrm{e}}", "e"),
        (r"\boxed{5\text{ cm}}", r"5\text{ cm}"),
        (r"\boxed{\left( 3, \frac{\pi}{2} \right)}", r"( 3, \frac{\pi}{2} )"),
        (r"\boxed{1\,234\,567}", "1234567"),
        (r"\boxed{1,\!000}", "1,000"),
        (r"\boxed{\$18.90}", r"\$18.90"),
        (r"\boxed{$17$}", "17"),
        (r"\boxed{ 17. }", "17"),
        (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        ("\\boxed{\n17\n}", "17"),
    ],
)
def test_last_complete_box_without_formatting(completion: str, answer: str) -> None:
    assert stated_answer(completion) == Stated(answer)


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "17",
        "the answer is 17",
        r"\boxed{",
        r"\boxed{}",
        r"\boxed{ }",
        r"\boxed{?}",
        r"\boxed{\text{?}}",
        r"\boxed{\ldots}",
        r"\boxed{...}",
        r"\boxed{\_\_}",
        r"\boxed{17",
        "boxed{17}",
        r"\boxed 17",
        r"\boxed{5} \boxed{}",
    ],
)
def test_no_answer(completion: str) -> None:
    assert stated_answer(completion) == Stated(None, "no_answer")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("So the answer is 17.", "17"),
        ("**Final answer: 17**", "17"),
        ("The answer is: $\\frac{1}{2}$. Good.", r"\frac{1}{2}"),
        ("the answer is 4, no\nthe answer is 3.5", "3.5"),
        ("17 + 1 = 18\n#### 18", "18"),
        (r"the answer is 3 but \boxed{4}", "4"),
    ],
)
def test_lenient_takes_a_final_statement(completion: str, answer: str) -> None:
    assert stated_answer(completion, "lenient") == Stated(answer)


def test_lenient_and_paper_where_nothing_is_stated() -> None:
    assert stated_answer("we get 17", "lenient").reason == "no_answer"
    assert stated_answer("we get 17", "paper") == Stated("we get 17")
    assert stated_answer("", "paper").reason == "no_answer"


def test_too_large() -> None:
    assert stated_answer("a" * 1_000_001 + r"\boxed{1}").reason == "too_large"
    assert stated_answer(r"\boxed{" + "1" * 5_000 + "}").reason == "too_large"
    assert stated_answer("a" * 50_000, "paper").reason == "too_large"


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{",
        "{",
        "}",
        r"\text{",
        "\\",
        "$",
        " ",
        r"\boxed{}",
        "#### ",
        "answer is ",
        r"\,",
        "1,",
        "~",
        r"\ldots",
    ],
)
def test_linear_time_on_repeated_text(text: str) -> None:
    completion = text * (900_000 // len(text))
    start = time.perf_counter()
    for rule in ("strict", "lenient", "paper"):
        stated_answer(completion, rule)
    stated_answer(r"\boxed{" + completion[:3_900] + "}")
    assert time.perf_counter() - start < 4


PIECES = [*"\\{}$.,!? 1a\n\ud800\0", "\\boxed{", "\\text{", "\\fbox{", "answer is "]


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_gives_an_answer_or_a_reason(text: str) -> None:
    for rule in ("strict", "lenient", "paper"):
        stated = stated_answer(text, rule)
        assert (stated.answer is None) == (stated.reason is not None)


@given(st.text(alphabet="abc123 +-()", min_size=1).filter(lambda text: text.strip()))
def test_a_boxed_plain_text_is_found(text: str) -> None:
    assert stated_answer(f"so \\boxed{{{text}}} it is").answer == without_formatting(text)


def test_alternatives() -> None:
    assert offers_alternatives("3", r"3 \text{ or } 4")
    assert offers_alternatives("3", "3 or 4")
    assert not offers_alternatives("3,4", "3 or 4")
    assert not offers_alternatives(r"\pm 3", "3 or -3")
    assert not offers_alternatives("3", "for 3")
