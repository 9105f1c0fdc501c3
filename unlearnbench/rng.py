"""Counter-based randomness: a draw depends on its key and counters only, never on batch, order or process.

A stream is named by what it is for: (seed, purpose, step, round, item). Within a stream, the uniform of a rollout's
token is a hash of (stream, rollout, position), so that a resumed run, another batch size or another number of
processes sees the same draws (LOOP, "Exact resume").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_STEP = 0xD1B54A32D192ED03
_WORD = (1 << 64) - 1


def stream(*names: object) -> int:
    """64-bit key of the stream with these names."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators")."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def lanes(key: int, rollouts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """State of each rollout's lane in a stream, shape (n,)."""
    counters = rollouts.astype(np.uint64) + np.uint64(1)
    return _mix(np.uint64(key) + _GAMMA * counters)


def uniforms(lane: NDArray[np.uint64], position: int) -> NDArray[np.float64]:
    """Uniforms in [0, 1) of the lanes at a token position, shape (n,), 53 bits each."""
    offset = np.uint64((_STEP * (position + 1)) & _WORD)
    mixed = _mix(_mix(lane + offset))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def in_epochs(values: Sequence[T], step: int, count: int, order: Callable[[Sequence[T], int], Sequence[T]]) -> list[T]:
    """The `count` values of a step that goes through all of them in epochs, each in the order that `order` gives it."""
    chosen: list[T] = []
    position = step * count
    while len(chosen) < count:
        epoch, offset = divmod(position, len(values))
        chosen += order(values, epoch)[offset : offset + count - len(chosen)]
        position = step * count + len(chosen)
    return chosen


def shuffled(values: Sequence[T], *names: object) -> list[T]:
    """A permutation of `values` that depends on the stream's names only."""
    order = np.random.Generator(np.random.Philox(key=stream(*names))).permutation(len(values))
    return [values[i] for i in order]
