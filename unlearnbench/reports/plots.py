"""The report's figures: plain arrays in, inline SVG out.

Colours are CSS variables of the page, so that one figure serves light, dark and print; text stays text. The same
arrays give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

Array = NDArray[np.float64]

SERIES = 7
"""Colours for categories; what comes after them is shown as `other`."""
MAX_POINTS = 400  # of a curve: more cannot be told apart on a page
MAX_CURVES = 1200  # points of all the seeds' curves of a panel, which are a page's bulk

MARKERS = "osD^vPX"
"""Categories differ in shape too, for those who cannot tell the colours apart."""

# matplotlib knows no CSS variables: it draws in these colours, which the SVG then has replaced.
INK, MUTED, GRID, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
COLOURS = tuple(f"#0d0e{number:02x}" for number in range(1, SERIES + 1))
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "rule", PAPER: "paper"} | {
    colour: f"series-{number}" for number, colour in enumerate(COLOURS, start=1)
}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unlearnbench",
    "text.parse_math": False,  # names of families are no mathematics, whatever dollars are in them
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True)
class Panel:
    """One quantity over the steps of training, by seed. `share`: a fraction, drawn in percent."""

    title: str
    unit: str
    seeds: Mapping[str, Array]
    share: bool = False


def learning_curves(panels: Sequence[Panel]) -> str:
    """One small plot a quantity: seeds thin, their mean over the steps that all of them reached thick."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with drawing("curves", "Learning curves of each seed", (9.6, 0.3 + 2.05 * rows)) as (figure, svg):
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _curve(axes, panel)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        seeds = list(panels[0].seeds)
        handles = [Line2D([], [], color=_seed_colour(n), lw=0.9, label=f"seed {s}") for n, s in enumerate(seeds)]
        if len(seeds) > 1:
            handles.append(Line2D([], [], color=INK, lw=1.8, label="mean of the seeds"))
        figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 8))
    return svg[0]


def _curve(axes: Axes, panel: Panel) -> None:
    curves = list(panel.seeds.values())
    points = int(np.clip(MAX_CURVES // len(curves), 50, MAX_POINTS))
    for number, values in enumerate(curves):
        x, y = _thinned(values, points)
        axes.plot(x, y, color=_seed_colour(number), lw=0.8, alpha=0.65)
    common = min(len(values) for values in curves)
    if len(curves) > 1:
        x, y = _thinned(np.mean([values[:common] for values in curves], axis=0))
        axes.plot(x, y, color=INK, lw=1.5)
    axes.set_title(panel.title)
    axes.set(xlabel="step", ylabel=panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    if panel.share:
        axes.set_ylim(0, max(axes.get_ylim()[1], 0.01))
        axes.yaxis.set_major_formatter(PERCENT)


def _thinned(values: Array, points: int = MAX_POINTS) -> tuple[Array, Array]:
    """Steps and values, as means of blocks where there are too many. A step without a value (NaN) stays a gap."""
    block = -(-len(values) // points)
    full = len(values) // max(block, 1) * block
    steps = np.arange(full, dtype=np.float64).reshape(-1, max(block, 1)).mean(axis=1)
    return steps, values[:full].reshape(-1, max(block, 1)).mean(axis=1)


def _seed_colour(number: int) -> str:
    return COLOURS[number % SERIES]


PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g}".replace("-", "\N{MINUS SIGN}"))


@contextmanager
def drawing(name: str, label: str, inches: tuple[float, float]) -> Iterator[tuple[Figure, list[str]]]:
    """A figure, and a list that holds its SVG once the block has ended."""
    done: list[str] = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=inches)
        yield figure, done
        buffer = io.StringIO()
        # Not savefig, which draws everything twice, first for nothing but the layout.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
        done.append(_inline(buffer.getvalue(), name, label))


def _inline(svg: str, name: str, label: str) -> str:
    """The drawing alone, for a page: no prologue, metadata or namespace; ids that are unique on the page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[\d. ]+"', head)
    assert box is not None
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(?<= id=")(?=\w)|(?<=href="#)|(?<=url\(#)', f"{name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    return f'<svg {box[0]} role="img" aria-label="{escape(label)}">{body.strip()}'
