"""The page's pictures: arrays in, a small PNG out. The same arrays give the same picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from unlearnbench.io import files
from unlearnbench.records import Interval
from unlearnbench.scoring.rates import Reals

COLOURS = {"easy": "#2a78c4", "learnable": "#1e8f5b", "unlearnable": "#c8442e"}
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#6b7280",
    "axes.labelcolor": "#374151",
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e5e7eb",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
}
_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g}")


Gain = tuple[float | None, Interval | None]
"""A gain and its 95 % interval, as fractions."""


@dataclass(frozen=True)
class Curve:
    """Values over the places of an axis, with the ends of a band; NaN leaves a gap."""

    middle: Reals
    low: Reals
    high: Reals


def curves_figure(path: Path, steps: Mapping[str, Reals], curves: Mapping[str, Curve]) -> None:
    """Rates of correct rollouts over the steps of training, one curve per group with its own steps."""
    with _picture(path, (7.2, 3.2)) as figure:
        axes = figure.subplots()
        for name, curve in curves.items():
            _band(axes, steps[name], curve, COLOURS[name], name)
        axes.set(xlim=(0, None), ylim=(0, 1), xlabel="step", ylabel="correct rollouts (%)")
        axes.yaxis.set_major_formatter(_PERCENT)
        figure.legend(loc="outside upper left", ncols=len(curves))


def gains_figure(path: Path, panels: Mapping[str, Mapping[str, Gain]]) -> None:
    """Gains of methods with their intervals, one panel per score; the methods of all panels are the same."""
    names = list(next(iter(panels.values())))
    with _picture(path, (9.0, 1.2 + 0.2 * len(names))) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, gains), colour in zip(grid, panels.items(), cycle(COLOURS.values()), strict=False):
            axes.axvline(0, color="#374151", lw=0.8)
            for place, (value, interval) in enumerate(gains.values()):
                if interval is not None:
                    axes.hlines(place, *interval, color=colour, lw=1.6, alpha=0.5)
                if value is not None:
                    axes.plot(value, place, color=colour, marker="o", ms=3.5)
            axes.set_yticks(range(len(names)), names, fontsize=7.5)
            axes.set(title=title, xlabel="points")
            axes.grid(axis="x")
            axes.xaxis.set_major_formatter(_PERCENT)
        grid[0].set_ylim(len(names) - 0.5, -0.5)


def _band(axes: Axes, x: Reals, curve: Curve, colour: str, name: str) -> None:
    axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, curve.middle, color=colour, lw=1.5, marker="o", ms=3.5, label=name)


@contextmanager
def _picture(path: Path, inches: tuple[float, float]) -> Iterator[Figure]:
    """A figure that is written to `path` once the block has ended."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches)
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        files.write_bytes(path, buffer.getvalue())
