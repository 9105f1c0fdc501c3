"""What the policies of `mini` are trained on: the pre-training text, and the mid-training of the positive control."""

from __future__ import annotations

import random

from recipes.mini.problems import around, draw_chain, known_chain
from recipes.mini.schema import Numbers, Schema, Words, Working
from recipes.mini.world import World

Example = tuple[str, str]
SHARES = {"rare": 0.003, "confused": 0.04, "shortcut": 0.04, "tangled": 0.05, "unworked": 0.045, "guess": 0.012}
"""Share of the pre-training texts with a schema of each cause; the others have known schemas alone."""
CHAINED = 0.2
"""Share of those in which the schema is part of a chain of two."""
DEPTHS = (0.45, 0.33, 0.22)
"""Shares of known schemas alone, in twos and in threes."""
TAUGHT = {"known": 0.2, "rare": 0.1, "confused": 0.1, "shortcut": 0.1, "tangled": 0.3, "unworked": 0.2}
"""Shares of the positive control's mid-training."""


def _cause(rng: random.Random, shares: dict[str, float]) -> str:
    share = rng.random()
    for cause, part in shares.items():
        share -= part
        if share < 0:
            return cause
    return "known"


def _depth(rng: random.Random) -> int:
    return rng.choices((1, 2, 3), DEPTHS)[0]


def base_example(rng: random.Random, world: World, held_out: frozenset[str]) -> Example:
    """One (prompt, completion) of the base policy's pre-training; never a prompt of `held_out`."""

    def told(schema: Schema, words: Words, x: int, numbers: Numbers) -> Working:
        return schema.shown(rng, words, x, numbers)

    while True:
        cause = _cause(rng, SHARES)
        if cause == "known":
            depth = _depth(rng)
            schemas = known_chain(rng, world, depth, seen=True)
        else:
            odd = world.of(cause)
            schema = rng.choices(odd, [one.weight for one in odd])[0]
            schemas = around(rng, world, schema, 2) if rng.random() < CHAINED else (schema,)
        chain = draw_chain(rng, schemas, told)
        if chain is not None and chain.prompt not in held_out:
            return chain.prompt, chain.solution


def taught_example(rng: random.Random, world: World, held_out: frozenset[str]) -> Example:
    """One (prompt, completion) of the positive control's mid-training: every schema but guesses worked out right."""
    while True:
        cause = _cause(rng, TAUGHT)
        if cause == "known":
            schemas = known_chain(rng, world, _depth(rng), seen=True)
        else:
            schema = rng.choice(world.of(cause))
            schemas = around(rng, world, schema, 2) if rng.random() < CHAINED else (schema,)
        chain = draw_chain(rng, schemas)
        if chain is not None and chain.prompt not in held_out:
            return chain.prompt, chain.solution
