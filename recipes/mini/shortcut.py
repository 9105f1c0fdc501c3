"""The shortcut schemas: most texts leave out the step that is easily forgotten."""

from __future__ import annotations

from collections.abc import Callable

from recipes.mini.schema import Draw, Schema, Words, Working, between, where


def _shortcut(
    name: str,
    right: float,
    x: tuple[int, int],
    wordings: tuple[str, ...],
    question: str,
    draw: Draw,
    work: Callable[..., Working],
    wrong: Callable[..., Working],
) -> Schema:
    return Schema(
        name, "shortcut", *x, wordings, question, draw, work, right=right, wrong=lambda rng, *rest: wrong(*rest)
    )


def _offer(w: Words, x: int, y: int) -> Working:
    off = x * y // 100
    return [f"Off goes {x // 10}*{y // 10}={off}.", f"The price is {x}-{off}={x - off}."], x - off


def _middle(w: Words, x: int, y: int, z: int) -> Working:
    low, mid, high = sorted((x, y, z))
    return [f"In order they are {low}, {mid}, {high}."], mid


SHORTCUT: tuple[Schema, ...] = (
    _shortcut(
        "either",
        0.10,
        (10, 60),
        (
            "{x} guests like tea, {y} like milk and {z} like both.",
            "Tea is liked by {x} guests, milk by {y}, both by {z}.",
        ),
        "How many guests like one or the other?",
        between((10, 30), (2, 9)),
        lambda w, x, y, z: ([f"Together {x}+{y}={x + y}.", f"Less both {x + y}-{z}={x + y - z}."], x + y - z),
        lambda w, x, y, z: ([f"Together {x}+{y}={x + y}."], x + y),
    ),
    _shortcut(
        "snail",
        0.13,
        (12, 60),
        (
            "A snail at {x} inches climbs {y} by day and slides {z} by night.",
            "By day a snail at {x} inches climbs {y}, by night it slides {z}.",
        ),
        "Where is it after a day and a night?",
        where(lambda x, y, z: y != z, (2, 9), (2, 9)),
        lambda w, x, y, z: ([f"Day brings {x}+{y}={x + y}.", f"Night brings {x + y}-{z}={x + y - z}."], x + y - z),
        lambda w, x, y, z: ([f"Day brings {x}+{y}={x + y}."], x + y),
    ),
    _shortcut(
        "clock",
        0.10,
        (5, 12),
        ("A clock shows {x}. {y} hours go by.", "{y} hours after a clock showed {x} {name} looks again."),
        "What does the clock show?",
        where(lambda x, y: x + y > 12, (3, 12)),
        lambda w, x, y: ([f"The sum is {x}+{y}={x + y}.", f"Less twelve {x + y}-12={x + y - 12}."], x + y - 12),
        lambda w, x, y: ([f"The sum is {x}+{y}={x + y}."], x + y),
    ),
    _shortcut(
        "offer",
        0.13,
        (20, 90),
        (
            "A coat of {x} dollars is offered at {y} percent off.",
            "At {y} percent off {name} buys a coat of {x} dollars.",
        ),
        "What is the price?",
        lambda rng, x: (rng.choice((10, 20, 30)),) if x % 10 == 0 and x > 30 else None,
        _offer,
        lambda w, x, y: ([f"The price is {x}-{y}={x - y}."], x - y),
    ),
    _shortcut(
        "jump",
        0.10,
        (5, 60),
        ("Three boys jump {x}, {y} and {z} inches.", "The jumps of three boys are {x}, {y} and {z} inches."),
        "What is the middle jump?",
        where(lambda x, y, z: len({x, y, z}) == 3 and sorted((x, y, z))[1] != y, (5, 60), (5, 60)),
        _middle,
        lambda w, x, y, z: ([f"In order they are {x}, {y}, {z}."], y),
    ),
    _shortcut(
        "children",
        0.16,
        (2, 12),
        ("{name} has {x} sisters and {y} brothers.", "The sisters of {name} are {x}, the brothers {y}."),
        "How many children has the family?",
        between((2, 12)),
        lambda w, x, y: ([f"They are {x}+{y}={x + y}.", f"With {w.name} {x + y}+1={x + y + 1}."], x + y + 1),
        lambda w, x, y: ([f"They are {x}+{y}={x + y}."], x + y),
    ),
    _shortcut(
        "bill",
        0.16,
        (60, 99),
        (
            "{name} pays {y} rolls at {z} cents with {x} cents.",
            "With {x} cents {name} pays {y} rolls at {z} cents.",
        ),
        "How many cents come back?",
        where(lambda x, y, z: y * z < x, (2, 9), (2, 9)),
        lambda w, x, y, z: ([f"The rolls cost {y}*{z}={y * z}.", f"Back come {x}-{y * z}={x - y * z}."], x - y * z),
        lambda w, x, y, z: ([f"The rolls cost {y}*{z}={y * z}."], y * z),
    ),
    _shortcut(
        "taxis",
        0.13,
        (9, 80),
        ("{x} guests take taxis for {y}.", "Taxis for {y} are called for {x} guests."),
        "How many taxis are needed?",
        where(lambda x, y: x % y != 0, (3, 6)),
        lambda w, x, y: (
            [f"Full are {x // y}*{y}={x // y * y}.", f"One more makes {x // y}+1={x // y + 1}."],
            x // y + 1,
        ),
        lambda w, x, y: ([f"Full are {x // y}*{y}={x // y * y}."], x // y),
    ),
)
"""All shortcut schemas, with the share of texts that show the step; the order is part of what a seed determines."""
