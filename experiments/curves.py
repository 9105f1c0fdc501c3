"""Experiment 2: success in training by group, and the correct rollouts that unlearnable items did get.

From the ledgers of a GRPO run, which hold every rollout it drew, kept or dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from experiments.figures import Curve, curves_figure
from experiments.markdown import Finding, Section, blocks, paragraph, table
from experiments.runs import Runs
from unlearnbench.records import Interval, Item
from unlearnbench.reports.formatting import count, pct, point_span, points
from unlearnbench.scoring.comparability import Finished
from unlearnbench.scoring.conversion_rule import rate_arm
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.intervals import mean_interval
from unlearnbench.scoring.rates import Counts
from unlearnbench.splits import Split
from unlearnbench.training.ledger import read_ledger

WINDOWS = 10
SHOWN = ("easy", "learnable", "unlearnable")
QUARTERS = 4
RISE = 0.05
"""An item's rate has improved if it rose by more than this."""


@dataclass(frozen=True)
class Training:
    """Rollouts of a run's items by equal windows of its steps, arrays of shape (items, seeds, windows)."""

    items: Sequence[Item]
    steps: float
    """The mean over seeds."""
    correct: Counts
    n: Counts
    valid: Counts
    """Correct rollouts with a valid trace."""

    def of(self, group: str) -> Training:
        rows = [place for place, item in enumerate(self.items) if item.group == group]
        chosen = [self.items[place] for place in rows]
        return Training(chosen, self.steps, self.correct[rows], self.n[rows], self.valid[rows])


def training(run: Finished, split: Split, windows: int) -> Training:
    """What the ledgers of a run's seeds hold of the split's items. Windows are equal parts of each seed's own steps."""
    ids = [item.item_id for item in split.items]
    columns = ("step", "item_id", "correct", "valid_trace")
    ledgers = [read_ledger(run.folder / str(seed), columns) for seed in run.result.seeds]
    steps = [1 + int(pc.max(rows["step"]).as_py() or 0) for rows in ledgers]
    shape = (len(ids), len(ledgers), windows)
    counted = {name: np.zeros(shape, np.int64) for name in ("n", "correct", "valid")}
    for seed, rows in enumerate(ledgers):
        item = pc.index_in(rows["item_id"], value_set=pa.array(ids)).to_numpy()
        right = rows["correct"].fill_null(False).to_numpy()
        sound = right & rows["valid_trace"].fill_null(False).to_numpy()
        known = ~(np.isnan(item) | rows["correct"].is_null().to_numpy())  # canaries are no items
        window = rows["step"].to_numpy().astype(np.int64) * windows // steps[seed]
        place = item[known].astype(np.int64) * windows + window[known]
        for name, weights in (("n", None), ("correct", right[known]), ("valid", sound[known])):
            found = np.bincount(place, weights, len(ids) * windows)
            counted[name][:, seed] = found.reshape(len(ids), windows).astype(np.int64)
    return Training(split.items, float(np.mean(steps)), counted["correct"], counted["n"], counted["valid"])


def rise(part: Training) -> tuple[float, Interval | None] | None:
    """Change of the mean rate from the first to the last window, these items' families; None if one was not seen."""
    first, last = (Cells(part.correct[:, :, place], part.n[:, :, place]) for place in (0, -1))
    change = last.rates - first.rates
    if not len(change) or np.isnan(change).any():
        return None
    ids, families = [item.item_id for item in part.items], [item.family for item in part.items]
    rollouts = float(min(first.n.sum(), last.n.sum())) / len(ids)
    arms = [rate_arm(last), rate_arm(first)]
    return float(change.mean()), mean_interval(change, ids, families, arms, beyond=True, rollouts=rollouts)


def section(runs: Runs, pictures: Path) -> Section:
    """The curves, what was rewarded, and whether rewards led anywhere."""
    run = runs.get("grpo")
    if run is None:
        return Section("Training curves by group", "The run `grpo` is missing.")
    fine, coarse = training(run, runs.split, WINDOWS), training(run, runs.split, QUARTERS)
    steps = (np.arange(WINDOWS) + 0.5) * fine.steps / WINDOWS
    curves_figure(pictures / "experiments-curves.png", steps, {name: _curve(fine.of(name)) for name in SHOWN})
    seeds = len(run.result.seeds)
    text = blocks(
        paragraph(
            f"The reference GRPO at 1x, {seeds} seeds, {fine.steps:.0f} steps in the mean: share of correct rollouts "
            f"drawn in training, in {WINDOWS} equal parts of each seed's; the band is from the lowest seed to the "
            "highest."
        ),
        "![Share of correct rollouts in training by group](experiments-curves.png)",
        paragraph(
            "Correct rollouts that items were given in training. An item counts once a seed; the trace of a correct "
            "rollout is valid if it reads as the reference solution does."
        ),
        _table(coarse),
        _exposure(runs.split, coarse.of("unlearnable")),
    )
    return Section("Training curves by group", text, [_finding(coarse)])


def _curve(part: Training) -> Curve:
    by_seed = part.correct.sum(axis=0) / np.maximum(part.n.sum(axis=0), 1)
    return Curve(by_seed.mean(axis=0), by_seed.min(axis=0), by_seed.max(axis=0))


def _table(found: Training) -> str:
    rows = []
    for group in (*SHOWN, "unstable", "no_reward"):
        part = found.of(group)
        if not part.items:
            continue
        right, n = part.correct.sum(axis=2), part.n.sum(axis=2)
        low, middle, high = np.quantile(right, [0.25, 0.5, 0.75], method="inverted_cdf").tolist()
        rates = part.correct.sum(axis=(0, 1)) / np.maximum(part.n.sum(axis=(0, 1)), 1)
        valid = int(part.valid.sum())
        rows.append(
            [
                group,
                str(len(part.items)),
                f"{np.median(n):.0f}",
                f"{count(int(right.sum()))} of {count(int(n.sum()))}",
                f"{middle:.0f} ({low:.0f} to {high:.0f})",
                pct(float((right >= 2).mean())),
                pct(valid / max(int(right.sum()), 1)),
                pct(float(rates[0])),
                pct(float(rates[-1])),
            ]
        )
    head = ["group", "items", "rollouts an item", "correct", "an item: median (quartiles)", "at least two"]
    return table([*head, "valid traces", "rate, first quarter", "rate, last quarter"], rows)


def _exposure(split: Split, part: Training) -> str:
    """How often unlearnable items were rewarded, in these runs and in those that label."""
    right = part.correct.sum(axis=(1, 2))
    valid = part.valid.sum(axis=(1, 2))
    n = part.n.sum(axis=(1, 2))
    counts, ids = split.counts(), [item.item_id for item in part.items]
    labelling, drawn = read_phase(counts, "train", ids).pooled
    base, asked = read_phase(counts, "base", ids).pooled
    return paragraph(
        f"Of {len(ids)} unlearnable items {int((right > 0).sum())} got at least one correct rollout in these runs (of "
        f"{np.median(n):.0f} each, the median over all seeds together), {int((right >= 10).sum())} got ten or more, "
        f"and {int((valid > 0).sum())} got one with a valid trace. In the labelling runs {int((labelling > 0).sum())} "
        f"had one or more (of {np.median(drawn):.0f} each), and of the base policy's {np.median(asked):.0f} samples "
        f"each {int((base > 0).sum())} had one or more."
    )


def _finding(found: Training) -> Finding:
    claim = "Unlearnable items get correct rollouts in training, and their success does not rise"
    parts: Mapping[str, Training] = {name: found.of(name) for name in ("learnable", "unlearnable")}
    rises = {name: rise(part) for name, part in parts.items()}
    ours, theirs = rises["unlearnable"], rises["learnable"]
    if ours is None or theirs is None or ours[1] is None:
        return Finding(2, claim, "too few rollouts in a quarter of the training", "cannot be said")
    rewarded = float((parts["unlearnable"].correct.sum(axis=(1, 2)) >= 2).mean())
    here = (
        f"{pct(rewarded)} of them got two or more in {found.n.shape[1]} runs; from the first quarter of training to "
        f"the last their rate changed by {points(ours[0])} (95 %: {point_span(ours[1])}), that of learnable items by "
        f"{points(theirs[0])}"
    )
    if rewarded < 0.5 or ours[1][0] > RISE:
        return Finding(2, claim, here, "differs")
    return Finding(2, claim, here, "agrees" if ours[1][1] < RISE else "cannot be said")
