"""Which problems of a split rollouts belong to, and (n, correct) of each problem in every seed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.io.rollout_reader import Batch
from unlearnbench.scoring.rates import Counts, Flags
from unlearnbench.splits import Split
from unlearnbench.verifier import UNGRADABLE

MOST_SEEDS = 100
"""More are refused: a column `seed` with so many values numbers samples, not training runs."""

Phase = Literal["eval", "twin", "canary"]
PHASES: tuple[Phase, ...] = ("eval", "twin", "canary")
_NOUNS = ("item", "twin", "canary")


class Problems:
    """What rollouts may be of: a split's items, twins and canaries, in this order; a place is an index into them.

    `needed` says which a complete set has: every item; of twins those of unlearnable items, and canaries, each only
    if any of their kind is there.
    """

    def __init__(self, split: Split) -> None:
        evaluated = {problem[0] for problem in split.problems("twin")}
        rows = [(item.item_id, item.answer, 0, True) for item in split.items]
        rows += [(twin.twin_id, twin.answer, 1, twin.twin_id in evaluated) for twin in split.twins]
        rows += [(canary.item_id, canary.answer, 2, True) for canary in split.canaries]
        self.split = split.name
        self.ids = pa.array([row[0] for row in rows], pa.string())
        self.golds = list(dict.fromkeys(row[1] for row in rows))
        number = {gold: index for index, gold in enumerate(self.golds)}
        self.gold: Counts = np.array([number[row[1]] for row in rows], np.int64)
        self.phase: Counts = np.array([row[2] for row in rows], np.int64)
        self.needed: Flags = np.array([row[3] for row in rows], bool)

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, batch: Batch) -> Counts:
        """The place of each row's problem. Raises DataError naming file, row and field where there is none."""
        names = batch.rows["item_id"].combine_chunks()
        found = pc.index_in(names, value_set=self.ids)
        if found.null_count:
            row = pc.index(pc.is_null(found), True).as_py()
            raise DataError(
                f"{batch.where(row)}, field 'item_id': split {self.split} has no item, twin or canary "
                f"{names[row].as_py()[:80]!r}; remove the row, or name the split that it is of"
            )
        place: Counts = found.to_numpy().astype(np.int64)
        return place


class Tally:
    """(n, correct) of every problem in every seed met so far."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.rollouts = 0
        self.ungradable = 0
        self._n: dict[int, Counts] = {}
        self._correct: dict[int, Counts] = {}

    @property
    def seeds(self) -> list[int]:
        return sorted(self._n)

    def add(self, batch: Batch, place: Counts, judged: pa.Table) -> tuple[Counts, Counts]:
        """Count a batch; returns each row's seed and its sample number (0, 1, ... within its problem and seed)."""
        seeds: Counts = batch.rows["seed"].to_numpy()
        correct: Flags = judged["correct"].to_numpy()
        self.rollouts += len(place)
        self.ungradable += pc.sum(pc.is_in(judged["reason"], pa.array(sorted(UNGRADABLE)))).as_py()
        sample = np.empty(len(place), np.int64)
        for seed in np.unique(seeds).tolist():
            rows = np.flatnonzero(seeds == seed)
            if seed not in self._n:
                self._new_seed(batch, seed, int(rows[0]))
            here = place[rows]
            order = np.argsort(here, kind="stable")
            starts = np.flatnonzero(np.diff(here[order], prepend=-1))
            lengths = np.diff(starts, append=len(order))
            within = np.arange(len(order)) - np.repeat(starts, lengths)
            sample[rows[order]] = self._n[seed][here[order]] + within
            self._n[seed] += np.bincount(here, minlength=len(self.problems))
            self._correct[seed] += np.bincount(here[correct[rows]], minlength=len(self.problems))
        return seeds, sample

    def complete(self) -> int:
        """The number of rollouts that every needed problem has in every seed.

        Raises DataError naming the first problem and seed that has another number, and how many have.
        """
        n = self._table()
        phases = [phase for phase in range(len(PHASES)) if phase == 0 or n[:, self.problems.phase == phase].any()]
        needed = self.problems.needed & np.isin(self.problems.phase, phases)
        samples = _most_common(n[:, needed])
        wrong = np.argwhere((n != samples).T & needed[:, None])
        if not len(wrong):
            return samples
        place, seed = wrong[0].tolist()
        noun, name = _NOUNS[self.problems.phase[place]], self.problems.ids[place].as_py()
        lacking, beyond = (int(np.maximum(side * (samples - n[:, needed]), 0).sum()) for side in (1, -1))
        found = [f"lack {lacking:,} rollouts"] * (lacking > 0) + [f"have {beyond:,} too many"] * (beyond > 0)
        remedy = ["add what is missing"] * (lacking > 0) + ["remove what is too much"] * (beyond > 0)
        raise DataError(
            f"{noun} {name!r} has {n[seed, place]} rollouts in seed {self.seeds[seed]} where {samples} are needed, the "
            f"first of {len(wrong):,} such places of {needed.sum() * len(n):,}, which {' and '.join(found)}; "
            f"{' and '.join(remedy)}, or give --partial, which scores what is there and is not comparable"
        )

    def partial(self) -> tuple[int, str]:
        """The fewest rollouts of an item that is there in every seed, and why the result is not comparable.

        Raises DataError if no item is.
        """
        n = self._table()[:, self.problems.phase == 0]
        there = n.min(axis=0) > 0
        if not there.any():
            raise DataError("no item has a rollout in every seed, so there is nothing to score; add rollouts")
        return int(n[:, there].min()), (
            f"--partial: {there.sum()} of {len(there)} items are there in every seed, with {n[:, there].min()} to "
            f"{n[:, there].max()} rollouts each; score all of them with the same number without --partial"
        )

    def counts(self) -> pa.Table:
        """Counts as a run's counts.parquet has them (columns of `tables.COUNTS`): run = seed."""
        parts = []
        for seed in self.seeds:
            places = np.flatnonzero(self._n[seed])
            columns = {
                "item_id": self.problems.ids.take(pa.array(places)),
                "phase": pa.array(np.array(PHASES, object)[self.problems.phase[places]], pa.string()),
                "run": pa.array([str(seed)] * len(places), pa.string()),
                "n": pa.array(self._n[seed][places]),
                "correct": pa.array(self._correct[seed][places]),
            }
            parts.append(pa.table(columns))
        return pa.concat_tables(parts).cast(tables.COUNTS)

    def _table(self) -> Counts:
        """n of shape (seeds, problems)."""
        if not self._n:
            raise DataError("there is no rollout in these files; give files that hold some")
        return np.stack([self._n[seed] for seed in self.seeds])

    def _new_seed(self, batch: Batch, seed: int, row: int) -> None:
        if len(self._n) == MOST_SEEDS:
            raise DataError(
                f"{batch.where(row)}, field 'seed': {seed} is one more than {MOST_SEEDS} different seeds; a seed is "
                "a training run's, not a sample's: leave it out where there is one run"
            )
        self._n[seed] = np.zeros(len(self.problems), np.int64)
        self._correct[seed] = np.zeros(len(self.problems), np.int64)


def _most_common(n: Counts) -> int:
    """The number of rollouts that most problems have that have any; the larger of two that are as common."""
    values, times = np.unique(n[n > 0], return_counts=True)
    return int(values[times == times.max()].max()) if len(values) else 0
