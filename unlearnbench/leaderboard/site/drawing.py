"""How the site's figures are drawn: by matplotlib, as inline SVG.

Colours are CSS variables of the page, so that one figure serves light, dark and print; text stays text. The same
arrays give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

Array = NDArray[np.float64]

SERIES = 7
"""Colours for categories; what comes after them is shown as `other`."""

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
    "text.parse_math": False,  # names of families are not mathematics, whatever dollars are in them
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


PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.3g}".replace("-", "\N{MINUS SIGN}"))


@contextmanager
def drawing(name: str, label: str, inches: tuple[float, float]) -> Iterator[tuple[Figure, list[str]]]:
    """A figure, and a list that contains its SVG after the block."""
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
