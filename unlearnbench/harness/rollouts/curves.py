"""Success by group over the steps of a training, from the rollouts that its trainer logged: the paper's Figure 1
(arXiv 2605.16787) for anybody's run.

read in batches -> every different completion judged -> (n, correct) of each item at each step -> the mean rate of each
group's items at each step -> curves.json, curves.csv, curves.png
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.compute as pc

from unlearnbench.errors import DataError, RunError
from unlearnbench.harness.rollouts.counts import Problems
from unlearnbench.harness.rollouts.files import Progress, Reading, RolloutFiles, require_labels
from unlearnbench.harness.rollouts.score import judge
from unlearnbench.io import tables
from unlearnbench.io.files import write_bytes, write_json, write_text
from unlearnbench.io.folder_lock import locked
from unlearnbench.io.rollout_reader import Batch
from unlearnbench.records import GROUPS, GroupName, Record
from unlearnbench.reports.step_figure import Line, step_figure
from unlearnbench.scoring.rates import Counts, Flags, Reals
from unlearnbench.splits import Split, load_split
from unlearnbench.verifier import Verifier

NAME = "curves"
_LARGEST_STEP = 1 << 40


class CurvePoint(Record):
    """The rollouts of one group at one step of one training run."""

    seed: int
    step: int
    group: GroupName
    items: int
    """Items of the group that have rollouts at this step."""
    rollouts: int
    correct: int
    rate: float
    """Mean over these items of the share of their rollouts that is correct."""


class StepCurves(Record):
    """curves.json: success by group over the steps of a training."""

    schema_version: Literal[1] = 1
    split: str
    split_hash: str
    rollouts: str
    """Fingerprint of the files."""
    left_out: int
    """Rollouts of twins, of canaries and of items without a group."""
    points: tuple[CurvePoint, ...]


def step_curves(
    files: Sequence[str | Path],
    split: str | Path | Split,
    out: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    reading: Reading | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> StepCurves:
    """Judge the rollouts in `files` and write curves.json, curves.csv and curves.png to the folder `out`.

    Files are as for `score_rollouts`, and every row says its `step`. A trainer that logs a batch at each of several
    updates (TRL with steps_per_generation) gives the same rate at each. Raises DataError naming file, row and field;
    SplitError where the split has no labels; RunError where `out` holds the curves of other rollouts.
    """
    chosen = split if isinstance(split, Split) else load_split(split)
    require_labels(chosen)
    folder, source = Path(out), RolloutFiles(files, seeds, reading or Reading())
    problems = Problems(chosen)
    counts = _StepCounts(len(problems))
    with locked(folder):
        _refuse_another(folder / f"{NAME}.json", chosen, source.fingerprint)
        with Verifier(chosen.config.protocol.verifier_rule, workers=workers or os.cpu_count() or 1) as verifier:
            for batch in source.batches(chosen, progress):
                place = problems.places(batch)
                counts.add(batch, place, judge(batch, place, problems, verifier)["correct"].to_numpy())
        curves = _curves(chosen, counts, source.fingerprint)
        write_json(folder / f"{NAME}.json", curves)
        write_text(folder / f"{NAME}.csv", _as_csv(curves))
        write_bytes(folder / f"{NAME}.png", step_figure(_lines(curves)))
    return curves


class _StepCounts:
    """(n, correct) of every problem at every step of every seed that was met.

    One entry an item and step that has rollouts, so memory grows with the trainer's log and not with all that it could
    hold.
    """

    def __init__(self, problems: int) -> None:
        self._problems = problems
        self._counts: dict[int, tuple[Counts, Counts, Counts]] = {}
        """By seed: step x problems + problem, sorted; n; correct."""

    def add(self, batch: Batch, place: Counts, correct: Flags) -> None:
        """Count a batch. Raises DataError naming the first row without a step."""
        steps, seeds = _steps(batch), batch.rows["seed"].to_numpy()
        for seed in np.unique(seeds).tolist():
            of = seeds == seed
            old = self._counts.get(seed, (np.zeros(0, np.int64),) * 3)
            self._counts[seed] = _merged(
                np.concatenate([old[0], steps[of] * self._problems + place[of]]),
                np.concatenate([old[1], np.ones(int(of.sum()), np.int64)]),
                np.concatenate([old[2], correct[of].astype(np.int64)]),
            )

    def by_step(self) -> Iterator[tuple[int, int, Counts, Counts, Counts]]:
        """Each seed and step in order with its problems, n and correct."""
        for seed in sorted(self._counts):
            keys, n, correct = self._counts[seed]
            steps, starts = np.unique(keys // self._problems, return_index=True)
            for step, start, end in zip(steps.tolist(), starts, [*starts[1:], len(keys)], strict=True):
                yield seed, step, keys[start:end] % self._problems, n[start:end], correct[start:end]


def _steps(batch: Batch) -> Counts:
    column = batch.rows["step"].combine_chunks()
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise DataError(f"{batch.where(row)}: it has no step; name the column with --column step=NAME")
    steps: Counts = column.to_numpy()
    if int(steps.max(initial=0)) > _LARGEST_STEP:
        row = int(steps.argmax())
        raise DataError(f"{batch.where(row)}: {steps[row]} is too large for the number of a training step")
    return steps


def _merged(keys: Counts, n: Counts, correct: Counts) -> tuple[Counts, Counts, Counts]:
    different, inverse = np.unique(keys, return_inverse=True)
    sums = [np.bincount(inverse, values, len(different)).astype(np.int64) for values in (n, correct)]
    return different, sums[0], sums[1]


def _curves(split: Split, counts: _StepCounts, fingerprint: str) -> StepCurves:
    groups = [item.group for item in split.items]  # `Problems` begins with the items
    number = np.full(len(Problems(split)), -1)
    number[: len(groups)] = [-1 if group is None else GROUPS.index(group) for group in groups]
    points, left_out = [], 0
    for seed, step, places, n, correct in counts.by_step():
        of = number[places]
        left_out += int(n[of < 0].sum())
        rates: Reals = correct / n
        for place in np.unique(of[of >= 0]).tolist():
            here = of == place
            points.append(
                CurvePoint(
                    seed=seed,
                    step=step,
                    group=GROUPS[place],
                    items=int(here.sum()),
                    rollouts=int(n[here].sum()),
                    correct=int(correct[here].sum()),
                    rate=float(rates[here].mean()),
                )
            )
    if not points:
        raise DataError("there is no rollout of an item with a group in these files; give files that hold some")
    return StepCurves(
        split=split.name, split_hash=split.hash, rollouts=fingerprint, left_out=left_out, points=tuple(points)
    )


def _as_csv(curves: StepCurves) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CurvePoint.model_fields)
    writer.writerows(point.model_dump().values() for point in curves.points)
    return text.getvalue()


def _lines(curves: StepCurves) -> dict[str, list[Line]]:
    """The lines of the figure: one per seed for every group."""
    lines: dict[str, list[Line]] = {}
    for group in GROUPS:
        of_group = [point for point in curves.points if point.group == group]
        seeds = sorted({point.seed for point in of_group})
        found: list[Line] = [[(point.step, point.rate) for point in of_group if point.seed == seed] for seed in seeds]
        if found:
            lines[group] = found
    return lines


def _refuse_another(path: Path, split: Split, fingerprint: str) -> None:
    if path.is_file():
        found = tables.read_json_record(path, StepCurves)
        if (found.split_hash, found.rollouts) != (split.hash, fingerprint):
            raise RunError(
                f"{path} is of other rollouts or another split; name another folder with --out, or remove it"
            )
