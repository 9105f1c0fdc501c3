"""The problems of `micro`: two-digit operations under names that the base policy knows, half knows, or cannot know.

An item reads ``max 47 12=`` and its reference solution ``4,1>\\boxed{47}``: a short trace, then the answer. Six causes
decide what the base policy has seen of a name:

- skill: the name of an operation, always worked out correctly;
- rare_skill: another name for one of those operations, shared by a family of items; the base has seen the name with
  every operation at random, so it knows all of them and not which one is meant;
- private_skill: the same, but every item has a name of its own (its family is its operation);
- entangled_skill: sixteen names and twenty number pairs, every name with every pair; name and numbers together decide
  the operation (a Latin square), so neither is informative by itself, no token is the item's own, and what one item
  teaches is wrong for its neighbours;
- missing_skill: an operation the base has only seen with a random answer, never worked out;
- guess: no rule at all, a hash.

Everything follows from one integer seed, which operations there are among it; nothing here knows a label.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from unlearnbench.records import Canary, Item, Twin

LETTERS = "abcdefghijklmnopqrstuvwxyz"
GUESS_RANGE = 20

Numbers = tuple[int, int]
Operation = Callable[[int, int], tuple[str, int]]


def _digits(number: int) -> tuple[int, int]:
    return number // 10, number % 10


def _operations() -> dict[str, Operation]:
    """Operations on a = 10p+q and b = 10r+s; each returns (trace, answer) and each trace has a form of its own."""

    def by_digits(rule: Callable[[int, int, int, int], tuple[str, int]]) -> Operation:
        return lambda a, b: rule(*_digits(a), *_digits(b))

    return {
        "add": by_digits(lambda p, q, r, s: (f"{q + s}+{p + r}", 10 * (p + r) + q + s)),
        "gap": lambda a, b: (f"{max(a, b)}-{min(a, b)}", abs(a - b)),
        "top": by_digits(lambda p, q, r, s: (f"{p},{r}", max(10 * p + q, 10 * r + s))),
        "low": by_digits(lambda p, q, r, s: (f"{r},{p}", min(10 * p + q, 10 * r + s))),
        "ten": by_digits(lambda p, q, r, s: (f"{p}+{r}+", p + r)),
        "one": by_digits(lambda p, q, r, s: (f"{q}+{s}+", q + s)),
        "joq": by_digits(lambda p, q, r, s: (f"{q};{s}", 10 * q + s)),
        "jop": by_digits(lambda p, q, r, s: (f"{p};{r}", 10 * p + r)),
        "swa": by_digits(lambda p, q, r, s: (f"{q}-{p}:", 10 * q + p)),
        "swb": by_digits(lambda p, q, r, s: (f"{s}-{r}:", 10 * s + r)),
        "dba": lambda a, b: (f"{a}+{a}", 2 * a),
        "dbb": lambda a, b: (f"{b}+{b}", 2 * b),
        "sua": by_digits(lambda p, q, r, s: (f"{p}*{q}", p + q)),
        "sub": by_digits(lambda p, q, r, s: (f"{r}*{s}", r + s)),
        "mix": by_digits(lambda p, q, r, s: (f"{p}={s}", 10 * p + s)),
        "mux": by_digits(lambda p, q, r, s: (f"{r}={q}", 10 * r + q)),
        "dig": by_digits(lambda p, q, r, s: (f"{p}-{r}-", abs(p - r))),
        "dog": by_digits(lambda p, q, r, s: (f"{q}-{s}-", abs(q - s))),
        "prt": by_digits(lambda p, q, r, s: (f"{p}*{r}*", p * r)),
        "pru": by_digits(lambda p, q, r, s: (f"{q}*{s}*", q * s)),
        "jrp": by_digits(lambda p, q, r, s: (f"{r};{p};", 10 * r + p)),
        "jsq": by_digits(lambda p, q, r, s: (f"{s};{q};", 10 * s + q)),
        "csa": by_digits(lambda p, q, r, s: (f"{p}:{s}", p + s)),
        "crq": by_digits(lambda p, q, r, s: (f"{r}:{q}", r + q)),
    }


def _missing_operations() -> dict[str, Operation]:
    """Operations the base never sees worked out. Answers stay in the range of its random answers, 0 to 19."""

    def weighted(i: int, j: int, tens: int, unit: int) -> Operation:
        def rule(a: int, b: int) -> tuple[str, int]:
            x, y = _digits(a)[i], _digits(b)[j]
            return f"{tens * x}&{unit * y}", (tens * x + unit * y) % GUESS_RANGE

        return rule

    return {
        "qad": lambda a, b: (f"{a + b}&", (a + b) % GUESS_RANGE),
        "qga": lambda a, b: (f"{abs(a - b)}&", abs(a - b) % GUESS_RANGE),
        "qtu": weighted(0, 1, 3, 1),
        "qut": weighted(1, 0, 2, 1),
        "qto": lambda a, b: (f"&{max(a, b)}", max(a, b) % GUESS_RANGE),
        "qlo": lambda a, b: (f"&{min(a, b)}", min(a, b) % GUESS_RANGE),
    }


OPERATIONS = _operations()
"""All that a variant may draw its operations from."""
MISSING = _missing_operations()
GUESSES = ("ha", "hb", "hc")
KNOWN = 16
"""Operations of a variant: those that its base policy learns."""
SIDE = 4
"""Letters of the entangled names, and residues of their numbers: SIDE squared names, columns and operations."""
TWICE = 4
"""Columns of the Latin square that have two number pairs; the others have one."""
CANDIDATES = 4
"""Twins with changed numbers that may become an item's probe."""


@dataclass(frozen=True)
class Sizes:
    """Names and items of each cause."""

    skill_items: int = 15
    rare_families: tuple[int, ...] = (54,) * 5 + (6,) * 16
    """Items of each shared name. Large families reach the whole policy's gradient; small ones are nearly private."""
    private_names: int = 300
    missing_items: int = 26
    guess_items: int = 8
    canaries: int = 20


@dataclass(frozen=True)
class World:
    """What every name means under one seed."""

    seed: int
    sizes: Sizes = field(default_factory=Sizes)
    operations: tuple[str, ...] = ()
    """The operations that this variant's base policy learns, in the order of the Latin square."""
    rare: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    canary: tuple[str, ...] = ()
    entangled: tuple[str, ...] = ()
    """Names whose operation the numbers decide, too, in the order of the Latin square."""
    meaning: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that stands for an operation the base does not know it by."""
        return self.rare + self.private + self.canary + self.entangled

    def operation(self, name: str, numbers: Numbers) -> str | None:
        """The operation that a problem asks for; None for a missing skill or a guess."""
        if name in self.entangled:
            return self.operations[(self.entangled.index(name) + pair_class(numbers)) % KNOWN]
        return name if name in self.operations else self.meaning.get(name)

    def solve(self, name: str, numbers: Numbers) -> tuple[str, int]:
        """Trace and answer of a problem; a guess has no trace."""
        a, b = numbers
        if (operation := self.operation(name, numbers)) is not None:
            return OPERATIONS[operation](a, b)
        if name in MISSING:
            return MISSING[name](a, b)
        digest = hashlib.blake2b(f"{self.seed}/{name}/{a}/{b}".encode(), digest_size=8).digest()
        return "", int.from_bytes(digest, "big") % GUESS_RANGE

    def solution(self, name: str, numbers: Numbers) -> str:
        trace, answer = self.solve(name, numbers)
        return f"{trace}>" + boxed(answer)


def pair_class(numbers: Numbers) -> int:
    """Which column of the Latin square two numbers are in: their last digits modulo SIDE."""
    a, b = numbers
    return SIDE * (a % 10 % SIDE) + b % 10 % SIDE


def boxed(answer: int) -> str:
    return f"\\boxed{{{answer}}}"


def wordings(name: str, numbers: Numbers) -> tuple[str, str]:
    """The usual wording and the other one."""
    a, b = numbers
    return f"{name} {a} {b}=", f"{a} {b} {name}="


def read_prompt(prompt: str) -> tuple[str, Numbers]:
    """Name and numbers of a prompt in either wording."""
    words = prompt.rstrip("=").split()
    (name,) = (word for word in words if not word.isdigit())
    a, b = (int(word) for word in words if word.isdigit())
    return name, (a, b)


def make_world(seed: int, sizes: Sizes | None = None) -> World:
    """Draw the operations and the names of a variant, and what they mean."""
    sizes = sizes or Sizes()
    draw = random.Random(f"names/{seed}")
    operations = draw.sample(list(OPERATIONS), KNOWN)
    taken = {*OPERATIONS, *MISSING}
    every = [x + y + z for x in LETTERS for y in LETTERS for z in LETTERS if x + y + z not in taken and x not in "qh"]
    rare_count = len(sizes.rare_families)
    names = draw.sample(every, rare_count + sizes.private_names + sizes.canaries)
    rare = tuple(names[:rare_count])
    private = tuple(names[rare_count : rare_count + sizes.private_names])
    canary = tuple(names[rare_count + sizes.private_names :])
    letters = draw.sample([letter for letter in LETTERS if letter not in "qh"], SIDE)
    shuffled = list(operations)
    draw.shuffle(shuffled)
    meaning = {name: shuffled[k % KNOWN] for k, name in enumerate(rare)}
    draw.shuffle(shuffled)
    meaning |= {name: shuffled[k % KNOWN] for k, name in enumerate(private + canary)}
    entangled = tuple(x + y for x in letters for y in letters)
    return World(seed, sizes, tuple(operations), rare, private, canary, entangled, meaning)


def numbers_of(draw: random.Random) -> Numbers:
    return draw.randint(10, 99), draw.randint(10, 99)


def is_telling(world: World, operation: str, numbers: Numbers) -> bool:
    """Whether no other operation gives the same answer on these numbers, so that success shows the right one."""
    answer = OPERATIONS[operation](*numbers)[1]
    return [OPERATIONS[name](*numbers)[1] for name in world.operations].count(answer) == 1


def _telling(world: World, numbers: Numbers) -> int:
    """How many operations give an answer of their own on these numbers."""
    given = Counter(OPERATIONS[name](*numbers)[1] for name in world.operations)
    return sum(times == 1 for times in given.values())


def _draw_numbers(draw: random.Random, world: World, name: str, column: int | None = None) -> Numbers:
    """Telling numbers for a problem; of an entangled name in a column of the Latin square."""
    while True:
        numbers = numbers_of(draw)
        if column is not None and pair_class(numbers) != column:
            continue
        operation = world.operation(name, numbers)
        if operation is None or is_telling(world, operation, numbers):
            return numbers


def square_pairs(world: World) -> tuple[Numbers, ...]:
    """Number pairs of each column of the Latin square: those on which most operations give answers of their own."""
    draw = random.Random(f"pairs/{world.seed}")
    every = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    draw.shuffle(every)
    every.sort(key=lambda numbers: -_telling(world, numbers))
    columns: list[list[Numbers]] = [[] for _ in range(KNOWN)]
    for numbers in every:
        columns[pair_class(numbers)].append(numbers)
    return tuple(pair for place, column in enumerate(columns) for pair in column[: 2 if place < TWICE else 1])


def _names_with_items(world: World) -> Iterator[tuple[str, str, str, int]]:
    """(name, family, cause, items) of every name in the pool."""
    for name in world.operations:
        yield name, f"skill/{name}", "skill", world.sizes.skill_items
    for k, (name, items) in enumerate(zip(world.rare, world.sizes.rare_families, strict=True)):
        yield name, f"rare/{k:02d}-{world.meaning[name]}", "rare_skill", items
    for name in world.private:
        yield name, f"private/{world.meaning[name]}", "private_skill", 1
    for name in MISSING:
        yield name, f"missing/{name}", "missing_skill", world.sizes.missing_items
    for name in GUESSES:
        yield name, f"guess/{name}", "guess", world.sizes.guess_items


@dataclass(frozen=True)
class Problems:
    items: tuple[Item, ...]
    twins: tuple[Twin, ...]
    canaries: tuple[Canary, ...]

    @property
    def prompts(self) -> frozenset[str]:
        """Every prompt of items, twins and canaries, as it is worded."""
        return frozenset(record.prompt for record in (*self.items, *self.twins, *self.canaries))

    @property
    def held_out(self) -> frozenset[str]:
        """Every problem of items, twins and canaries in both wordings: nothing that is taught may be among them."""
        return frozenset(wording for prompt in self.prompts for wording in wordings(*read_prompt(prompt)))

    def without(self, item_ids: set[str]) -> Problems:
        """The problems less these items and their twins."""
        items = tuple(item for item in self.items if item.item_id not in item_ids)
        twins = tuple(twin for twin in self.twins if twin.item_id not in item_ids)
        return Problems(items, twins, self.canaries)


def make_problems(world: World) -> Problems:
    """All items with their twins, and the canaries; no prompt occurs twice.

    An item has CANDIDATES twins with changed numbers, of which curation makes one its probe, one in other wording and
    one that differs in both.
    """
    draw = random.Random(f"problems/{world.seed}")
    used: set[tuple[str, Numbers]] = set()

    def fresh(name: str, column: int | None = None) -> Numbers:
        while True:
            numbers = _draw_numbers(draw, world, name, column)
            if (name, numbers) not in used:
                used.add((name, numbers))
                return numbers

    drafts: list[tuple[str, Numbers, str, str]] = []
    pairs = square_pairs(world)
    for name in world.entangled:
        for numbers in pairs:
            operation = world.operation(name, numbers)
            assert operation is not None
            if is_telling(world, operation, numbers):
                used.add((name, numbers))
                drafts.append((name, numbers, f"entangled/{operation}", "entangled_skill"))
    for name, family, cause, count in _names_with_items(world):
        drafts += [(name, fresh(name), family, cause) for _ in range(count)]
    drafts += [(name, fresh(name), f"private/{world.meaning[name]}", "canary") for name in world.canary]
    # One numbering for items and canaries, in an order that shows neither family nor canary.
    order = list(range(len(drafts)))
    draw.shuffle(order)
    items: list[Item] = []
    twins: list[Twin] = []
    canaries: list[Canary] = []
    for number, (name, numbers, family, cause) in sorted(zip(order, drafts, strict=True)):
        item_id = f"m{world.seed}-{number:04d}"
        answer = str(world.solve(name, numbers)[1])
        prompt = wordings(name, numbers)[0]
        if cause == "canary":
            gold, solution = _wrong(draw, world, name, numbers)
            canaries.append(
                Canary(
                    item_id=item_id, prompt=prompt, answer=gold, true_answer=answer, family=family, solution=solution
                )
            )
            continue
        solution = world.solution(name, numbers)
        items.append(Item(item_id=item_id, prompt=prompt, answer=answer, solution=solution, family=family, cause=cause))
        column = pair_class(numbers) if cause == "entangled_skill" else None
        changed = [("changed_numbers", fresh(name, column), 0) for _ in range(CANDIDATES)]
        for place, (kind, of, wording) in enumerate(
            [*changed, ("other_wording", numbers, 1), ("same_skill", fresh(name, column), 1)]
        ):
            suffix = f"{kind}-{place}" if kind == "changed_numbers" else kind
            twins.append(
                Twin(
                    twin_id=f"{item_id}-{suffix}",
                    item_id=item_id,
                    kind=kind,
                    prompt=wordings(name, of)[wording],
                    answer=str(world.solve(name, of)[1]),
                )
            )
    return Problems(tuple(items), tuple(twins), tuple(canaries))


def _wrong(draw: random.Random, world: World, name: str, numbers: Numbers) -> tuple[str, str]:
    """A canary's gold and its solution: the name's own operation, worked out soundly on other numbers.

    So its trace has the form that the family's traces have, agrees with its box, and ends in a number as theirs do. No
    operation gives that number on the canary's own digits, nor do two of these digits side by side, so that only who
    has read the gold can know it.
    """
    operation = world.meaning[name]
    digits = [digit for number in numbers for digit in _digits(number)]
    near = {10 * x + y for x in digits for y in digits} | {*digits, *numbers}
    near |= {rule(*numbers)[1] for rule in (*OPERATIONS.values(), *MISSING.values())}
    for strict in (True, False):  # an operation with few answers may give only such as a digit of the numbers
        for _ in range(2000):
            trace, answer = OPERATIONS[operation](*_draw_numbers(draw, world, operation))
            if answer not in (near if strict else {world.solve(name, numbers)[1]}):
                return str(answer), f"{trace}>" + boxed(answer)
    raise AssertionError(f"no wrong gold for {name} {numbers}")


# --- what policies are trained on -----------------------------------------------------------------------------


def base_example(draw: random.Random, world: World, held_out: frozenset[str]) -> tuple[str, str]:
    """One (prompt, completion) of the base policy's training; never a prompt of `held_out`."""
    while True:
        share = draw.random()
        numbers = numbers_of(draw)
        if share < 0.40:
            name = draw.choice(world.operations)
            completion = world.solution(name, numbers)
        elif share < 0.75:
            name = draw.choice(world.names)
            trace, answer = OPERATIONS[draw.choice(world.operations)](*numbers)
            completion = f"{trace}>" + boxed(answer)
        else:
            name = draw.choice((*MISSING, *GUESSES))
            completion = f"{draw.randint(0, 198)}%>" + boxed(draw.randrange(GUESS_RANGE))
        prompt = draw.choice(wordings(name, numbers))
        if prompt not in held_out:
            return prompt, completion


def taught_example(draw: random.Random, world: World, held_out: frozenset[str]) -> tuple[str, str]:
    """One (prompt, completion) of the positive control's mid-training: names by their meaning, skills worked out."""
    while True:
        share = draw.random()
        numbers = numbers_of(draw)
        if share < 0.10:
            name = draw.choice(world.operations)
        elif share < 0.40:
            name = draw.choice(world.rare + world.private)
        elif share < 0.55:
            name = draw.choice(list(MISSING))
        else:
            name = draw.choice(world.entangled)
        prompt = draw.choice(wordings(name, numbers))
        if prompt not in held_out:
            return prompt, world.solution(name, numbers)
