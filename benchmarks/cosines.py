"""Cosines of many vectors: one Gram matrix, and loops over pairs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.machine import now, one_thread
from benchmarks.peaks import Peak, watched
from benchmarks.turns import Side

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.gradient_ways import Vectors

COSINE_ITEMS, DIMENSION = 300, 1_000_000
PAIRS = 200
"""Pairs of vectors that a loop's time is extrapolated from."""


def all_pairs() -> int:
    """Pairs of different vectors."""
    return COSINE_ITEMS * (COSINE_ITEMS - 1) // 2


def many_vectors() -> Vectors:
    """(items, dimension), random: 1.2 GB."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((COSINE_ITEMS, DIMENSION), dtype=np.float32)


def cosine_sides() -> tuple[Side, list[Side]]:
    """The Gram matrix, and loops over pairs: of float32 vectors, and of float16 ones as its script keeps."""
    import numpy as np
    import torch

    from unlearnbench.diagnosis.similarity import gram

    vectors = many_vectors()
    rng = random.Random(1)
    pairs = [tuple(rng.sample(range(COSINE_ITEMS), 2)) for _ in range(PAIRS)]

    def whole(_: int) -> float:
        began = now()
        products = gram(vectors[:, None])
        lengths = np.sqrt(np.diag(products))
        products /= lengths[:, None] * lengths
        return now() - began

    def loop(rows: Tensor) -> Callable[[int], float]:
        def once(_: int) -> float:
            began = now()
            for i, j in pairs:
                torch.nn.functional.cosine_similarity(rows[i].float(), rows[j].float(), dim=0).item()
            return (now() - began) * all_pairs() / PAIRS

        return once

    rows = torch.from_numpy(vectors)
    return Side("the Gram matrix, unlearnbench", whole), [
        Side("a loop over pairs, float32", loop(rows)),
        Side("a loop over pairs, kept in float16", loop(rows.half())),
    ]


def peak_of_gram() -> Peak:
    """In a process of its own."""
    one_thread()
    from unlearnbench.diagnosis.similarity import gram

    vectors = many_vectors()
    with watched() as peak:
        gram(vectors[:, None])
    return peak()
