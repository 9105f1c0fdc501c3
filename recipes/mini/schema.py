"""The schemas of `mini`: kinds of word problems, and how the pre-training text of its base policy treats each.

A schema has wordings around a first number x, a question, other numbers that fit x, and a worked solution. Seven causes
say what the pre-training text shows of it:

- known: always worked out correctly;
- rare: worked out correctly, in very few texts;
- confused: worked out by any of some twenty methods at random, of which one is right;
- shortcut: the step that is easily forgotten is left out of most texts;
- tangled: worked out by any of twenty methods at random; which one is right is decided by two words (or two numbers)
  together, so that what one problem teaches is wrong for its neighbours;
- unworked: no working, and an answer that misses the right one at random;
- guess: an answer at random; the right one follows no rule (a hash).

Everything follows from one integer seed; nothing here knows a label.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

Numbers = tuple[int, ...]
Working = tuple[list[str], int]
"""Lines of a worked solution, and the answer."""

NAMES = ("Ann", "Ben", "Sam", "Sue", "Tom", "Eva", "Leo", "Mia", "Max", "Zoe", "Ian", "Joy", "Kim", "Lea", "Ned", "Pam")
THINGS = ("coins", "pens", "eggs", "cakes", "books", "stamps", "apples", "shells", "cards", "beads", "nuts", "marbles")
CAUSES = ("known", "rare", "confused", "shortcut", "tangled", "unworked", "guess")


@dataclass(frozen=True)
class Words:
    """The words in a problem's text; `first` and `second` are those of a tangled schema."""

    name: str
    other: str
    things: str
    first: str = ""
    second: str = ""


@dataclass(frozen=True)
class Schema:
    """One kind of problem."""

    name: str
    cause: str
    least: int
    most: int
    """Range of the first number."""
    wordings: tuple[str, ...]
    """With places {x}, {y}, {z}, {v}, {u} for numbers and {name}, {other}, {things}, {first}, {second} for words."""
    question: str
    draw: Callable[[random.Random, int], Numbers | None]
    """Numbers that fit a first number, or None if the ones drawn do not."""
    work: Callable[..., Working]
    """The solution: work(words, x, *numbers)."""
    weight: float = 1.0
    """How often the pre-training text shows it, relative to others of its cause."""
    right: float = 1.0
    """Share of the texts that show the right solution."""
    wrong: Callable[..., Working] | None = None
    """What the other texts show: wrong(rng, words, x, *numbers)."""
    firsts: tuple[str, ...] = ()
    seconds: tuple[str, ...] = ()

    def statement(self, wording: int, x: str, numbers: Numbers, words: Words) -> str:
        """The text without its question; `x` is a number, or the name of one."""
        places = dict(zip("yzvu", numbers, strict=False))
        return self.wordings[wording].format(x=x, **places, **vars(words))

    def ask(self, words: Words) -> str:
        return self.question.format(**vars(words))

    def words(self, rng: random.Random) -> Words:
        name, other = rng.sample(NAMES, 2)
        pair = (rng.choice(self.firsts), rng.choice(self.seconds)) if self.firsts else ("", "")
        return Words(name, other, rng.choice(THINGS), *pair)

    def shown(self, rng: random.Random, words: Words, x: int, numbers: Numbers) -> Working:
        """What the pre-training text shows of a problem."""
        if self.wrong is None or rng.random() < self.right:
            return self.work(words, x, *numbers)
        return self.wrong(rng, words, x, *numbers)


Draw = Callable[[random.Random, int], Numbers | None]
"""Numbers that fit a first number, or None if there are none."""


def between(*ranges: tuple[int, int]) -> Callable[[random.Random, int], Numbers]:
    return lambda rng, x: tuple(rng.randint(low, high) for low, high in ranges)


def where(fits: Callable[..., bool], *ranges: tuple[int, int]) -> Callable[[random.Random, int], Numbers | None]:
    """Numbers of these ranges for which fits(x, *numbers)."""

    def draw(rng: random.Random, x: int) -> Numbers | None:
        for _ in range(20):
            numbers = tuple(rng.randint(low, high) for low, high in ranges)
            if fits(x, *numbers):
                return numbers
        return None

    return draw


def divisor(low: int, high: int) -> Callable[[random.Random, int], Numbers | None]:
    return where(lambda x, y: x % y == 0, (low, high))


def no_numbers(rng: random.Random, x: int) -> Numbers:
    return ()


def halves(rng: random.Random, x: int) -> Numbers | None:
    return () if x % 2 == 0 else None
