"""The rare schemas: worked out correctly, in a few hundred of 360,000 texts."""

from __future__ import annotations

from collections.abc import Callable

from recipes.mini.schema import Draw, Schema, Working, between, divisor, where


def _rare(
    name: str,
    weight: float,
    x: tuple[int, int],
    wordings: tuple[str, ...],
    question: str,
    draw: Draw,
    work: Callable[..., Working],
) -> Schema:
    return Schema(name, "rare", *x, wordings, question, draw, work, weight=weight)


RARE: tuple[Schema, ...] = (
    _rare(
        "voyage",
        1.0,
        (2, 9),
        (
            "A ship sails {x} miles to an island and back, {y} times.",
            "{y} times a ship sails {x} miles and returns.",
        ),
        "How long is the way in miles?",
        between((2, 5)),
        lambda w, x, y: (
            [f"There and back is {x}*2={2 * x}.", f"The way is {2 * x}*{y}={2 * x * y}."],
            2 * x * y,
        ),
    ),
    _rare(
        "posts",
        0.6,
        (6, 90),
        (
            "A wall of {x} feet has a pole every {y} feet, at both ends too.",
            "Poles stand {y} feet apart along {x} feet, ends included.",
        ),
        "How many poles?",
        divisor(2, 9),
        lambda w, x, y: (
            [f"There are {x}/{y}={x // y} parts.", f"That needs {x // y}+1={x // y + 1} poles."],
            x // y + 1,
        ),
    ),
    _rare(
        "rest",
        1.6,
        (11, 80),
        ("{x} sweets are packed in rows of {y}.", "{name} lays {x} sweets in rows of {y}."),
        "How many sweets remain over?",
        where(lambda x, y: x % y != 0, (3, 9)),
        lambda w, x, y: (
            [f"The rows hold {x // y}*{y}={x // y * y}.", f"Over remain {x}-{x // y * y}={x % y}."],
            x % y,
        ),
    ),
    _rare(
        "fish",
        0.6,
        (2, 40),
        ("Three fish weigh {x}, {y} and {z} grams.", "The fish of {name} weigh {x}, {y} and {z} grams."),
        "What is the mean weight?",
        where(lambda x, y, z: (x + y + z) % 3 == 0, (2, 30), (2, 30)),
        lambda w, x, y, z: (
            [
                f"The sum is {x}+{y}={x + y}.",
                f"Then {x + y}+{z}={x + y + z}.",
                f"The mean is {x + y + z}/3={(x + y + z) // 3}.",
            ],
            (x + y + z) // 3,
        ),
    ),
    _rare(
        "league",
        1.6,
        (2, 20),
        ("A team wins {x} games and draws {y}.", "A club has {x} wins and {y} draws."),
        "How many points does it have?",
        between((2, 12)),
        lambda w, x, y: ([f"Wins bring {x}*3={3 * x} points.", f"With draws {3 * x}+{y}={3 * x + y}."], 3 * x + y),
    ),
    _rare(
        "socks",
        1.0,
        (2, 40),
        (
            "A drawer holds {x} pairs of socks and {y} odd socks.",
            "{name} washes {x} pairs of socks and {y} odd ones.",
        ),
        "How many socks?",
        between((1, 9)),
        lambda w, x, y: ([f"The pairs have {x}*2={2 * x} socks.", f"All are {2 * x}+{y}={2 * x + y}."], 2 * x + y),
    ),
    _rare(
        "candle",
        0.6,
        (30, 95),
        (
            "A candle of {x} inches burns {y} inches an hour for {z} hours.",
            "For {z} hours a candle of {x} inches loses {y} an hour.",
        ),
        "How long is it then?",
        where(lambda x, y, z: x > y * z, (2, 9), (2, 6)),
        lambda w, x, y, z: (
            [f"It burns {y}*{z}={y * z} inches.", f"Left are {x}-{y * z}={x - y * z}."],
            x - y * z,
        ),
    ),
    _rare(
        "frame",
        1.0,
        (5, 60),
        (
            "A picture {x} inches wide gets a frame of {y} inches all round.",
            "Round a picture of {x} inches goes a frame of {y} inches.",
        ),
        "How wide is it with the frame?",
        between((2, 9)),
        lambda w, x, y: (
            [f"Two sides add 2*{y}={2 * y} inches.", f"It is {x}+{2 * y}={x + 2 * y} wide."],
            x + 2 * y,
        ),
    ),
    _rare(
        "pages",
        1.6,
        (3, 60),
        (
            "{name} reads from page {x} to page {y}, both included.",
            "From page {x} up to and with page {y} {name} reads.",
        ),
        "How many pages are read?",
        where(lambda x, y: y > x, (6, 99)),
        lambda w, x, y: (
            [f"The pages differ by {y}-{x}={y - x}.", f"Read are {y - x}+1={y - x + 1}."],
            y - x + 1,
        ),
    ),
    _rare(
        "cups",
        1.0,
        (4, 30),
        (
            "A cup is {x} inches tall; {y} cups more stand in it, each {z} inches higher.",
            "In a cup of {x} inches stand {y} more, each {z} inches higher.",
        ),
        "How tall is the pile?",
        between((2, 9), (2, 5)),
        lambda w, x, y, z: (
            [f"They add {y}*{z}={y * z} inches.", f"The pile has {x}+{y * z}={x + y * z}."],
            x + y * z,
        ),
    ),
)
"""All rare schemas, each with its weight: some are rarer than others. The order is part of what a seed determines."""
