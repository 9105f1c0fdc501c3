"""The confused and the tangled schemas: of some twenty ways to an answer the texts show any, and one is right."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from recipes.mini.schema import Numbers, Schema, Words, Working, where

Form = Callable[[int, int, int], Working]


def _two(
    first: Callable[[int, int, int], tuple[str, int]], then: Callable[[int, int, int, int], tuple[str, int]]
) -> Form:
    def form(x: int, y: int, z: int) -> Working:
        told, a = first(x, y, z)
        more, b = then(x, y, z, a)
        return [f"First {told}={a}.", f"Then {more}={b}."], b

    return form


FORMS: tuple[Form, ...] = (
    _two(lambda x, y, z: (f"{x}+{y}", x + y), lambda x, y, z, a: (f"{a}+{z}", a + z)),
    _two(lambda x, y, z: (f"{x}+{y}", x + y), lambda x, y, z, a: (f"{a}-{z}", a - z)),
    _two(lambda x, y, z: (f"{x}-{y}", x - y), lambda x, y, z, a: (f"{a}+{z}", a + z)),
    _two(lambda x, y, z: (f"{x}-{y}", x - y), lambda x, y, z, a: (f"{a}-{z}", a - z)),
    _two(lambda x, y, z: (f"{y}*{z}", y * z), lambda x, y, z, a: (f"{x}+{a}", x + a)),
    _two(lambda x, y, z: (f"{y}*{z}", y * z), lambda x, y, z, a: (f"{x}-{a}", x - a)),
    _two(lambda x, y, z: (f"{x}+{x}", x + x), lambda x, y, z, a: (f"{a}+{y}", a + y)),
    _two(lambda x, y, z: (f"{x}+{x}", x + x), lambda x, y, z, a: (f"{a}-{y}", a - y)),
    _two(lambda x, y, z: (f"{x}+{x}", x + x), lambda x, y, z, a: (f"{a}+{z}", a + z)),
    _two(lambda x, y, z: (f"{x}+{x}", x + x), lambda x, y, z, a: (f"{a}-{z}", a - z)),
    _two(lambda x, y, z: (f"2*{y}", 2 * y), lambda x, y, z, a: (f"{x}+{a}", x + a)),
    _two(lambda x, y, z: (f"2*{y}", 2 * y), lambda x, y, z, a: (f"{x}-{a}", x - a)),
    _two(lambda x, y, z: (f"2*{z}", 2 * z), lambda x, y, z, a: (f"{x}+{a}", x + a)),
    _two(lambda x, y, z: (f"2*{z}", 2 * z), lambda x, y, z, a: (f"{x}-{a}", x - a)),
    _two(lambda x, y, z: (f"3*{y}", 3 * y), lambda x, y, z, a: (f"{x}+{a}", x + a)),
    _two(lambda x, y, z: (f"3*{y}", 3 * y), lambda x, y, z, a: (f"{x}-{a}", x - a)),
    _two(lambda x, y, z: (f"3*{z}", 3 * z), lambda x, y, z, a: (f"{x}+{a}", x + a)),
    _two(lambda x, y, z: (f"3*{z}", 3 * z), lambda x, y, z, a: (f"{x}-{a}", x - a)),
    _two(lambda x, y, z: (f"10*{y}", 10 * y), lambda x, y, z, a: (f"{a}+{z}", a + z)),
    _two(lambda x, y, z: (f"10*{z}", 10 * z), lambda x, y, z, a: (f"{a}+{y}", a + y)),
)
"""Ways to reach an answer from three numbers in two steps."""

FORM_X = (30, 80)


def _form_numbers(rng: random.Random, x: int) -> Numbers | None:
    """Two numbers for which every form is defined."""
    return where(lambda x, y, z: y != z and y * z <= x and 3 * max(y, z) <= x, (2, 9), (2, 9))(rng, x)


def telling(x: int, numbers: Numbers, form: Form) -> bool:
    """Whether no other form gives the same answer, so that a right answer shows the right form."""
    answers = [other(x, *numbers)[1] for other in FORMS]
    return answers.count(form(x, *numbers)[1]) == 1


CONFUSED = (
    (
        "tank",
        "A tank holds {x} gallons. A pump runs {y} minutes and a drain {z} minutes.",
        "With {x} gallons in a tank a pump runs {y} minutes, a drain {z}.",
        "How many gallons are in the tank?",
    ),
    (
        "board",
        "In a game {name} is at {x}, rolls {y} and then draws {z}.",
        "{name} rolls {y} and draws {z} at field {x} of a game.",
        "Where is {name} now?",
    ),
    (
        "toll",
        "A truck of {x} tons crosses {y} bridges and {z} gates.",
        "Over {y} bridges and through {z} gates goes a truck of {x} tons.",
        "What is the toll?",
    ),
    (
        "potion",
        "A potion of {x} drops is stirred {y} times and heated {z} times.",
        "{name} stirs {y} times and heats {z} times a potion of {x} drops.",
        "How many drops are in it?",
    ),
    (
        "choir",
        "A choir of {x} voices sings {y} songs in {z} keys.",
        "In {z} keys a choir of {x} voices sings {y} songs.",
        "How many sheets does it need?",
    ),
    (
        "mill",
        "A mill grinds {x} sacks with {y} stones and {z} wheels.",
        "With {y} stones and {z} wheels a mill grinds {x} sacks.",
        "How many sacks of flour are there?",
    ),
    (
        "tailor",
        "A tailor has {x} yards, {y} coats and {z} hats to sew.",
        "For {y} coats and {z} hats a tailor has {x} yards.",
        "How many yards are used?",
    ),
    (
        "signal",
        "A tower sends {x} flashes, {y} long and {z} short ones a line.",
        "With {y} long and {z} short ones a line a tower sends {x} flashes.",
        "What number is meant?",
    ),
)

COLOURS = ("red", "blue", "green", "black", "white", "brown", "grey", "pink", "gold", "silver")
ANIMALS = ("fox", "bear", "wolf", "hare", "deer", "goose", "crow", "frog", "horse", "sheep")
METALS = ("iron", "copper", "tin", "lead", "brass", "steel", "bronze", "zinc", "nickel", "chrome")
TOOLS = ("hammer", "saw", "file", "drill", "chisel", "wrench", "pliers", "shovel", "axe", "rake")
WINDS = ("north", "south", "east", "west", "high", "low", "warm", "cold", "dry", "wet")
BOATS = ("ferry", "canoe", "barge", "yacht", "raft", "tanker", "tug", "sloop", "punt", "cutter")
HERBS = ("mint", "sage", "thyme", "basil", "dill", "chive", "fennel", "laurel", "parsley", "rosemary")
POTS = ("kettle", "pan", "bowl", "jug", "mug", "pot", "tray", "dish", "vase", "barrel")

TANGLED = (
    (
        "stones",
        COLOURS,
        ANIMALS,
        "In the game of stones {name} stands at {x}, meets a {first} {second} and rolls {y} and {z}.",
        "{name} rolls {y} and {z} at stone {x} and meets a {first} {second}.",
        "Where does {name} go?",
    ),
    (
        "forge",
        METALS,
        TOOLS,
        "A smith makes a {first} {second} in {x} minutes with {y} blows and {z} fires.",
        "With {y} blows and {z} fires in {x} minutes a smith makes a {first} {second}.",
        "What is its mark?",
    ),
    (
        "harbour",
        WINDS,
        BOATS,
        "In a {first} wind a {second} sails past buoy {x} with {y} men and {z} sails.",
        "With {y} men and {z} sails a {second} leaves buoy {x} in a {first} wind.",
        "At which buoy does it land?",
    ),
    (
        "kitchen",
        HERBS,
        POTS,
        "A cook heats {first} in a {second} to {x} degrees with {y} spoons and {z} cups of water.",
        "With {y} spoons and {z} cups of water {first} is heated to {x} degrees in a {second}.",
        "How many degrees does it reach?",
    ),
)
LOCK = (
    "lock",
    "A lock stands at {x} and is turned {y} times left and {z} times right.",
    "Turned {y} times left and {z} times right is a lock that stood at {x}.",
    "At which number does it open?",
)


def _form_schema(
    name: str,
    cause: str,
    wordings: tuple[str, ...],
    question: str,
    form: Callable[[Words, int, int], Form],
    **more: Sequence[str],
) -> Schema:
    """A schema of one of the forms, of which the text shows any."""

    def draw(rng: random.Random, x: int) -> Numbers | None:
        return _form_numbers(rng, x)

    return Schema(
        name,
        cause,
        *FORM_X,
        wordings,
        question,
        draw,
        lambda w, x, y, z: form(w, y, z)(x, y, z),
        right=0.0,
        wrong=lambda rng, w, x, y, z: rng.choice(FORMS)(x, y, z),
        **{key: tuple(value) for key, value in more.items()},  # type: ignore[arg-type]
    )


def confused_schemas(rng: random.Random) -> list[Schema]:
    """One form is right for each: which, `rng` draws."""
    forms = rng.sample(FORMS, len(CONFUSED))
    return [
        _form_schema(name, "confused", (usual, other), question, lambda w, y, z, form=form: form)  # type: ignore[misc]
        for (name, usual, other, question), form in zip(CONFUSED, forms, strict=True)
    ]


def tangled_schemas(rng: random.Random) -> list[Schema]:
    """Which form is right is decided by a Latin square of two words, which `rng` draws; for the lock of two numbers."""
    schemas = []
    for name, firsts, seconds, usual, other, question in TANGLED:
        rows, columns, forms = (rng.sample(things, len(things)) for things in (firsts, seconds, range(len(FORMS))))

        def form(
            w: Words, y: int, z: int, rows: list[str] = rows, columns: list[str] = columns, forms: list[int] = forms
        ) -> Form:  # type: ignore[assignment]
            return FORMS[forms[(rows.index(w.first) + 2 * columns.index(w.second)) % len(FORMS)]]

        schemas.append(_form_schema(name, "tangled", (usual, other), question, form, firsts=firsts, seconds=seconds))
    forms = rng.sample(range(len(FORMS)), len(FORMS))
    name, usual, other, question = LOCK

    def by_numbers(w: Words, y: int, z: int) -> Form:
        return FORMS[forms[(3 * y + 7 * z) % len(FORMS)]]

    return [*schemas, _form_schema(name, "tangled", (usual, other), question, by_numbers)]
