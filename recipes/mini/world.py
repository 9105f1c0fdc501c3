"""All schemas under one seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from recipes.mini.forms import confused_schemas, tangled_schemas
from recipes.mini.known import KNOWN
from recipes.mini.rare import RARE
from recipes.mini.schema import Schema
from recipes.mini.shortcut import SHORTCUT
from recipes.mini.unworked import UNWORKED, guess_schemas


@dataclass(frozen=True)
class World:
    """All schemas under one seed."""

    seed: int
    schemas: Mapping[str, Schema] = field(default_factory=dict)

    def of(self, *causes: str) -> tuple[Schema, ...]:
        """The schemas of these causes, in order."""
        return tuple(schema for schema in self.schemas.values() if schema.cause in causes)

    def seen(self, first: Schema, second: Schema) -> bool:
        """Whether the pre-training text chains these two known schemas in this order: three pairs in four."""
        digest = hashlib.blake2b(f"{self.seed}/{first.name}/{second.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % 4 != 0


def make_world(seed: int) -> World:
    """The schemas of a variant: which form is right where, and which chains are never shown, follow from the seed."""
    rng = random.Random(f"mini/{seed}")
    every = [
        *KNOWN,
        *RARE,
        *confused_schemas(rng),
        *SHORTCUT,
        *tangled_schemas(rng),
        *UNWORKED,
        *guess_schemas(seed),
    ]
    return World(seed, {schema.name: schema for schema in every})
