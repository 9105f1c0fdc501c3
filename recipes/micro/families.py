"""The problems of `micro`: two-digit operations under names that the base policy knows, half knows, or cannot know.

An item reads ``max 47 12=`` and its reference solution ``4,1>\\boxed{47}``: a short trace, then the answer. Five causes
decide what the base policy has seen of a name (DESIGN, "The splits"):

- skill: the name of an operation, always worked out correctly;
- rare_skill: another name for one of those operations, shared by a family of items; the base has seen the name with
  every operation at random, so it knows all of them and not which one is meant;
- private_skill: the same, but every item has a name of its own (its family is its operation);
- missing_skill: an operation the base has only seen with a random answer, never worked out;
- guess: no rule at all, a hash.

Everything follows from one integer seed; nothing here knows a label.
"""

from __future__ import annotations

import hashlib
import random
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
MISSING = _missing_operations()
GUESSES = ("ha", "hb", "hc")


@dataclass(frozen=True)
class Sizes:
    """Names and items of each cause."""

    skill_items: int = 14
    rare_families: tuple[int, ...] = (48,) * 6 + (6,) * 16
    """Items of each shared name. Large families reach the whole policy's gradient; small ones are nearly private."""
    private_names: int = 400
    missing_items: int = 40
    guess_items: int = 18
    canaries: int = 20


@dataclass(frozen=True)
class World:
    """What every name means under one seed."""

    seed: int
    sizes: Sizes = field(default_factory=Sizes)
    rare: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    canary: tuple[str, ...] = ()
    meaning: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that stands for an operation the base does not know it by."""
        return self.rare + self.private + self.canary

    def solve(self, name: str, numbers: Numbers) -> tuple[str, int]:
        """Trace and answer of a problem; a guess has no trace."""
        a, b = numbers
        if name in OPERATIONS:
            return OPERATIONS[name](a, b)
        if name in self.meaning:
            return OPERATIONS[self.meaning[name]](a, b)
        if name in MISSING:
            return MISSING[name](a, b)
        digest = hashlib.blake2b(f"{self.seed}/{name}/{a}/{b}".encode(), digest_size=8).digest()
        return "", int.from_bytes(digest, "big") % GUESS_RANGE

    def solution(self, name: str, numbers: Numbers) -> str:
        trace, answer = self.solve(name, numbers)
        return f"{trace}>" + boxed(answer)


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
    """Draw the names of a variant and what they mean."""
    sizes = sizes or Sizes()
    draw = random.Random(f"names/{seed}")
    taken = {*OPERATIONS, *MISSING}
    every = [x + y + z for x in LETTERS for y in LETTERS for z in LETTERS if x + y + z not in taken and x not in "qh"]
    rare_count = len(sizes.rare_families)
    names = draw.sample(every, rare_count + sizes.private_names + sizes.canaries)
    rare = tuple(names[:rare_count])
    private = tuple(names[rare_count : rare_count + sizes.private_names])
    canary = tuple(names[rare_count + sizes.private_names :])
    operations = list(OPERATIONS)
    draw.shuffle(operations)
    meaning = {name: operations[k % len(operations)] for k, name in enumerate(rare)}
    draw.shuffle(operations)
    meaning |= {name: operations[k % len(operations)] for k, name in enumerate(private + canary)}
    return World(seed, sizes, rare, private, canary, meaning)


def numbers_of(draw: random.Random) -> Numbers:
    return draw.randint(10, 99), draw.randint(10, 99)


def _telling(draw: random.Random, operation: str) -> Numbers:
    """Numbers on which no other operation gives the same answer, so that success shows the right operation."""
    while True:
        numbers = numbers_of(draw)
        answers = [rule(*numbers)[1] for rule in OPERATIONS.values()]
        if answers.count(OPERATIONS[operation](*numbers)[1]) == 1:
            return numbers


def _draw_numbers(draw: random.Random, world: World, name: str) -> Numbers:
    operation = name if name in OPERATIONS else world.meaning.get(name)
    return _telling(draw, operation) if operation else numbers_of(draw)


def _names_with_items(world: World) -> Iterator[tuple[str, str, str, int]]:
    """(name, family, cause, items) of every name in the pool."""
    for name in OPERATIONS:
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
    """All items, three twins an item (one of each kind) and the canaries; no prompt occurs twice."""
    draw = random.Random(f"problems/{world.seed}")
    used: set[tuple[str, Numbers]] = set()

    def fresh(name: str) -> Numbers:
        while True:
            numbers = _draw_numbers(draw, world, name)
            if (name, numbers) not in used:
                used.add((name, numbers))
                return numbers

    drafts: list[tuple[str, Numbers, str, str]] = []
    for name, family, cause, count in _names_with_items(world):
        drafts += [(name, fresh(name), family, cause) for _ in range(count)]
    wrong: list[tuple[str, Numbers, str, str]] = [
        (name, fresh(name), f"private/{world.meaning[name]}", "canary") for name in world.canary
    ]
    # One numbering for items and canaries, in an order that shows neither family nor canary.
    everything = drafts + wrong
    order = list(range(len(everything)))
    draw.shuffle(order)
    items: list[Item] = []
    twins: list[Twin] = []
    canaries: list[Canary] = []
    for number, (name, numbers, family, cause) in sorted(zip(order, everything, strict=True)):
        item_id = f"m{world.seed}-{number:04d}"
        usual, other = wordings(name, numbers)
        true_answer = str(world.solve(name, numbers)[1])
        if cause == "canary":
            gold = _impossible(draw, numbers)
            trace, _ = world.solve(name, numbers)
            canaries.append(
                Canary(
                    item_id=item_id,
                    prompt=usual,
                    answer=gold,
                    true_answer=true_answer,
                    family=family,
                    solution=f"{trace}>" + boxed(int(gold)),
                )
            )
            continue
        items.append(
            Item(
                item_id=item_id,
                prompt=usual,
                answer=true_answer,
                solution=world.solution(name, numbers),
                family=family,
                cause=cause,
            )
        )
        changed, far = fresh(name), fresh(name)
        for kind, prompt, of in (
            ("changed_numbers", wordings(name, changed)[0], changed),
            ("other_wording", other, numbers),
            ("same_skill", wordings(name, far)[1], far),
        ):
            twins.append(
                Twin(
                    twin_id=f"{item_id}-{kind}",
                    item_id=item_id,
                    kind=kind,
                    prompt=prompt,
                    answer=str(world.solve(name, of)[1]),
                )
            )
    return Problems(tuple(items), tuple(twins), tuple(canaries))


def _impossible(draw: random.Random, numbers: Numbers) -> str:
    """A gold that no policy comes upon: only who reads it can learn it.

    Above every sum of two-digit numbers. One of two digits will not do, even if no operation gives it: a name that
    leads the policy to mix the digits of its numbers wrongly once produced such a gold, and GRPO learned it.
    """
    possible = {rule(*numbers)[1] for rule in OPERATIONS.values()} | set(range(GUESS_RANGE))
    return str(200 + draw.choice([value for value in range(20, 199) if value not in possible]))


# --- what policies are trained on -----------------------------------------------------------------------------


def base_example(draw: random.Random, world: World, held_out: frozenset[str]) -> tuple[str, str]:
    """One (prompt, completion) of the base policy's training; never a prompt of `held_out`."""
    while True:
        share = draw.random()
        numbers = numbers_of(draw)
        if share < 0.40:
            name = draw.choice(list(OPERATIONS))
            completion = world.solution(name, numbers)
        elif share < 0.75:
            name = draw.choice(world.names)
            trace, answer = OPERATIONS[draw.choice(list(OPERATIONS))](*numbers)
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
        if share < 0.15:
            name = draw.choice(list(OPERATIONS))
        elif share < 0.70:
            name = draw.choice(world.rare + world.private)
        else:
            name = draw.choice(list(MISSING))
        prompt = draw.choice(wordings(name, numbers))
        if prompt not in held_out:
            return prompt, world.solution(name, numbers)
