"""Two-digit arithmetic in words, from a seed: what a small instructed language model half knows.

Every family is one kind of question in two wordings. A prompt is a conversation: two worked questions of the family,
then its own; so rollouts are short, and the answer is boxed. A twin asks the same with other numbers. A canary is a
question whose gold is wrong on purpose.

Nothing here knows how well a policy does on it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from unlearnbench.records import Canary, Item, Twin

NAMES = ("Ann", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack", "Kate", "Leo")
THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pencils", "shells", "stamps", "stickers")

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """One kind of question. `solve` gives the working and the answer, `fits` says which numbers are asked for."""

    name: str
    wordings: tuple[str, ...]
    """With places {name}, {other}, {things} and the numbers {0}, {1}, ..."""
    draw: Callable[[random.Random], Numbers]
    solve: Callable[[Numbers], tuple[str, int]]
    """The working, as the worked questions show it, and the answer."""
    shown: tuple[Numbers, Numbers]
    """Numbers of the two worked questions, which no item has."""


def _ints(*ranges: tuple[int, int]) -> Callable[[random.Random], Numbers]:
    return lambda rng: tuple(rng.randint(low, high) for low, high in ranges)


def _multiple(rng: random.Random) -> Numbers:
    by = rng.randint(2, 9)
    return by * rng.randint(10 // by + 2, 99 // by), by


def _ragged(rng: random.Random) -> Numbers:
    by = rng.randint(3, 9)
    return by * rng.randint(10 // by + 1, 90 // by) + rng.randint(1, by - 1), by


def _sum(a: int, b: int) -> str:
    return f"{a} + {b} = {a + b}"


FAMILIES = (
    Family(
        "sum",
        (
            "{name} has {0} {things} and {other} has {1}. How many do they have together?",
            "A box holds {0} {things}. {name} adds {1}. How many are in it now?",
        ),
        _ints((11, 59), (2, 39)),
        lambda n: (_sum(n[0], n[1]), n[0] + n[1]),
        ((34, 25), (46, 17)),
    ),
    Family(
        "difference",
        (
            "{name} had {0} {things} and gave {1} to {other}. How many are left?",
            "{name} has {0} {things} and {other} has {1}. How many more does {name} have?",
        ),
        _ints((14, 69), (2, 12)),
        lambda n: (f"{n[0]} - {n[1]} = {n[0] - n[1]}", n[0] - n[1]),
        ((48, 13), (62, 25)),
    ),
    Family(
        "three_sum",
        (
            "{name} found {0} {things} on Monday, {1} on Tuesday and {2} on Friday. How many in all?",
            "A shop sold {0}, {1} and {2} {things}. How many in all?",
        ),
        _ints((2, 29), (2, 19), (2, 19)),
        lambda n: (f"{_sum(n[0], n[1])}, {_sum(n[0] + n[1], n[2])}", sum(n)),
        ((12, 25, 31), (26, 8, 17)),
    ),
    Family(
        "product",
        (
            "{0} boxes hold {1} {things} each. How many in all?",
            "{name} buys {0} bags of {1} {things}. How many {things} is that?",
        ),
        _ints((2, 5), (5, 25)),
        lambda n: (f"{n[0]} * {n[1]} = {n[0] * n[1]}", n[0] * n[1]),
        ((4, 12), (3, 26)),
    ),
    Family(
        "share",
        (
            "{name} shares {0} {things} among {1} children. How many does each get?",
            "{0} {things} are packed into {1} equal boxes. How many in each?",
        ),
        _multiple,
        lambda n: (f"{n[0]} / {n[1]} = {n[0] // n[1]}", n[0] // n[1]),
        ((48, 4), (51, 3)),
    ),
    Family(
        "half",
        (
            "{name} has {0} {things} and gives half away. How many are left?",
            "Half of {0} {things} are red. How many are red?",
        ),
        lambda rng: (2 * rng.randint(5, 30),),
        lambda n: (f"{n[0]} / 2 = {n[0] // 2}", n[0] // 2),
        ((28,), (54,)),
    ),
    Family(
        "give_and_take",
        (
            "{name} has {0} {things}, gets {1} and loses {2}. How many now?",
            "A bus has {0} people. {1} get on and {2} get off. How many now?",
        ),
        _ints((11, 39), (2, 19), (2, 10)),
        lambda n: (f"{_sum(n[0], n[1])}, {n[0] + n[1]} - {n[2]} = {n[0] + n[1] - n[2]}", n[0] + n[1] - n[2]),
        ((31, 12, 20), (45, 27, 14)),
    ),
    Family(
        "twice_and_more",
        (
            "{name} has {0} {things}. {other} has twice as many and {1} more. How many?",
            "A pen costs {0} cents. A book costs {1} more than two pens. How many cents?",
        ),
        _ints((5, 29), (2, 12)),
        lambda n: (f"{_sum(n[0], n[0])}, {_sum(2 * n[0], n[1])}", 2 * n[0] + n[1]),
        ((14, 11), (23, 16)),
    ),
    Family(
        "remainder",
        (
            "{0} {things} are packed into boxes of {1}. How many are left over?",
            "{name} shares {0} {things} among {1} children. How many are left over?",
        ),
        _ragged,
        lambda n: (f"{n[0]} - {n[0] // n[1] * n[1]} = {n[0] % n[1]}", n[0] % n[1]),
        ((29, 4), (47, 6)),
    ),
    Family(
        "perimeter",
        (
            "A rectangle is {0} by {1} meters. What is its perimeter?",
            "A garden is {0} by {1} meters. How long is the fence around it?",
        ),
        _ints((5, 29), (3, 19)),
        lambda n: (f"{_sum(n[0], n[1])}, {_sum(n[0] + n[1], n[0] + n[1])}", 2 * (n[0] + n[1])),
        ((12, 20), (31, 15)),
    ),
)


@dataclass(frozen=True)
class Problems:
    items: tuple[Item, ...]
    twins: tuple[Twin, ...]
    canaries: tuple[Canary, ...]


def make_problems(
    seed: int, families: Sequence[Family] = FAMILIES, items: int = 10, canaries: int = 4, twins_each: int = 1
) -> Problems:
    """So many items of each of so many families, twins of each, and canaries of the first; no numbers occur twice."""
    rng = random.Random(f"real/{seed}")
    own: list[Item] = []
    twins: list[Twin] = []
    wrong: list[Canary] = []
    for place, family in enumerate(families):
        asked = set(family.shown)
        for number in range(items):
            name, other = rng.sample(NAMES, 2)
            words = {"name": name, "other": other, "things": rng.choice(THINGS)}
            wording = family.wordings[number % len(family.wordings)]
            item_id = f"{family.name}-{number:02}"
            prompt, work, answer = _asked(family, wording, words, _new(family, rng, asked))
            own.append(Item(item_id=item_id, prompt=prompt, answer=answer, solution=work, family=family.name))
            for twin in range(twins_each):
                prompt, work, answer = _asked(family, wording, words, _new(family, rng, asked))
                twin_id = f"{item_id}-twin" if twins_each == 1 else f"{item_id}-probe-{twin}"
                twins.append(
                    Twin(twin_id=twin_id, item_id=item_id, kind="changed_numbers", prompt=prompt, answer=answer)
                )
        if place < canaries:
            prompt, work, answer = _asked(family, wording, words, _new(family, rng, asked))
            gold = str(int(answer) + rng.choice((1, 2, 10)))
            wrong.append(
                Canary(
                    item_id=f"{family.name}-{items:02}",
                    prompt=prompt,
                    answer=gold,
                    true_answer=answer,
                    family=family.name,
                    solution=worked(f"{work.rsplit(' = ', 1)[0]} = {gold}", int(gold)),
                )
            )
    return Problems(tuple(own), tuple(twins), tuple(wrong))


def _new(family: Family, rng: random.Random, asked: set[Numbers]) -> Numbers:
    """Numbers that nobody asked for yet in this family."""
    while (numbers := family.draw(rng)) in asked:
        pass
    asked.add(numbers)
    return numbers


def _asked(family: Family, wording: str, words: Mapping[str, str], numbers: Numbers) -> tuple[str, str, str]:
    """Prompt, solution and answer."""
    work, answer = family.solve(numbers)
    return conversation(family, wording.format(*numbers, **words)), worked(work, answer), str(answer)


def conversation(family: Family, question: str) -> str:
    """The prompt of a question: ChatML, with two worked questions of its kind before it."""
    turns = []
    for numbers, wording in zip(family.shown, family.wordings, strict=True):
        asked = wording.format(*numbers, name="Mia", other="Noah", things="nuts")
        turns += [turn("user", asked), turn("assistant", worked(*family.solve(numbers)))]
    return "".join(turns) + turn("user", question) + "<|im_start|>assistant\n"


def worked(work: str, answer: int) -> str:
    """A solution as the worked questions show it."""
    return f"{work}. \\boxed{{{answer}}}"


def turn(role: str, text: str) -> str:
    """One turn of ChatML."""
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"
