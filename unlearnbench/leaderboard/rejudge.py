"""The rollouts of a bundle, complete and judged anew.

What must be there follows from the split and the result: every item, twin of an unlearnable item and canary, in every
seed, with every sample once, in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError, VerifierError
from unlearnbench.io import tables
from unlearnbench.io.untrusted import texts_of
from unlearnbench.leaderboard.bundle import Bundle
from unlearnbench.records import Verdict
from unlearnbench.scoring.rates import Counts, Flags
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier

AT_ONCE = 100
"""Completions that are judged before the time they took is looked at."""
SECONDS, SECONDS_A_TEXT = 120.0, 0.01
"""What the verifier may be kept busy for: so long, and so long for each different completion."""
BYTES_A_TOKEN = 128
"""A text of more bytes than this a token, and some more, was written by no tokenizer known."""


@dataclass(frozen=True)
class Judged:
    """Rollouts as arrays of shape (cells, samples); a cell is a problem in a seed.

    `text` are codes of `texts`, `pair` of the different (problem, text) pairs that were judged, whose stated answers
    are `stated`. `problem` (of each cell) is a place in `names` and `phases`.
    """

    text: Counts
    texts: Sequence[str]
    pair: Counts
    stated: Sequence[str | None]
    right: Flags
    problem: Counts
    seed: Counts
    names: Sequence[str]
    phases: Sequence[str]
    counts: pa.Table
    altered: Sequence[str]
    """Verdicts that are claimed and not given."""

    @property
    def rows(self) -> int:
        return int(self.text.size)


def problems_of(split: Split) -> dict[str, dict[str, str]]:
    """Gold answer of every problem that is evaluated, by phase and id."""
    phases = ("eval", "twin", "canary")
    found = {phase: {name: gold for name, _, gold in split.problems(phase)} for phase in phases}
    return {phase: golds for phase, golds in found.items() if golds}


def evaluated(bundle: Bundle, split: Split) -> dict[str, dict[str, str]]:
    """What a bundle's seeds must have rollouts of: `problems_of` the split, and the items before training too where
    that began from another policy than the split's base."""
    golds = problems_of(split)
    elsewhere = any(seed.method.start != "base" or seed.config.start is not None for seed in bundle.seeds.values())
    return golds | ({"start": golds["eval"]} if elsewhere else {})


def judge(bundle: Bundle, table: pa.Table, split: Split, workers: int) -> Judged:
    """Check that a bundle's rollouts (`table`) are complete and judge every one.

    Raises DataError naming what is missing, foreign, repeated or too long; VerifierError if the verifier fails.
    """
    seeds, samples = list(bundle.result.seeds), bundle.result.samples
    golds = evaluated(bundle, split)
    problems = [(phase, name) for phase, of_phase in golds.items() for name in of_phase]
    wanted = [(seed, phase, name) for seed in seeds for phase, name in problems]
    table = _in_order(bundle, table, wanted, samples)
    texts, codes = _texts(bundle, table, split.config.protocol.sampling.max_tokens)

    place = np.tile(np.repeat(np.arange(len(problems)), samples), len(seeds))
    _, first, pair = np.unique(place * max(1, len(texts)) + codes, return_index=True, return_inverse=True)
    pair = pair.reshape(-1)
    questions = [(golds[problems[place[row]][0]][problems[place[row]][1]], texts[codes[row]]) for row in first.tolist()]
    verdicts = _verdicts(bundle, questions, split, workers)
    if any(verdict.correct is None for verdict in verdicts):
        raise VerifierError("the verifier itself failed twice on a text of the bundle; run the same command again")
    right = np.array([bool(verdict.correct) for verdict in verdicts])[pair]
    claimed = table["correct"].to_numpy(zero_copy_only=False).astype(bool)
    shape = (len(wanted), samples)
    return Judged(
        text=codes.reshape(shape),
        texts=texts,
        pair=pair.reshape(shape),
        stated=[verdict.answer for verdict in verdicts],
        right=right.reshape(shape),
        problem=np.tile(np.arange(len(problems)), len(seeds)),
        seed=np.repeat(np.array(seeds), len(problems)),
        names=[name for _, name in problems],
        phases=[phase for phase, _ in problems],
        counts=_counts(wanted, right.reshape(shape)),
        altered=_altered(wanted, claimed.reshape(shape), right.reshape(shape)),
    )


def _in_order(bundle: Bundle, table: pa.Table, wanted: Sequence[tuple[int, str, str]], samples: int) -> pa.Table:
    """The rows in the order of `wanted`, each with samples 0, 1, ...; raises DataError where they are not those."""
    where = f"{bundle.path}, member 'rollouts.parquet'"
    numbers = {cell: number for number, cell in enumerate(wanted)}
    columns = [texts_of(table[name]) for name in ("phase", "problem_id")]
    cell = np.empty(table.num_rows, np.int64)
    for row, key in enumerate(zip(table["seed"].to_pylist(), *columns, strict=True)):
        number = numbers.get(key)
        if number is None:
            seed, phase, name = key
            raise DataError(
                f"{where}, row {row + 1}: no rollout of {phase!r:.20} {name!r:.80} in seed {seed} belongs here"
            )
        cell[row] = number
    found = np.bincount(cell, minlength=len(wanted))
    if (odd := np.flatnonzero(found != samples)).size:
        seed, phase, name = wanted[int(odd[0])]
        raise DataError(
            f"{where}: {phase} {name!r} of seed {seed} has {found[odd[0]]} rollouts, and every problem of every seed "
            f"must have {samples}; {odd.size} problems have not: submit the run as it is"
        )
    order = np.lexsort((table["sample"].to_numpy(), cell))
    sample = table["sample"].to_numpy()[order]
    if (wrong := np.flatnonzero(sample != np.tile(np.arange(samples), len(wanted)))).size:
        seed, phase, name = wanted[int(cell[order][wrong[0]])]
        raise DataError(
            f"{where}: {phase} {name!r} of seed {seed} has the sample {sample[wrong[0]]} where it must not be"
        )
    return table.take(pa.array(order))


def _texts(bundle: Bundle, table: pa.Table, max_tokens: int) -> tuple[list[str], Counts]:
    """The different completions and which of them every row is."""
    where = f"{bundle.path}, member 'rollouts.parquet'"
    finishes = set(pc.unique(table["finish"]).to_pylist())
    if strange := finishes - {"stop", "length"}:
        raise DataError(f"{where}, field 'finish': {sorted(strange)[0]!r:.40} is neither stop nor length")
    column = table["completion"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0)
    texts: list[str] = column.dictionary.to_pylist()
    most = BYTES_A_TOKEN * (max_tokens + 8)
    if long := next((text for text in texts if len(text) > most), None):
        raise DataError(f"{where}: a completion of {len(long):,} characters cannot come from {max_tokens} tokens")
    return texts, column.indices.to_numpy().astype(np.int64)


def _verdicts(bundle: Bundle, questions: Sequence[tuple[str, str]], split: Split, workers: int) -> list[Verdict]:
    """The verdict on each question, a few at a time, until they have taken longer than those of any honest run."""
    most, spent = SECONDS + SECONDS_A_TEXT * len(questions), 0.0
    found: list[Verdict] = []
    known: set[tuple[str, str | None]] = set()
    with Verifier(split.config.protocol.verifier_rule, workers=workers) as verifier:
        for start in range(0, len(questions), AT_ONCE):
            asked = questions[start : start + AT_ONCE]
            found += verifier.verify_many(asked)
            for (gold, _), verdict in zip(asked, found[start:], strict=True):
                if (gold, verdict.answer) not in known:  # what was answered before takes no time
                    known.add((gold, verdict.answer))
                    spent += verdict.seconds
            if spent > most:
                raise DataError(
                    f"{bundle.path}, member 'rollouts.parquet': {len(found):,} of {len(questions):,} different "
                    f"completions kept the verifier busy for {spent:.0f} seconds, as no policy's do; the rest was not "
                    "judged"
                )
    return found


def _counts(wanted: Sequence[tuple[int, str, str]], right: Flags) -> pa.Table:
    seeds, phases, names = zip(*wanted, strict=True)
    columns: Mapping[str, Any] = {
        "item_id": names,
        "phase": phases,
        "run": [str(seed) for seed in seeds],
        "n": np.full(len(right), right.shape[1]),
        "correct": right.sum(axis=1),
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in tables.COUNTS], schema=tables.COUNTS)


def _altered(wanted: Sequence[tuple[int, str, str]], claimed: Flags, right: Flags) -> list[str]:
    told = []
    for cell, sample in np.argwhere(claimed != right).tolist():
        seed, phase, name = wanted[cell]
        said, given = ("correct", "wrong") if claimed[cell, sample] else ("wrong", "correct")
        told.append(
            f"rollouts.parquet: {phase} {name!r} of seed {seed}, sample {sample} is {said} by the bundle and {given} "
            "by the verifier"
        )
    return told
