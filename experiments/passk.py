"""Experiment 6: pass@k before and after GRPO, k to 256: did training move what the policy can reach at all?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.figures import Curve, passk_figure
from experiments.markdown import Finding, Section, blocks, paragraph, table
from experiments.runs import Runs, cells_of, of_group
from experiments.sweep import MANY_SAMPLES
from unlearnbench.records import Interval, Item
from unlearnbench.reports.formatting import pct, point_span, points
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.intervals import Arm, mean_interval
from unlearnbench.scoring.rates import Reals, pass_at_k
from unlearnbench.splits import Split

GROUPS = ("unlearnable", "learnable", "easy")
RUN = "grpo-256-samples"


@dataclass(frozen=True)
class Reached:
    """pass@k of a group's items, arrays of shape (items, policies, k); NaN where there are fewer samples than k."""

    items: list[Item]
    k: list[int]
    before: Reals
    after: Reals

    def mean(self, after: bool) -> Reals:
        """Over items and policies, shape (k,)."""
        values: Reals = (self.after if after else self.before).mean(axis=(0, 1))
        return values

    def at(self, k: int) -> str:
        """pass@k of the policy before, in words."""
        return pct(float(self.mean(after=False)[self.k.index(k)]))

    def change(self, place: int) -> tuple[float, Interval | None]:
        """After less before, items paired, with its interval over families and seeds."""
        seeds = self.after[:, :, place]
        values = seeds.mean(axis=1) - self.before[:, 0, place]
        runs = seeds.shape[1]
        moved = (seeds - seeds.mean(axis=1, keepdims=True)).T / np.sqrt(max(runs * (runs - 1), 1))
        arm = Arm(seeds.mean(axis=1), moved, runs - 1)
        names, families = [item.item_id for item in self.items], [item.family for item in self.items]
        return float(values.mean()), mean_interval(
            values, names, families, [arm], beyond=True, rollouts=float(MANY_SAMPLES)
        )


def base_cells(split: Split, items: list[Item], phase: str = "base") -> Cells:
    """The base policy's counts of these items: `base` labelled them, `base_fresh` took no part in that."""
    return Cells.of(read_phase(split.counts(), phase, [item.item_id for item in items]))


def reached(before: Cells, after: Cells, items: list[Item]) -> Reached:
    """pass@k for k = 1, 2, 4, ... up to the samples after training."""
    most = int(after.n.min())
    k = [2**power for power in range(most.bit_length()) if 2**power <= most]
    stacked = [np.stack([pass_at_k(cells.correct, cells.n, n) for n in k], axis=2) for cells in (before, after)]
    return Reached(items, k, *stacked)


def section(runs: Runs, pictures: Path) -> Section:
    """The figure, its numbers at a few k, and whether the reach grew."""
    title = "pass@k before and after GRPO"
    run = runs.get(RUN)
    if run is None:
        return Section(title, f"The run `{RUN}` is missing.")
    groups = {}
    for group in GROUPS:
        items = of_group(runs.split, group)
        groups[group] = reached(base_cells(runs.split, items), cells_of(run, items), items)
    panels = {
        name: {"base policy": _curve(part.before), "after GRPO (1x)": _curve(part.after)}
        for name, part in groups.items()
    }
    passk_figure(pictures / "experiments-passk.png", groups["unlearnable"].k, panels)
    fresh = base_cells(runs.split, groups["unlearnable"].items, "base_fresh")
    few, many = reached(fresh, fresh, groups["unlearnable"].items), groups["unlearnable"]
    text = blocks(
        paragraph(
            "Unbiased pass@k, the mean over items: the base policy from",
            f"{int(runs.split.config.protocol.samples.base)} samples an item, GRPO at 1x from {run.result.samples} in",
            f"each of {len(run.result.seeds)} seeds, both as the protocol samples (temperature 0.7, top-p 0.95). The",
            "band is from the lowest seed to the highest.",
        ),
        "![pass@k by group before and after GRPO](experiments-passk.png)",
        _table(groups),
        paragraph(
            "The base samples are those that labelled the items, of which unlearnable ones were chosen for low",
            f"rates; in {int(fresh.n.min())} fresh samples the base's pass@1 on them is {few.at(1)} (labelling",
            f"samples: {many.at(1)}), and its pass@{few.k[-1]} {few.at(few.k[-1])} ({many.at(few.k[-1])}).",
        ),
    )
    return Section(title, text, [_finding(groups["unlearnable"])])


def _curve(values: Reals) -> Curve:
    by_policy = values.mean(axis=0)
    return Curve(by_policy.mean(axis=0), by_policy.min(axis=0), by_policy.max(axis=0))


def _table(groups: dict[str, Reached]) -> str:
    rows = []
    for name, part in groups.items():
        for k in (1, 16, part.k[-1]):
            place = part.k.index(k)
            change, interval = part.change(place)
            ends = "" if interval is None else f" ({point_span(interval)})"
            cells = [part.at(k), pct(float(part.mean(after=True)[place])), f"{points(change)}{ends}"]
            rows.append([name, str(k), *cells])
    return table(["group", "k", "base policy", "after GRPO", "change (95 % over families and seeds)"], rows)


def _finding(part: Reached) -> Finding:
    place = len(part.k) - 1
    change, interval = part.change(place)
    claim = f"GRPO does not widen what is reached on unlearnable items: pass@{part.k[place]} does not rise"
    here = f"pass@{part.k[place]} changes by {points(change)}"
    if interval is None:
        return Finding(6, claim, here, "cannot be said", of_paper=False)
    here += f" (95 %: {point_span(interval)})"
    if interval[0] > 0:
        return Finding(6, claim, here, "differs", of_paper=False)
    return Finding(6, claim, here, "agrees" if interval[1] <= 0.05 else "cannot be said", of_paper=False)
