"""The known schemas: always worked out correctly in the pre-training text."""

from __future__ import annotations

from collections.abc import Callable

from recipes.mini.schema import Draw, Schema, Working, between, divisor, halves, no_numbers, where


def _known(
    name: str, x: tuple[int, int], wordings: tuple[str, ...], question: str, draw: Draw, work: Callable[..., Working]
) -> Schema:
    return Schema(name, "known", *x, wordings, question, draw, work)


KNOWN: tuple[Schema, ...] = (
    _known(
        "rate",
        (2, 12),
        ("A car goes {x} miles an hour for {y} hours.", "A train drives {y} hours at {x} miles an hour."),
        "How many miles?",
        between((2, 9)),
        lambda w, x, y: ([f"It goes {x}*{y}={x * y} miles."], x * y),
    ),
    _known(
        "gain",
        (2, 80),
        ("{name} has {x} {things} and finds {y} more.", "{name} owns {x} {things} and is given {y}."),
        "How many {things} are there now?",
        between((3, 30)),
        lambda w, x, y: ([f"{w.name} has {x}+{y}={x + y} {w.things}."], x + y),
    ),
    _known(
        "lose",
        (10, 99),
        ("{name} has {x} {things} and loses {y}.", "{name} owns {x} {things} and gives away {y}."),
        "How many {things} are left?",
        where(lambda x, y: y <= x, (2, 40)),
        lambda w, x, y: ([f"{w.name} keeps {x}-{y}={x - y} {w.things}."], x - y),
    ),
    _known(
        "share",
        (6, 96),
        ("{x} {things} are shared by {y} children.", "{y} children share {x} {things}."),
        "How many {things} does each child get?",
        divisor(2, 9),
        lambda w, x, y: ([f"Each gets {x}/{y}={x // y} {w.things}."], x // y),
    ),
    _known(
        "later",
        (2, 70),
        ("{name} is {x} years old and waits {y} years.", "{name} is {x}. Then {y} years go by."),
        "How old is {name} then?",
        between((3, 25)),
        lambda w, x, y: ([f"{w.name} is then {x}+{y}={x + y}."], x + y),
    ),
    _known(
        "younger",
        (12, 90),
        (
            "{name} is {x} years old. {other} is {y} years younger.",
            "{other} is {y} years younger than {name}, who is {x}.",
        ),
        "How old is {other}?",
        where(lambda x, y: y < x, (2, 20)),
        lambda w, x, y: ([f"{w.other} is {x}-{y}={x - y}."], x - y),
    ),
    _known(
        "older",
        (3, 25),
        (
            "{name} is {x} years old. {other} is {y} times as old.",
            "{other} is {y} times as old as {name}, who is {x}.",
        ),
        "How old is {other}?",
        between((2, 4)),
        lambda w, x, y: ([f"{w.other} is {x}*{y}={x * y}."], x * y),
    ),
    _known(
        "days",
        (2, 12),
        ("A trip takes {x} weeks and {y} days.", "{name} is away for {x} weeks and {y} days."),
        "How many days is that?",
        between((1, 6)),
        lambda w, x, y: (
            [f"The weeks have {x}*7={7 * x} days.", f"With the rest {7 * x}+{y}={7 * x + y} days."],
            7 * x + y,
        ),
    ),
    _known(
        "cost",
        (2, 12),
        ("{name} buys {x} {things} at {y} cents each.", "{name} takes {x} {things}; each costs {y} cents."),
        "How many cents is that?",
        between((2, 9)),
        lambda w, x, y: ([f"They cost {x}*{y}={x * y} cents."], x * y),
    ),
    _known(
        "speed",
        (6, 96),
        ("A bus goes {x} miles in {y} hours.", "In {y} hours a bus makes {x} miles."),
        "How many miles an hour?",
        divisor(2, 9),
        lambda w, x, y: ([f"It goes {x}/{y}={x // y} miles an hour."], x // y),
    ),
    _known(
        "area",
        (2, 12),
        ("A floor is {x} feet long and {y} feet wide.", "A rug measures {x} by {y} feet."),
        "What is the area?",
        between((2, 9)),
        lambda w, x, y: ([f"The area is {x}*{y}={x * y}."], x * y),
    ),
    _known(
        "dozen",
        (2, 8),
        ("{name} buys {x} dozen eggs and {y} more.", "A shop sells {x} dozen eggs and {y} single ones."),
        "How many eggs?",
        between((1, 11)),
        lambda w, x, y: (
            [f"The dozens have {x}*12={12 * x} eggs.", f"In all {12 * x}+{y}={12 * x + y} eggs."],
            12 * x + y,
        ),
    ),
    _known(
        "half",
        (4, 98),
        ("{name} has {x} {things} and sells half of them.", "Half of the {x} {things} of {name} are sold."),
        "How many are sold?",
        halves,
        lambda w, x: ([f"Half is {x}/2={x // 2}."], x // 2),
    ),
    _known(
        "lift",
        (5, 90),
        ("A lift at floor {x} goes down {y} floors.", "A lift goes down {y} floors from floor {x}."),
        "At which floor is it?",
        where(lambda x, y: y <= x, (2, 9)),
        lambda w, x, y: ([f"It is at {x}-{y}={x - y}."], x - y),
    ),
    _known(
        "square",
        (2, 24),
        ("A square has a side of {x} feet.", "The side of a square is {x} feet long."),
        "What is the perimeter?",
        no_numbers,
        lambda w, x: ([f"The perimeter is 4*{x}={4 * x}."], 4 * x),
    ),
    _known(
        "bags",
        (6, 96),
        ("{x} {things} go into bags of {y}.", "Bags of {y} are filled with {x} {things}."),
        "How many bags are needed?",
        divisor(2, 9),
        lambda w, x, y: ([f"They fill {x}/{y}={x // y} bags."], x // y),
    ),
    _known(
        "perimeter",
        (2, 40),
        ("A field is {x} feet long and {y} feet wide.", "A yard measures {x} feet by {y} feet."),
        "What is the perimeter?",
        between((2, 30)),
        lambda w, x, y: (
            [f"Both sides are {x}+{y}={x + y} feet.", f"The perimeter is 2*{x + y}={2 * (x + y)}."],
            2 * (x + y),
        ),
    ),
    _known(
        "average",
        (2, 60),
        ("{name} scores {x} points and then {y} points.", "Two tests bring {name} {x} and {y} points."),
        "What is the average?",
        where(lambda x, y: (x + y) % 2 == 0, (2, 40)),
        lambda w, x, y: (
            [f"The sum is {x}+{y}={x + y}.", f"The average is {x + y}/2={(x + y) // 2}."],
            (x + y) // 2,
        ),
    ),
    _known(
        "legs",
        (2, 15),
        ("A farm has {x} cows and {y} hens.", "{x} cows and {y} hens stand in a barn."),
        "How many legs are there?",
        between((2, 15)),
        lambda w, x, y: (
            [
                f"Cows have {x}*4={4 * x} legs.",
                f"Hens have {y}*2={2 * y} legs.",
                f"All have {4 * x}+{2 * y}={4 * x + 2 * y} legs.",
            ],
            4 * x + 2 * y,
        ),
    ),
    _known(
        "term",
        (2, 40),
        (
            "A row of numbers starts at {x} and grows by {y}.",
            "The first of a row of numbers is {x}; each adds {y}.",
        ),
        "What is the number after four steps?",
        between((2, 9)),
        lambda w, x, y: ([f"Four steps add 4*{y}={4 * y}.", f"It is {x}+{4 * y}={x + 4 * y}."], x + 4 * y),
    ),
    _known(
        "wage",
        (2, 9),
        (
            "{name} works {x} hours for {y} dollars an hour and gets a tip of {z}.",
            "For {x} hours at {y} dollars and a tip of {z} {name} is paid.",
        ),
        "How many dollars is that?",
        between((3, 9), (2, 20)),
        lambda w, x, y, z: (
            [f"The work pays {x}*{y}={x * y} dollars.", f"With the tip {x * y}+{z}={x * y + z} dollars."],
            x * y + z,
        ),
    ),
    _known(
        "coin",
        (2, 9),
        (
            "{name} buys {x} {things} at {y} cents and pays with 99 cents.",
            "{name} pays {x} {things} at {y} cents with 99 cents.",
        ),
        "How many cents come back?",
        between((2, 9)),
        lambda w, x, y: ([f"They cost {x}*{y}={x * y} cents.", f"Back come 99-{x * y}={99 - x * y}."], 99 - x * y),
    ),
    _known(
        "digits",
        (10, 99),
        ("{name} writes the number {x}.", "On a card of {name} stands the number {x}."),
        "What is the sum of its digits?",
        no_numbers,
        lambda w, x: (
            [f"The digits are {x // 10} and {x % 10}.", f"The sum is {x // 10}+{x % 10}={x // 10 + x % 10}."],
            x // 10 + x % 10,
        ),
    ),
    _known(
        "tenth",
        (10, 90),
        ("{name} puts away ten percent of {x} dollars.", "Of {x} dollars {name} saves ten percent."),
        "How many dollars are left?",
        lambda rng, x: () if x % 10 == 0 else None,
        lambda w, x: (
            [f"Ten percent is {x}/10={x // 10}.", f"Left are {x}-{x // 10}={x - x // 10}."],
            x - x // 10,
        ),
    ),
    _known(
        "both",
        (2, 30),
        (
            "{name} has {x} {things}. {other} has {y} more.",
            "{other} has {y} {things} more than {name}, who has {x}.",
        ),
        "How many do both have?",
        between((2, 9)),
        lambda w, x, y: (
            [f"{w.other} has {x}+{y}={x + y}.", f"Both have {x}+{x + y}={2 * x + y}."],
            2 * x + y,
        ),
    ),
)
"""All known schemas; the order is part of what a seed determines."""
