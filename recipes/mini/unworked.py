"""Schemas whose answers the texts never work out: those with a way to the answer, and those with none."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from math import gcd, lcm

from recipes.mini.schema import Draw, Schema, Words, Working, between, where

MISS = 9
"""An unworked answer lies at most this far from the right one."""
GUESSES = 18


def _unworked(
    name: str,
    x: tuple[int, int],
    wordings: tuple[str, ...],
    question: str,
    draw: Draw,
    work: Callable[..., Working],
    said: str,
) -> Schema:
    def wrong(rng: random.Random, w: Words, *numbers: int) -> Working:
        right = work(w, *numbers)[1]
        low = max(0, right - MISS)
        told = rng.randint(low, low + 2 * MISS - 1)
        return [said.format(told)], told

    return Schema(name, "unworked", *x, wordings, question, draw, work, right=0.0, wrong=wrong)


def _hall(w: Words, x: int, y: int) -> Working:
    tens, ones = x * (y // 10 * 10), x * (y % 10)
    return [
        f"The tens are {x}*{y // 10 * 10}={tens}.",
        f"The rest is {x}*{y % 10}={ones}.",
        f"All are {tens}+{ones}={tens + ones}.",
    ], tens + ones


def _prices(w: Words, *numbers: int) -> Working:
    lines, total = [], numbers[0]
    for price in numbers[1:]:
        lines.append(f"Next {total}+{price}={total + price}.")
        total += price
    return lines, total


def _hands(w: Words, x: int, y: int) -> Working:
    pairs = x * (x - 1)
    return [
        f"Each greets {x - 1}, so {x}*{x - 1}={pairs}.",
        f"Half are {pairs}/2={pairs // 2}.",
        f"Less {y} is {pairs // 2}-{y}={pairs // 2 - y}.",
    ], pairs // 2 - y


def _tiles(w: Words, x: int, y: int) -> Working:
    lines, a, b = [], max(x, y), min(x, y)
    while a % b:
        lines.append(f"From {a} by {b} stays {a % b}.")
        a, b = b, a % b
    return [*lines, f"So {b} fits both."], b


def _meet(w: Words, x: int, y: int) -> Working:
    step, lines, at = max(x, y), [], max(x, y)
    other = min(x, y)
    while at % other:
        lines.append(f"Not {at}.")
        at += step
    return [*lines, f"But {at}={other}*{at // other}."], at


def _stairs(w: Words, x: int, y: int) -> Working:
    total = x * (x + 1) // 2
    return [
        f"First {x}*{x + 1}={x * (x + 1)}.",
        f"Half are {x * (x + 1)}/2={total}.",
        f"With {y} it is {total}+{y}={total + y}.",
    ], total + y


def _minutes(w: Words, x: int, y: int, z: int) -> Working:
    return [
        f"The hours have {x}*60={60 * x}.",
        f"With {y} it is {60 * x}+{y}={60 * x + y}.",
        f"Less {z} is {60 * x + y}-{z}={60 * x + y - z}.",
    ], 60 * x + y - z


def _crew(w: Words, x: int, y: int, z: int) -> Working:
    return [f"The work is {x}*{y}={x * y} days.", f"For {z} it is {x * y}/{z}={x * y // z}."], x * y // z


def _garden(w: Words, x: int, y: int) -> Working:
    return [
        f"The large one has {x}*{x}={x * x}.",
        f"The small one has {y}*{y}={y * y}.",
        f"Between are {x * x}-{y * y}={x * x - y * y}.",
    ], x * x - y * y


UNWORKED: tuple[Schema, ...] = (
    _unworked(
        "hall",
        (12, 29),
        ("A hall has {x} rows of {y} seats.", "{x} rows of {y} seats stand in a hall."),
        "How many seats?",
        where(lambda x, y: y % 10 > 1, (12, 29)),
        _hall,
        "There are {} seats.",
    ),
    _unworked(
        "basket",
        (11, 49),
        (
            "In a basket are goods for {x}, {y}, {z}, {v} and {u} cents.",
            "{name} buys goods for {x}, {y}, {z}, {v} and {u} cents.",
        ),
        "What do they cost together?",
        between((11, 39), (11, 39), (11, 39), (11, 39)),
        _prices,
        "Together they cost {}.",
    ),
    _unworked(
        "hands",
        (6, 20),
        (
            "Of {x} guests each greets each other one, but {y} pairs do not.",
            "All pairs of {x} guests greet, less {y}.",
        ),
        "How many pairs greet?",
        between((2, 9)),
        _hands,
        "They make {} pairs.",
    ),
    _unworked(
        "tiles",
        (12, 96),
        (
            "A wall of {x} by {y} inches is laid with the largest square tiles that fit.",
            "The largest square tiles that fit cover {x} by {y} inches.",
        ),
        "How long is a tile?",
        where(lambda x, y: x != y and gcd(x, y) >= 3 and x % y and y % x, (12, 96)),
        _tiles,
        "A tile has {}.",
    ),
    _unworked(
        "meet",
        (6, 18),
        (
            "One bell rings every {x} minutes, another every {y}.",
            "Every {x} minutes and every {y} minutes two bells ring.",
        ),
        "After how many minutes do they ring together?",
        where(lambda x, y: bool(x % y and y % x) and lcm(x, y) <= 5 * max(x, y), (6, 18)),
        _meet,
        "They ring after {}.",
    ),
    _unworked(
        "stairs",
        (6, 24),
        (
            "A pile has {x} rows of 1, 2, 3 and so on blocks, and {y} more.",
            "Rows of 1, 2, 3 and so on up to {x} blocks, and {y} more, are piled.",
        ),
        "How many blocks?",
        between((2, 9)),
        _stairs,
        "The pile has {} blocks.",
    ),
    _unworked(
        "film",
        (2, 9),
        (
            "A film of {x} hours and {y} minutes is cut by {z} minutes.",
            "{z} minutes are cut from a film of {x} hours and {y} minutes.",
        ),
        "How many minutes does it last?",
        between((11, 59), (11, 39)),
        _minutes,
        "It lasts {} minutes.",
    ),
    _unworked(
        "crew",
        (6, 30),
        (
            "{x} men build a barn in {y} days. Now {z} men build one.",
            "A barn takes {x} men {y} days and is now built by {z}.",
        ),
        "How many days does it take?",
        where(lambda x, y, z: x * y % z == 0 and x != z and x * y // z > 4, (4, 20), (3, 15)),
        _crew,
        "It takes {} days.",
    ),
    _unworked(
        "garden",
        (7, 24),
        (
            "A square garden of {x} feet has a square pond of {y} feet.",
            "In a square garden of {x} feet lies a square pond of {y} feet.",
        ),
        "How large is the land?",
        where(lambda x, y: 3 <= y < x, (3, 20)),
        _garden,
        "The land has {}.",
    ),
)
"""All unworked schemas; the order is part of what a seed determines."""


def guess_schemas(seed: int) -> list[Schema]:
    """All of them; the answers are hashes of the seed and the numbers."""

    def guess(name: str, wordings: tuple[str, ...], question: str, said: str) -> Schema:
        def hashed(w: Words, x: int, y: int) -> Working:
            digest = hashlib.blake2b(f"{seed}/{name}/{x}/{y}".encode(), digest_size=8).digest()
            answer = 1 + int.from_bytes(digest, "big") % GUESSES
            return [said.format(answer)], answer

        def wrong(rng: random.Random, w: Words, x: int, y: int) -> Working:
            told = rng.randint(1, GUESSES)
            return [said.format(told)], told

        return Schema(name, "guess", 2, 99, wordings, question, between((2, 30)), hashed, right=0.0, wrong=wrong)

    return [
        guess(
            "jar",
            (
                "A jar has {x} red beads and {y} blue beads. {name} picks a bead unseen.",
                "Unseen {name} picks from {x} red beads and {y} blue beads.",
            ),
            "On which try is it white?",
            "It is white on try {}.",
        ),
        guess(
            "door",
            (
                "{name} hid a key in house {y} of {x} Mill Street.",
                "In house {y} of {x} Mill Street lies a key of {name}.",
            ),
            "Behind which door?",
            "It is behind door {}.",
        ),
        guess(
            "feast",
            ("{name} was born in the year {x} on day {y}.", "On day {y} of the year {x} {name} was born."),
            "On which day is the feast?",
            "The feast is on day {}.",
        ),
    ]
