"""How a run's training went: the rate of correct rollouts by group beside the null control's, and six quantities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from unlearnbench.reports.charts import Array, Line, lines
from unlearnbench.reports.formatting import plural
from unlearnbench.reports.run_files import Run
from unlearnbench.scoring.curves import WINDOW, group_curve, window_of
from unlearnbench.training.ledger import read_metrics

CURVES = ("easy", "learnable", "unlearnable")
SPIKE = 4.0
"""A panel ends at its 98th percentile times 1.25 where its highest value is so many times that percentile."""
_PANELS: Sequence[tuple[str, str, bool, Callable[[Mapping[str, Any]], Any]]] = (
    ("reward", "mean of a step's rollouts", False, lambda step: step["reward"]),
    ("kept groups", "% of the groups drawn", True, lambda step: step["kept_groups"] / step["groups"]),
    ("KL to the start", "nats per token", False, lambda step: step["kl"]),
    ("gradient norm", "before clipping", False, lambda step: step["gradient_norm"]),
    ("entropy", "nats per token", False, lambda step: step["entropy"]),
    ("length", "tokens per rollout", False, lambda step: step["length"]),
    ("clipped ratios", "% of tokens", True, lambda step: step["clipped"]),
    ("truncated rollouts", "% of rollouts", True, lambda step: step["truncated"]),
)
_MOST_PANELS = 6


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    svg: Markup
    note: str


def window(run: Run) -> int:
    """Steps of the means that a run's curves and panels are drawn from."""
    if run.curves is not None and run.curves.num_rows:
        return window_of(int(run.curves["step"].to_numpy().max()) + 1)
    return WINDOW if run.result.steps is None else window_of(round(run.result.steps.made))


def curves_figure(run: Run) -> Markup | None:
    """Correct rollouts of easy, learnable and unlearnable items, with the band of the seeds and that of the null."""
    if run.curves is None:
        return None
    series, said, steps = [], [], window(run)
    for group in CURVES:
        null = None if run.null_curves is None else group_curve(run.null_curves, group, steps)
        mine = group_curve(run.curves, group, steps)
        if mine is None:
            continue
        if null is not None:
            series.append(Line(f"{group}, null control", group, null.steps, null.mean, *null.band, broken=True))
        series.append(Line(group, group, mine.steps, mine.mean, *mine.band))
        first, last = (100 * float(mine.mean[place]) for place in (0, -1))
        said.append(f"{group}: {first:.0f} % in the first {plural(steps, 'step')}, {last:.0f} % in the last")
    if not series:
        return None
    return lines(series, share=True, label="Correct rollouts in training. " + "; ".join(said))


def panels(run: Run) -> list[Panel]:
    """The first six quantities that were logged, each seed's means of `window` steps; none of a run without metrics."""
    logged = {seed: read_metrics(run.folder / seed) for seed in run.seeds}
    found, size = [], window(run)
    for title, unit, share, value in _PANELS:
        curves = {seed: _smooth(_series(steps, value), size) for seed, steps in logged.items() if steps}
        known = [values for values in curves.values() if np.isfinite(values[1]).any()]
        if not known:
            continue
        every = np.concatenate([values[np.isfinite(values)] for _, values in known])
        high = float(np.quantile(every, 0.98))
        top, note = None, ""
        if float(every.max()) > SPIKE * high > 0:
            top, note = 1.25 * high, f"clipped: the highest value is {float(every.max()):.3g}"
        series = [Line(seed, f"s{number % 7}", *values) for number, (seed, values) in enumerate(curves.items())]
        svg = lines(series, share=share, label=f"{title}, {unit}, by seed", height=110, top=top)
        found.append(Panel(title, unit, svg, note))
    return found[:_MOST_PANELS]


def _series(steps: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any]) -> Array:
    """One quantity over the steps; NaN where a step did not log it (no group had a signal)."""

    def at(step: Mapping[str, Any]) -> float:
        try:
            return float(value(step))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return math.nan

    return np.array([at(step) for step in steps], dtype=np.float64)


def _smooth(values: Array, window: int) -> tuple[Array, Array]:
    """Means of the known values of `window` steps, five per window and at most 200 of them."""
    stride = max(1, window // 5, -(-len(values) // 200))
    middles = np.arange(0, len(values), stride)
    known, filled = np.isfinite(values), np.nan_to_num(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(part)]) for part in (filled, known.astype(float)))
    low, high = np.maximum(middles - window // 2, 0), np.minimum(middles + window // 2 + 1, len(values))
    number = counts[high] - counts[low]
    return middles.astype(float), np.where(number > 0, (sums[high] - sums[low]) / np.maximum(number, 1), np.nan)
