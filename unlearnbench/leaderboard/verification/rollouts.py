"""Rollouts of a bundle as arrays: which there must be, those claimed, and what the policy can have written of them.

What must be there follows from the split and the result: every item, twin of an unlearnable item and canary (and every
item before training, where that began from another policy than the base), in every seed, each sample once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.harness.policy_ref import base_folder
from unlearnbench.io import tables
from unlearnbench.io.untrusted import texts_of
from unlearnbench.leaderboard.bundles.bundle import Bundle
from unlearnbench.leaderboard.bundles.tables import Sizes
from unlearnbench.policies.decoder import Decoder
from unlearnbench.scoring.rates import Counts, Flags
from unlearnbench.splits import Split

AT_ONCE = 50_000
"""Rollouts that are decoded at a time."""


def problems_of(split: Split) -> dict[str, dict[str, str]]:
    """Gold answer of every problem that is evaluated, by phase and id."""
    phases = ("eval", "twin", "canary")
    found = {phase: {name: gold for name, _, gold in split.problems(phase)} for phase in phases}
    return {phase: golds for phase, golds in found.items() if golds}


@dataclass(frozen=True)
class Asked:
    """What a bundle must have rollouts of: every problem in every seed, `samples` times."""

    problems: Sequence[tuple[str, str]]
    """Phase and id."""
    golds: Sequence[str]
    seeds: Sequence[int]
    samples: int

    @classmethod
    def of(cls, bundle: Bundle, split: Split) -> Asked:
        golds = problems_of(split)
        if any(seed.method.start != "base" for seed in bundle.seeds.values()):
            golds["start"] = golds["eval"]
        problems = [(phase, name) for phase, of_phase in golds.items() for name in of_phase]
        answers = [gold for of_phase in golds.values() for gold in of_phase.values()]
        return cls(problems, answers, list(bundle.result.seeds), bundle.result.samples)

    @property
    def cells(self) -> list[tuple[int, str, str]]:
        """Seed, phase and id of each cell: the problems of the first seed, then those of the next."""
        return [(seed, phase, name) for seed in self.seeds for phase, name in self.problems]

    @property
    def problem(self) -> Counts:
        """The place of each cell's problem, shape (cells,)."""
        return np.tile(np.arange(len(self.problems)), len(self.seeds))

    def sizes(self, max_tokens: int, longest: int) -> Sizes:
        """What the bundle's tables may hold, where a token is a text of at most `longest` bytes."""
        cells = len(self.problems) * len(self.seeds)
        return Sizes(cells * self.samples, cells, {"completion": max_tokens * longest}, {"token_ids": max_tokens})


@dataclass(frozen=True)
class Drawn:
    """Rollouts of all that was asked, as arrays of shape (cells, samples)."""

    asked: Asked
    texts: Sequence[str]
    text: Counts
    """Places in `texts`."""
    right: Flags

    @cached_property
    def counts(self) -> pa.Table:
        """Columns as in counts.parquet."""
        seeds, phases, names = zip(*self.asked.cells, strict=True)
        columns: Mapping[str, Any] = {
            "item_id": names,
            "phase": phases,
            "run": [str(seed) for seed in seeds],
            "n": np.full(len(self.right), self.asked.samples),
            "correct": self.correct,
        }
        return pa.table([pa.array(columns[one.name], one.type) for one in tables.COUNTS], schema=tables.COUNTS)

    @property
    def correct(self) -> Counts:
        """Correct rollouts of each cell, shape (cells,)."""
        found: Counts = self.right.sum(axis=1)
        return found


def decoder_of(split: Split) -> Decoder:
    """The tokenizer of the split's base policy. Raises PolicyError."""
    return Decoder.load(base_folder(split))


def claimed(bundle: Bundle, table: pa.Table, asked: Asked, decoder: Decoder, max_tokens: int) -> Drawn:
    """The rollouts in a bundle (`table`), `right` as it claims.

    Raises DataError naming what is missing, foreign or repeated, and what no policy of the split can have written: a
    text that is not what its tokens say, too many of them, an end that they do not have.
    """
    table = _in_order(bundle, table, asked)
    where = f"{bundle.archive.path}, member 'rollouts.parquet'"
    tokens = table["token_ids"].combine_chunks()
    tokens = tokens.chunk(0) if isinstance(tokens, pa.ChunkedArray) else tokens
    _require_ends(where, tokens, texts_of(table["finish"]), decoder, max_tokens)
    column = table["completion"].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    texts: list[str] = column.dictionary.to_pylist()
    codes = column.indices.to_numpy().astype(np.int64)
    _require_decoded(where, tokens, texts, codes, decoder)
    shape = (len(asked.cells), asked.samples)
    right = table["correct"].to_numpy(zero_copy_only=False).astype(bool)
    return Drawn(asked, texts, codes.reshape(shape), right.reshape(shape))


def _in_order(bundle: Bundle, table: pa.Table, asked: Asked) -> pa.Table:
    """The rows in the order of the cells, each with samples 0, 1, ...; raises DataError where they are not those."""
    where, wanted, samples = f"{bundle.archive.path}, member 'rollouts.parquet'", asked.cells, asked.samples
    numbers = {cell: number for number, cell in enumerate(wanted)}
    columns = [texts_of(table[name]) for name in ("phase", "problem_id")]
    cell = np.empty(table.num_rows, np.int64)
    for row, key in enumerate(zip(table["seed"].to_pylist(), *columns, strict=True)):
        number = numbers.get(key)
        if number is None:
            seed, phase, name = key
            raise DataError(
                f"{where}, row {row + 1}: the split has no {phase!r:.20} problem {name!r:.80}, or the run no seed "
                f"{seed}"
            )
        cell[row] = number
    found = np.bincount(cell, minlength=len(wanted))
    if (odd := np.flatnonzero(found != samples)).size:
        seed, phase, name = wanted[int(odd[0])]
        raise DataError(
            f"{where}: {phase} {name!r} of seed {seed} has {found[odd[0]]} rollouts, and every problem of every seed "
            f"must have {samples}; {odd.size} problems do not: submit the run as it is"
        )
    order = np.lexsort((table["sample"].to_numpy(), cell))
    sample = table["sample"].to_numpy()[order]
    if (wrong := np.flatnonzero(sample != np.tile(np.arange(samples), len(wanted)))).size:
        seed, phase, name = wanted[int(cell[order][wrong[0]])]
        raise DataError(
            f"{where}: {phase} {name!r} of seed {seed} has sample {sample[wrong[0]]} twice, or lacks another one"
        )
    return table.take(pa.array(order))


def _require_ends(where: str, tokens: pa.ListArray, finish: Sequence[str], decoder: Decoder, max_tokens: int) -> None:
    """Raise DataError unless every rollout has tokens of the vocabulary and ends as it says, and nowhere before."""
    lengths = pc.list_value_length(tokens).to_numpy()
    flat = tokens.flatten().to_numpy()
    if not len(lengths):
        return
    if (odd := np.flatnonzero((lengths < 1) | (lengths > max_tokens))).size:
        raise DataError(f"{where}: a rollout of {lengths[odd[0]]} tokens; the split allows 1 to {max_tokens}")
    if (odd := np.flatnonzero((flat < 0) | (flat >= decoder.size))).size:
        raise DataError(f"{where}, field 'token_ids': the split's policy has no token {flat[odd[0]]}")
    ends = np.isin(flat, np.array(sorted(decoder.stop_ids)))
    last = np.cumsum(lengths) - 1
    stopped = ends[last]
    if ends.sum() != stopped.sum():
        raise DataError(f"{where}, field 'token_ids': a rollout continues after a token that ends it")
    says = np.array([word == "stop" for word in finish])
    if strange := set(finish) - {"stop", "length"}:
        raise DataError(f"{where}, field 'finish': {sorted(strange)[0]!r:.40} is neither stop nor length")
    if (odd := np.flatnonzero((says != stopped) | (~stopped & (lengths < max_tokens)))).size:
        row = int(odd[0])
        raise DataError(
            f"{where}, field 'finish': a rollout of {lengths[row]} tokens says {finish[row]!r}, and its last token "
            f"{'ends' if stopped[row] else 'does not end'} it"
        )


def _require_decoded(where: str, tokens: pa.ListArray, texts: Sequence[str], codes: Counts, decoder: Decoder) -> None:
    """Raise DataError unless every text is what the split's tokenizer makes of its tokens."""
    for start in range(0, len(tokens), AT_ONCE):
        part = tokens.slice(start, AT_ONCE)
        rows = np.split(part.flatten().to_numpy(), np.cumsum(pc.list_value_length(part).to_numpy())[:-1])
        for code, decoded in zip(codes[start : start + AT_ONCE].tolist(), decoder.texts(rows), strict=True):
            if texts[code] != decoded:
                raise DataError(
                    f"{where}: the text {texts[code]!r:.60} is not what its tokens say ({decoded!r:.60}); no policy of "
                    "the split wrote it"
                )
