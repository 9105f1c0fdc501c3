"""Success by group over training steps as a picture: the values of the arXiv paper 2605.16787's Figure 1."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Line = Sequence[tuple[int, float]]
"""(step, rate) of one training run, steps ascending."""

COLOURS = {
    "easy": "#2a9d5c",
    "learnable": "#1f77b4",
    "unlearnable": "#d1495b",
    "no_reward": "#7f7f7f",
    "unstable": "#b07aa1",
    "boundary": "#e0a030",
}
WINDOWS = 20
"""A line is a moving mean over a twentieth of its points: the rate of one step's few items jumps."""


def step_figure(groups: Mapping[str, Sequence[Line]]) -> bytes:
    """A PNG: for each group the rate at each step as faint points and their moving mean, one line a training run.

    The same lines give the same bytes.
    """
    with mpl.rc_context({"text.parse_math": False, "font.family": "DejaVu Sans", "font.size": 9.0}):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.subplots()
        for group, lines in groups.items():
            for number, line in enumerate(lines):
                steps, rates = (np.array(values, np.float64) for values in zip(*line, strict=True))
                label = f"{group} ({len(lines)} runs)" if len(lines) > 1 else group
                axes.plot(steps, rates, ".", color=COLOURS[group], ms=3.0, alpha=0.3)
                axes.plot(
                    *_moving_mean(steps, rates), color=COLOURS[group], lw=1.4, label=label if number == 0 else None
                )
        axes.set(xlabel="step", ylabel="mean rate of correct rollouts", ylim=(-0.02, 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(axis="y", lw=0.5, color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper left", ncols=min(len(groups), 6), frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _moving_mean(
    steps: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    width = max(1, len(values) // WINDOWS)
    kernel = np.full(width, 1 / width)
    return np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid")
