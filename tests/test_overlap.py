"""How alike problems are by their words, and what repeats one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from paperlike import HEAD, TAIL

from unlearnbench.curation.text_overlap import Repeats, Texts, standing, tokens
from unlearnbench.splits.source_dataset import stripped


def test_templates_are_taken_off() -> None:
    for braces in ("{}", "{{}}"):
        assert stripped(HEAD + "What is $x$?" + TAIL.replace("{{}}", braces)) == "What is $x$?"
    turns = "<|im_start|>user\nWhat is 1?<|im_end|>\n<|im_start|>assistant\n1<|im_end|>\n"  # an example first
    assert stripped(turns + "<|im_start|>user\nWhat is $x$?<|im_end|>\n<|im_start|>assistant\n") == "What is $x$?"
    assert stripped("What is $\\boxed{?}$?") == "What is $\\boxed{?}$?"


def test_tokens() -> None:
    assert tokens("Let $x=1,000.5$, \\sqrt{2} and 12,3") == ["let", "x", "1000.5", "sqrt", "2", "and", "12", "3"]


def test_likeness_is_the_cosine_of_weighted_sets() -> None:
    texts = ["red fox 12", "red hen 7", "blue hen 7 7"]
    pool = Texts(texts)
    often = {"red": 2, "fox": 1, "12": 1, "hen": 2, "7": 2, "blue": 1}
    weight = {word: math.log(4 / (1 + count)) + 1e-3 for word, count in often.items()} | {"cat": math.log(4) + 1e-3}

    def cosine(one: str, other: str) -> float:
        a, b = set(one.split()), set(other.split())
        length = math.sqrt(sum(weight[w] ** 2 for w in a)) * math.sqrt(sum(weight[w] ** 2 for w in b))
        return sum(weight[w] ** 2 for w in a & b) / length

    asked = ["red hen 12", "blue cat 7"]
    expected = np.mean([[cosine(text, other) for other in texts] for text in asked], axis=0)
    assert pool.likeness(asked) == pytest.approx(expected, abs=1e-6)
    assert standing(pool, [0, 1], [["fox 12"], ["red hen 12"]]) == pytest.approx([1.0, 0.5])


def test_what_repeats_a_text() -> None:
    text = "Find the sum of the proper divisors of $432$ that are even, and explain in one line how you found it."
    repeats = Repeats([text, "What is 1 plus 2?"])
    assert repeats.holds(text.upper().replace(" ", "  "))
    assert repeats.holds(text.replace("explain", "say"))
    assert not repeats.holds(text.replace("432", "540"))  # changed numbers make a similar problem, not a leak
    assert not repeats.holds("Find the prime factorization of $432$.")
    assert not repeats.holds("")
