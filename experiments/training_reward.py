"""Reward in training: the rate of correct rollouts by quarter of a run, by group, and how many have a valid trace.

The paper judges what it tried by the mean training reward of a group's prompts. The judge's ledger of a run holds
every rollout that was drawn, kept or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.figures import Curve, curves_figure
from experiments.markdown import Section, blocks, paragraph, table
from experiments.runs import CAUSE, Runs, of_group
from experiments.update_statistics import QUARTERS, by_group, quarter_of
from unlearnbench.io import tables
from unlearnbench.records import RelatedProblem
from unlearnbench.reports.formatting import pct, signed
from unlearnbench.scoring.comparisons.comparability import Finished
from unlearnbench.scoring.curves import group_curve, read_curves
from unlearnbench.scoring.rates import Counts, Reals
from unlearnbench.training.ledger import read_metrics, read_visits

GROUPS = ("easy", "learnable", "unlearnable")
COUNTED = ("judged", "correct", "traced", "valid")


@dataclass(frozen=True)
class Quarters:
    """Rollouts of problems in a run's own prompts, each array (problems, seeds, quarters of the seed's steps)."""

    ids: Sequence[str]
    judged: Counts
    correct: Counts
    traced: Counts
    """Correct rollouts whose trace was judged."""
    valid: Counts
    """Those of them whose trace is valid."""

    def of(self, ids: Sequence[str]) -> Quarters:
        """Some of the problems."""
        wanted = set(ids)
        rows = [place for place, name in enumerate(self.ids) if name in wanted]
        return Quarters([self.ids[row] for row in rows], *(getattr(self, name)[rows] for name in COUNTED))

    @property
    def reward(self) -> Reals:
        """Mean over seeds of the mean over problems of the rate, shape (quarters,); NaN where nothing was drawn."""
        return _mean(_mean(np.where(self.judged > 0, self.correct / np.maximum(self.judged, 1), np.nan)))

    @property
    def valid_share(self) -> Reals:
        """Share of valid traces among the correct rollouts of all seeds, shape (quarters,); NaN without any."""
        valid, traced = self.valid.sum(axis=(0, 1)), self.traced.sum(axis=(0, 1))
        return np.where(traced > 0, valid / np.maximum(traced, 1), np.nan)


def _mean(values: Reals) -> Reals:
    """Over the first axis, of what is known."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def rise(values: Reals) -> float | None:
    """From the first quarter to the last; None where one of them has nothing."""
    change = float(values[-1] - values[0])
    return change if np.isfinite(change) else None


def quarters(run: Finished, ids: Sequence[str]) -> Quarters | None:
    """Rollouts of these problems by quarter of each seed's steps; None for a run whose ledgers are not there.

    `ids` are distinct: a problem named twice would be counted once and listed twice.
    """
    visits = [read_visits(run.folder / str(seed), seed) for seed in run.result.seeds]
    counted = {name: np.zeros((len(ids), len(visits), QUARTERS), np.int64) for name in COUNTED}
    if not any(rows.num_rows for rows in visits):
        return None
    for seed, rows in enumerate(visits):
        place = pc.index_in(rows["item_id"], value_set=pa.array(ids, pa.string())).fill_null(-1).to_numpy()
        steps = rows["step"].to_numpy()
        quarter = quarter_of(steps, 1 + int(steps.max(initial=0)))
        known = place >= 0
        for name, values in counted.items():
            np.add.at(values, (place[known], seed, quarter[known]), rows[name].to_numpy()[known])
    return Quarters(list(ids), *counted.values())


def sets_of(runs: Runs) -> dict[str, list[str]]:
    """Ids of each group's items, and of the unlearnable items of CAUSE where the split has any."""
    found = {group: [item.item_id for item in of_group(runs.split, group)] for group in GROUPS}
    if entangled := [item.item_id for item in runs.unlearnable(CAUSE)]:
        found[f"unlearnable, {CAUSE}"] = entangled
    return found


def section(runs: Runs, pictures: Path) -> Section:
    """GRPO's curves, its rewards and valid traces by quarter, and the reward of the problems that methods add."""
    title, run = "Reward and reasoning in training", runs.methods.get("grpo")
    sets = sets_of(runs)
    found = None if run is None else quarters(run, list(dict.fromkeys(name for ids in sets.values() for name in ids)))
    if run is None or found is None:
        return Section(title, "The run `grpo` is missing.")
    parts = {name: found.of(ids) for name, ids in sets.items()}
    return Section(
        title,
        blocks(
            _picture(run, pictures),
            paragraph(
                f"GRPO at 1x, {len(run.result.seeds)} seeds. Reward: mean over items of the rate of correct rollouts",
                "that the policy drew, by quarter of training. Valid traces: share of the correct rollouts whose",
                "text agrees with the reference solution (the paper asks a judge model for a mark from 0 to 5).",
            ),
            _by_quarter(parts),
            _added(runs),
            _updates(runs, sets),
        ),
    )


def _picture(run: Finished, pictures: Path) -> str:
    saved = read_curves(run.folder / "curves.parquet")
    curves: dict[str, Curve] = {}
    steps: Mapping[str, Reals] = {}
    for group in GROUPS if saved is not None else ():
        if (curve := group_curve(saved, group)) is not None:
            curves[group], steps = Curve(curve.mean, *curve.band), {**steps, group: curve.steps}
    if not curves:
        return ""
    curves_figure(pictures / "experiments-curves.png", steps, curves)
    return "![Rate of correct rollouts in training by group](experiments-curves.png)"


def _by_quarter(parts: Mapping[str, Quarters]) -> str:
    rows = []
    for name, part in parts.items():
        correct = int(part.correct.sum())
        rows.append([name, str(len(part.ids)), "reward", *_cells(part.reward), str(correct)])
        rows.append([name, "", "valid traces", *_cells(part.valid_share), str(int(part.traced.sum()))])
    return table(
        ["items", "number", "of", "quarter 1", "2", "3", "4", "change (points)", "correct rollouts"], rows, left=1
    )


def _cells(values: Reals) -> list[str]:
    change = rise(values)
    return [*("-" if np.isnan(value) else pct(float(value)) for value in values), _change(change)]


def _change(value: float | None) -> str:
    return "-" if value is None else signed(value)


def _added(runs: Runs) -> str:
    """The added problems' own rewards beside those of the items that they were added for."""
    rows = []
    items = [item.item_id for item in runs.unlearnable()]
    for name in ("similar_problems", "sub_problems"):
        if (run := runs.methods.get(name)) is None:
            continue
        added = related_ids(runs, name)
        if (found := quarters(run, [*items, *added])) is None:
            continue
        for of, ids in (("unlearnable items", items), ("added problems", added)):
            rows.append([name, of, *_cells(found.of(ids).reward)])
    if not rows:
        return ""
    return blocks(
        "Reward of the problems that a method adds, beside that of the unlearnable items that they belong to:",
        table(["method", "of", "quarter 1", "2", "3", "4", "change (points)"], rows, left=2),
    )


def related_ids(runs: Runs, name: str) -> list[str]:
    """Ids of the problems that the split has for a method to add."""
    file = {"similar_problems": "similar.parquet", "sub_problems": "sub_problems.parquet"}[name]
    problems = tables.read_records(runs.split.path / file, RelatedProblem)
    return [problem.problem_id for problem in problems if not problem.leaked]


def _updates(runs: Runs, sets: Mapping[str, Sequence[str]]) -> str:
    """Clip fractions and reference probabilities by group, and the clip fraction of whole batches."""
    logged = runs.logged
    folders = [] if logged is None else [logged.folder / str(seed) for seed in logged.result.seeds]
    told = []
    for name in ("grpo", "clip_higher"):
        run = runs.methods.get(name)
        seeds = [] if run is None else [run.folder / str(seed) for seed in run.result.seeds]
        lines = [row for seed in seeds for row in read_metrics(seed)]
        clipped = [row["clipped"] for row in lines if row.get("clipped") is not None]
        told += [f"`{name}` {100 * float(np.mean(clipped)):.2f} %"] if clipped else []
    return blocks(
        by_group(folders, sets)
        or "Clip fraction and reference probability by group: the run `logged_grpo` is missing.",
        f"Clip fraction of whole batches, the mean over steps and seeds: {', '.join(told)}." if told else "",
    )
