"""The page's pictures: arrays in, a small PNG out. The same arrays give the same picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from unlearnbench.io import files
from unlearnbench.scoring.rates import Reals

COLOURS = {"easy": "#2a78c4", "learnable": "#1e8f5b", "unlearnable": "#c8442e"}
_OTHERS = ("#2a78c4", "#c8442e", "#1e8f5b", "#8a5bb5", "#b07d12", "#5c6670")
_MARKERS = "osD^vP"
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


@dataclass(frozen=True)
class Curve:
    """Values over the places of an axis, with the ends of a band; NaN leaves a gap."""

    middle: Reals
    low: Reals
    high: Reals


def curves_figure(path: Path, steps: Reals, curves: Mapping[str, Curve]) -> None:
    """Success rates over the steps of training, one curve a group."""
    with _picture(path, (7.2, 3.2)) as figure:
        axes = figure.subplots()
        for name, curve in curves.items():
            _band(axes, steps, curve, COLOURS[name], "o", name)
        axes.set(xlim=(0, None), ylim=(0, 1), xlabel="step", ylabel="correct rollouts (%)")
        axes.yaxis.set_major_formatter(_PERCENT)
        figure.legend(loc="outside upper left", ncols=len(curves))


def passk_figure(path: Path, k: Sequence[int], panels: Mapping[str, Mapping[str, Curve]]) -> None:
    """pass@k over k, one panel a group, one curve a policy."""
    with _picture(path, (7.2, 3.2)) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (group, curves) in zip(grid, panels.items(), strict=True):
            for number, (name, curve) in enumerate(curves.items()):
                shown = np.isfinite(curve.middle)
                part = Curve(curve.middle[shown], curve.low[shown], curve.high[shown])
                _band(axes, np.array(k)[shown], part, _OTHERS[number], _MARKERS[number], name)
            axes.set_xscale("log", base=2)
            axes.set_xticks(k[::2], [str(value) for value in k[::2]])
            axes.minorticks_off()
            axes.set(xlabel="k", title=group, ylim=(0, 1.02))
            axes.yaxis.set_major_formatter(_PERCENT)
        grid[0].set_ylabel("pass@k (%)")
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=len(names))


def blocks_figure(path: Path, places: Sequence[str], panels: Mapping[str, Mapping[str, Curve]]) -> None:
    """Mean cosines of pairs of groups at several policies, one panel a choice of parameters."""
    with _picture(path, (9.0, 3.8)) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, curves) in zip(grid, panels.items(), strict=True):
            axes.axhline(0, color="#374151", lw=0.8)
            for number, (name, curve) in enumerate(curves.items()):
                x = np.arange(len(places)) + 0.06 * (number - (len(curves) - 1) / 2)
                colour, marker = _OTHERS[number % len(_OTHERS)], _MARKERS[number % len(_MARKERS)]
                axes.vlines(x, curve.low, curve.high, color=colour, lw=1.6, alpha=0.5)
                axes.plot(x, curve.middle, color=colour, lw=1.1, marker=marker, ms=4, label=name)
            axes.set_xticks(range(len(places)), places)
            axes.set_title(title)
        grid[0].set_ylabel("mean cosine")
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=3)


def _band(axes: Axes, x: Reals, curve: Curve, colour: str, marker: str, name: str) -> None:
    axes.fill_between(x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, curve.middle, color=colour, lw=1.5, marker=marker, ms=3.5, label=name)


@contextmanager
def _picture(path: Path, inches: tuple[float, float]) -> Iterator[Figure]:
    """A figure that is written to `path` once the block has ended."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches)
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        files.write_bytes(path, buffer.getvalue())
