"""What gradients and their comparison will take, estimated before they start; refused if memory may not suffice.

A pass holds activations, so many bytes per token; each rollout has the keys and values of its prompt's tokens again;
the longest rollout decides the mask of its attention, and the least that a pass can hold. Bytes of each are of
`gradients`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from unlearnbench.diagnosis.options import Options
from unlearnbench.diagnosis.record import Memory, gib
from unlearnbench.errors import RunError
from unlearnbench.io import tables
from unlearnbench.reports.formatting import plural

GIB = 1 << 30
OVERHEAD = 512 << 20
"""Bytes that a process takes for its libraries alone, torch among them."""
MAX_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Tokens of a pass beyond which it gets no faster: on CPU, what the caches hold."""
BLOCK_ITEMS, BLOCK_TOKENS = 8, 8192
"""Items, and their tokens, at most, after which they are marked as finished: what a kill can cost a process."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the items that gradients are taken of: of prompts (items,), of their rollouts (items, rollouts)."""

    prompts: NDArray[np.int64]
    rollouts: NDArray[np.int64]

    def rows(self, parts: int) -> NDArray[np.int64]:
        """(items, parts): a prompt with all rollouts of a part."""
        dealt = self.rollouts.reshape(len(self.prompts), -1, parts)  # in turn, as `gradients` deals them
        return np.asarray(self.prompts[:, None] + dealt.sum(1))

    def blocks(self, parts: int) -> list[tuple[int, int]]:
        """Runs of items that are computed together, whatever the memory and the number of processes."""
        return _blocks((self.prompts * parts + self.rollouts.sum(1)).tolist())


def lengths(used: Path) -> Lengths:
    """Of the items of used.parquet."""
    table = tables.read_parquet(used).select(["prompt_ids", "responses"])
    rollouts = pc.list_value_length(pc.list_flatten(table["responses"])).to_numpy()
    return Lengths(
        pc.list_value_length(table["prompt_ids"]).to_numpy().astype(np.int64),
        rollouts.astype(np.int64).reshape(table.num_rows, -1),
    )


@dataclass(frozen=True)
class Planner:
    """How many processes there may be, and how many tokens per pass, within so much memory of all processes together.

    `facts` are those of `item_vectors.described`; `workers` are the processes asked for, None for one per core.
    """

    max_memory: int
    workers: int | None
    options: Options
    facts: Mapping[str, Any]

    @property
    def held(self) -> int:
        """Bytes of a process that holds the policy."""
        return OVERHEAD + int(self.facts["weights"])

    def processes(self, pieces: int, each: int, what: str) -> int:
        """Number of processes of this size beside this one: as many as requested, else one per core, if they fit.

        One where the policy is on an accelerator. Raises RunError where not even these may be started.
        """
        wanted = self.workers or (1 if self.facts["device"] != "cpu" else os.cpu_count() or 1)
        if self.workers is None:
            wanted = min(wanted, (self.max_memory - OVERHEAD) // each)
        workers = int(max(1, min(wanted, pieces)))
        if (needed := beside(workers) + workers * each) > self.max_memory:
            fewer = "; raise it" if workers == 1 else "; raise it, or choose fewer --workers"
            raise RunError(
                f"{what} takes {plural(workers, 'process', 'processes')} about {gib(needed)} in all, beyond the "
                f"{gib(self.max_memory)} of --max-memory{fewer}"
            )
        return workers

    def gradients(self, found: Lengths, work: Path) -> Memory:
        """The plan of passes, stored vectors and their comparison. Raises RunError where it is more than there may be.

        A part whose rollouts are more than a pass may hold is taken in several passes, down to one rollout each.
        """
        parts, facts = self.options.parts, self.facts
        items = len(found.prompts)
        rows = found.rows(parts)
        vectors = items * parts * facts["dimension"] * 4
        self._check_disk(items, vectors, work)
        longest = int((found.prompts[:, None] + found.rollouts).max())
        held, fixed = self.held, int(facts["fixed"] + facts["masked"] * longest)
        useful = int(rows.max())
        if self.options.parameters == "lora":
            useful = max(useful, MAX_TOKENS.get(facts["device"], MAX_TOKENS["cuda"]))
        else:  # one row per pass
            held += 2 * 4 * facts["dimension"]
        a_token = self._a_token(found, rows)
        least = held + fixed + int(longest * a_token)
        workers = self.processes(items, least, f"the longest rollout, {longest:,} tokens with its prompt,")
        affordable = ((self.max_memory - beside(workers)) / workers - held - fixed) / a_token
        tokens = max(longest, min(useful, int(affordable)))
        per_pass = fixed + int(tokens * a_token)
        # Inner products with one adapter each, their sum, and two arrays of that size while they are worked on.
        compared = 8 * (items * parts) ** 2 * (self.options.adapter_seeds + 3)
        if OVERHEAD + compared > self.max_memory:
            raise RunError(
                f"comparing {items} items in {parts} parts takes {gib(OVERHEAD + compared)}, more than --max-memory; "
                "raise it, or choose fewer --items-per-group or --parts"
            )
        return Memory(
            total=max(beside(workers) + workers * (held + per_pass), OVERHEAD + compared),
            weights=facts["weights"],
            per_pass=per_pass,
            vectors=vectors,
            tokens_per_pass=tokens,
            longest=longest,
            divided=int((rows > tokens).sum()),
            workers=workers,
        )

    def _a_token(self, found: Lengths, rows: NDArray[np.int64]) -> float:
        """Bytes of a token in a pass, with its share of the copies of prompts and of vectors, at most."""
        copied = found.prompts[:, None] * (found.rollouts.shape[1] // self.options.parts)
        vector = 4 * self.facts["dimension"] if self.options.parameters == "lora" else 0
        copies = float((copied / rows).max()) * self.facts["copied"]
        a_token: float = self.facts["token"] + copies + vector / int(rows.min())
        return a_token

    def _check_disk(self, items: int, vectors: int, work: Path) -> None:
        free = shutil.disk_usage(work).free
        have = sum(path.stat().st_blocks * 512 for path in work.glob("vectors-*.f32"))
        if vectors > free + have:
            raise RunError(
                f"the vectors of {items} items take {gib(vectors)} in {work}, where {gib(free)} are free; "
                "choose fewer items, or parameters lora"
            )


def beside(workers: int) -> int:
    """Bytes of this process where others do the work."""
    return OVERHEAD if workers > 1 else 0


def _blocks(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of items that are computed together, whatever the memory and the number of processes."""
    blocks: list[tuple[int, int]] = []
    start, held = 0, 0
    for place, length in enumerate(lengths):
        if place - start == BLOCK_ITEMS or (place > start and held + length > BLOCK_TOKENS):
            blocks.append((start, place))
            start, held = place, 0
        held += length
    if lengths:
        blocks.append((start, len(lengths)))
    return blocks
