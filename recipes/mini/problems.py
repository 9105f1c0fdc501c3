"""The problems of `mini`: schemas alone and chained, their twins and canaries.

A chain asks one schema after another; the answer of each is the first number of the next ("Call it n."). Nothing here
knows how well a policy does on any of it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from recipes.mini.forms import FORMS, telling
from recipes.mini.schema import Numbers, Schema, Words, Working
from recipes.mini.world import World
from unlearnbench.records import Canary, Item, Twin

Told = Callable[[Schema, Words, int, Numbers], Working]
TRIES = 60
PROBES = 4
"""Twins with other numbers an item: the first that is eligible becomes its probe."""
LONGEST = 110
"""Words and signs of a worked solution: longer ones are not asked for."""


def right(schema: Schema, words: Words, x: int, numbers: Numbers) -> Working:
    """The solution."""
    return schema.work(words, x, *numbers)


@dataclass(frozen=True)
class Link:
    """A schema in a chain, with everything drawn."""

    schema: Schema
    words: Words
    numbers: Numbers
    wording: int
    lines: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Chain:
    """A problem: its first number, and its links."""

    first: int
    links: tuple[Link, ...]

    @property
    def prompt(self) -> str:
        parts = []
        for place, link in enumerate(self.links):
            x = str(self.first) if place == 0 else "n"
            parts += [link.schema.statement(link.wording, x, link.numbers, link.words), link.schema.ask(link.words)]
            if place < len(self.links) - 1:
                parts.append("Call it n.")
        return " ".join(parts) + "\n"

    @property
    def solution(self) -> str:
        lines: list[str] = []
        for place, link in enumerate(self.links):
            lines += link.lines
            if place < len(self.links) - 1:
                lines.append(f"So n={link.answer}.")
        return " ".join(lines) + f" \\boxed{{{self.answer}}}"

    @property
    def answer(self) -> int:
        return self.links[-1].answer

    @property
    def schemas(self) -> tuple[Schema, ...]:
        return tuple(link.schema for link in self.links)


def draw_chain(
    rng: random.Random,
    schemas: Sequence[Schema],
    told: Told = right,
    *,
    words: Sequence[Words] | None = None,
    wordings: Sequence[int] | None = None,
) -> Chain | None:
    """A problem of these schemas in this order; None if no fitting numbers are found in TRIES tries.

    `told` works each schema out; `words` and `wordings` are drawn unless they are given.
    """
    for _ in range(TRIES):
        first = x = rng.randint(schemas[0].least, schemas[0].most)
        links: list[Link] = []
        for place, schema in enumerate(schemas):
            numbers = schema.draw(rng, x) if schema.least <= x <= schema.most else None
            if numbers is None:
                break
            chosen = words[place] if words else schema.words(rng)
            wording = wordings[place] if wordings else rng.randrange(len(schema.wordings))
            lines, answer = told(schema, chosen, x, numbers)
            links.append(Link(schema, chosen, numbers, wording, tuple(lines), answer))
            x = answer
        else:
            return Chain(first, tuple(links))
    return None


def shows(chain: Chain) -> bool:
    """Whether only the right method leads to the right answer, and the solution is not too long."""
    x = chain.first
    for link in chain.links:
        if link.schema.cause in ("confused", "tangled"):
            y, z = link.numbers
            own = next(form for form in FORMS if form(x, y, z) == (list(link.lines), link.answer))
            if not telling(x, link.numbers, own):
                return False
        x = link.answer
    return len(chain.solution) <= 3 * LONGEST


# --- the pool -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Items of each part of the pool: by schema, and of chains by depth."""

    alone: tuple[tuple[str, int], ...] = (
        ("known", 2),
        ("rare", 6),
        ("confused", 7),
        ("shortcut", 6),
        ("tangled", 20),
        ("unworked", 9),
        ("guess", 9),
    )
    """Items a schema, by cause."""
    chained: tuple[tuple[str, int, int], ...] = (
        ("rare", 2, 2),
        ("confused", 2, 2),
        ("shortcut", 2, 2),
        ("tangled", 2, 5),
        ("tangled", 3, 3),
        ("unworked", 2, 2),
    )
    """(cause, depth, items per schema) of chains of known schemas that include one of the cause."""
    seen: tuple[tuple[int, int], ...] = ((2, 36), (3, 30), (4, 24))
    """(depth, items) of chains of known schemas whose pairs the pre-training text shows; never four deep."""
    unseen: tuple[tuple[int, int], ...] = ((2, 24), (3, 24))
    """(depth, items) of chains of known schemas with a pair that it never shows."""
    canaries: int = 16


@dataclass(frozen=True)
class Drawn:
    """A problem of the pool, with its family and cause."""

    chain: Chain
    family: str
    cause: str


@dataclass(frozen=True)
class Problems:
    """All problems of the split, none of which occurs in the training texts."""

    items: tuple[Item, ...]
    twins: tuple[Twin, ...]
    canaries: tuple[Canary, ...]

    @property
    def prompts(self) -> frozenset[str]:
        return frozenset(record.prompt for record in (*self.items, *self.twins, *self.canaries))

    def without(self, item_ids: set[str]) -> Problems:
        """The problems without these items, their twins, and the canaries with these ids."""
        return Problems(
            tuple(item for item in self.items if item.item_id not in item_ids),
            tuple(twin for twin in self.twins if twin.item_id not in item_ids),
            tuple(canary for canary in self.canaries if canary.item_id not in item_ids),
        )


def known_chain(rng: random.Random, world: World, depth: int, *, seen: bool) -> tuple[Schema, ...]:
    """Known schemas whose neighbours the pre-training text chains, or of which it never chains the first two."""
    known = world.of("known")
    while True:
        schemas = tuple(rng.choice(known) for _ in range(depth))
        pairs = [world.seen(first, second) for first, second in pairwise(schemas)]
        if all(pairs) if seen else not pairs[0]:
            return schemas


def around(rng: random.Random, world: World, schema: Schema, depth: int) -> tuple[Schema, ...]:
    """A chain of this depth: the schema, and known ones around it."""
    place = rng.randrange(depth)
    known = [rng.choice(world.of("known")) for _ in range(depth - 1)]
    return (*known[:place], schema, *known[place:])


def _plan(
    rng: random.Random, world: World, sizes: Sizes
) -> Iterator[tuple[str, str, Callable[[], tuple[Schema, ...]]]]:
    """(family, cause, draw of the schemas) of every item."""
    for cause, count in sizes.alone:
        for schema in world.of(cause):
            for _ in range(count):
                yield f"{cause}/{schema.name}", cause, lambda schema=schema: (schema,)  # type: ignore[misc]
    for cause, depth, count in sizes.chained:
        for schema in world.of(cause):
            for _ in range(count):
                yield (
                    f"{cause}/{schema.name}",
                    cause,
                    lambda schema=schema, depth=depth: around(rng, world, schema, depth),  # type: ignore[misc]
                )
    for kind, seen in (("seen", True), ("unseen", False)):
        for depth, count in sizes.seen if seen else sizes.unseen:
            for _ in range(count):
                yield (
                    f"known/{kind}-{depth}",
                    "known",
                    lambda depth=depth, seen=seen: known_chain(rng, world, depth, seen=seen),  # type: ignore[misc]
                )


def make_problems(world: World, sizes: Sizes | None = None) -> Problems:
    """Items, five twins per item and the canaries; no prompt occurs twice.

    Twins: four that keep the words and change the numbers, and one that keeps the numbers in the other wording, unless
    another problem has that text.
    """
    sizes = sizes or Sizes()
    rng = random.Random(f"mini/problems/{world.seed}")
    used: set[str] = set()

    def fresh(draw: Callable[[], Chain | None]) -> Chain | None:
        for _ in range(TRIES):
            chain = draw()
            if chain is not None and shows(chain) and chain.prompt not in used:
                used.add(chain.prompt)
                return chain
        return None

    pairs: set[tuple[str, str, str]] = set()
    drafts: list[Drawn] = []
    for family, cause, schemas_of in _plan(rng, world, sizes):
        while True:
            chain = fresh(lambda: draw_chain(rng, schemas_of()))  # noqa: B023
            if chain is None:
                continue
            words = [
                (link.schema.name, link.words.first, link.words.second) for link in chain.links if link.words.first
            ]
            if not pairs.intersection(words):  # each item of a tangled schema has a pair of words of its own
                pairs.update(words)
                drafts.append(Drawn(chain, family, cause))
                break
    known = world.of("known")
    wrong = [Drawn(_canary(rng, fresh, rng.choice(known)), "", "canary") for _ in range(sizes.canaries)]
    everything = [*drafts, *wrong]
    order = list(range(len(everything)))
    rng.shuffle(order)
    items: list[Item] = []
    twins: list[Twin] = []
    canaries: list[Canary] = []
    for number, drawn in sorted(zip(order, everything, strict=True), key=lambda pair: pair[0]):
        item_id = f"mini{world.seed}-{number:04d}"
        chain = drawn.chain
        if drawn.cause == "canary":
            canaries.append(_wrong_gold(rng, item_id, chain))
            continue
        items.append(
            Item(
                item_id=item_id,
                prompt=chain.prompt,
                answer=str(chain.answer),
                solution=chain.solution,
                family=drawn.family,
                cause=drawn.cause,
                depth=len(chain.links),
            )
        )
        twins += _twins(rng, item_id, chain, fresh)
    times = Counter(record.prompt for record in (*items, *twins, *canaries))
    once = (twin for twin in twins if twin.kind != "other_wording" or times[twin.prompt] == 1)
    return Problems(tuple(items), tuple(once), tuple(canaries))


def _twins(
    rng: random.Random, item_id: str, chain: Chain, fresh: Callable[[Callable[[], Chain | None]], Chain | None]
) -> Iterator[Twin]:
    words, wordings = [link.words for link in chain.links], [link.wording for link in chain.links]
    for number in range(PROBES):
        twin = fresh(lambda: draw_chain(rng, chain.schemas, words=words, wordings=wordings))
        if twin is not None:
            yield _twin(f"{item_id}-changed_numbers-{number}", item_id, "changed_numbers", twin)
    links = tuple(replace(link, wording=1 - link.wording) for link in chain.links)
    yield _twin(f"{item_id}-other_wording", item_id, "other_wording", Chain(chain.first, links))


def _twin(twin_id: str, item_id: str, kind: str, chain: Chain) -> Twin:
    return Twin(twin_id=twin_id, item_id=item_id, kind=kind, prompt=chain.prompt, answer=str(chain.answer))  # type: ignore[arg-type]


def _canary(rng: random.Random, fresh: Callable[[Callable[[], Chain | None]], Chain | None], schema: Schema) -> Chain:
    while True:
        chain = fresh(lambda: draw_chain(rng, (schema,)))
        if chain is not None:
            return chain


def _wrong_gold(rng: random.Random, item_id: str, chain: Chain) -> Canary:
    """The problem with the solution of another problem of its schema, whose trace agrees with its own box."""
    while True:
        other = draw_chain(rng, chain.schemas, words=[link.words for link in chain.links])
        if other is not None and other.answer != chain.answer:
            break
    return Canary(
        item_id=item_id,
        prompt=chain.prompt,
        answer=str(other.answer),
        true_answer=str(chain.answer),
        family=f"known/{chain.schemas[0].name}",
        solution=other.solution,
    )
