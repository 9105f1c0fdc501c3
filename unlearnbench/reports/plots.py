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
from matplotlib.collections import PathCollection
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
_SIDES = (MUTED, COLOURS[1], COLOURS[0], COLOURS[2])  # of items converted in neither run, the first, the second, both
_FATE_COLOURS = (GRID, COLOURS[5], COLOURS[4], COLOURS[2])  # never, flickered, converted, held
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
class Rates:
    """Success rates of items, as fractions, with the ends of their intervals; all of shape (items,)."""

    rate: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Panel:
    """One quantity over the steps of training, by seed. `share`: a fraction, drawn in percent."""

    title: str
    unit: str
    seeds: Mapping[str, Array]
    share: bool = False


@dataclass(frozen=True)
class Fated:
    """A group's items in training: how many (item, seed) pairs met each fate, and the first correct steps, sorted."""

    name: str
    met: Sequence[int]
    first_steps: NDArray[np.int64]


def conversion_plot(
    after: Rates,
    categories: Sequence[str],
    *,
    before: Array | None = None,
    before_label: str = "",
    null: Array | None = None,
    null_label: str = "",
    tau: float,
    threshold: float,
) -> str:
    """Rate of each item after training with its interval, sorted, beside its rate before.

    `categories` names what each item is coloured by. `null` are the rates of the same items under the null control,
    drawn as a line in an order of their own: the curve that a method has to rise above.
    """
    order = np.argsort(-after.rate, kind="stable")
    place = np.arange(1, len(order) + 1)
    names = _commonest(categories)
    shown = np.array([name if name in names else "other" for name in categories])[order]
    with drawing("conversion", "Rate of each unlearnable item after training", (9.6, 3.9)) as (figure, svg):
        axes = figure.subplots()
        width = float(np.clip(260 / max(len(order), 1), 0.5, 2.0))
        size = float(np.clip(1100 / max(len(order), 1), 5, 26))
        if before is not None:
            axes.scatter(place, before[order], s=size * 0.5, c=MUTED, linewidths=0, label=before_label, zorder=2)
        if null is not None:
            axes.step(place, np.sort(null)[::-1], where="mid", color=INK, lw=1.1, label=null_label, zorder=2.5)
        for number, name in enumerate([*names, "other"] if "other" in shown else names):
            mine = shown == name
            colour = MUTED if name == "other" else COLOURS[number % SERIES]
            x, rate = place[mine], after.rate[order][mine]
            axes.vlines(x, after.low[order][mine], after.high[order][mine], color=colour, lw=width, alpha=0.45)
            marker = MARKERS[number % len(MARKERS)]
            label = f"{name if len(name) <= 24 else name[:23] + '…'} ({int(mine.sum())})"
            axes.scatter(x, rate, s=size, c=colour, marker=marker, linewidths=0, label=label, zorder=3)
        for level, text in ((threshold, f"pooled rate {100 * threshold:g} %"), (tau, f"tau {100 * tau:g} %")):
            axes.axhline(level, color=INK, lw=0.8, ls=(0, (4, 3)))
            axes.annotate(
                text, (1, level), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right"
            )
        axes.set(xlim=(0, len(order) + 1), ylim=(-0.02, 1.02), ylabel="rate of correct rollouts (%)")
        axes.set_xlabel("unlearnable items, sorted by their rate after training (rank)")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        legend = figure.legend(loc="outside upper left", ncols=4, handletextpad=0.4, columnspacing=1.4)
        for handle in legend.legend_handles:
            if isinstance(handle, PathCollection):
                handle.set_sizes([22])  # as drawn among hundreds of items they are too small to tell apart
    return svg[0]


def gain_plot(
    rows: Sequence[tuple[str, float, tuple[float, float]]], what: str = "conversion gain", name: str = "gain"
) -> str:
    """Values with intervals (as fractions, in points), one row each, against zero; `name` is unique on a page."""
    with drawing(name, f"{what.capitalize()} with its intervals", (9.6, 0.62 + 0.34 * len(rows))) as (figure, svg):
        axes = figure.subplots()
        for number, (_, value, (low, high)) in enumerate(rows):
            axes.hlines(-number, low, high, color=COLOURS[0], lw=3.0, alpha=0.55)
            axes.scatter([value], [-number], s=42, c=COLOURS[0], linewidths=0, zorder=3)
        axes.axvline(0, color=INK, lw=1.0)
        axes.set_yticks([-number for number in range(len(rows))], [name for name, _, _ in rows])
        axes.set(ylim=(0.6 - len(rows), 0.6), xlabel=f"{what} (percentage points)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False)
        axes.grid(visible=True, axis="x")
        axes.margins(x=0.08)
        axes.xaxis.set_major_formatter(PERCENT)
    return svg[0]


@dataclass(frozen=True)
class Side:
    """One of two runs: what it is called, the rate of every item, and the converted items of each family."""

    name: str
    rates: Array
    families: Sequence[float]


def pair_plot(
    first: Side, second: Side, who: Sequence[str], families: Sequence[str], *, threshold: float, name: str = "pair"
) -> str:
    """Left: every item's rate in both runs; right: how many items of each of `families` either run converted.

    `who` says which run converted an item: its name, "both" or "neither"; `threshold` is the pooled rate that a
    converted item reaches.
    """
    inches = (9.6, max(4.6, 1.3 + 0.22 * len(families)))
    with drawing(name, "Rate of each unlearnable item in both runs", inches) as (figure, svg):
        items, bars = figure.subplots(1, 2, width_ratios=(1.15, 1)) if families else (figure.subplots(), None)
        items.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (1, 3)))
        for line in (items.axhline, items.axvline):
            line(threshold, color=INK, lw=0.7, ls=(0, (4, 3)))
        converted = np.array(who, dtype=str)
        for what, colour, marker in zip(("neither", first.name, second.name, "both"), _SIDES, MARKERS, strict=False):
            mine = converted == what
            alone = "" if what in ("neither", "both") else " alone"
            label = f"converted in {what}{alone} ({int(mine.sum())})"
            items.scatter(
                first.rates[mine], second.rates[mine], s=24, c=colour, marker=marker, alpha=0.6, lw=0, label=label
            )
        items.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        items.set(xlabel=f"rate in {first.name} (%)", ylabel=f"rate in {second.name} (%)")
        for axis in (items.xaxis, items.yaxis):
            axis.set_major_formatter(PERCENT)
        items.grid(visible=True, axis="x")
        items.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, handletextpad=0.3, columnspacing=1.2)
        if bars is not None:
            _dumbbells(bars, (first, second), families)
    return svg[0]


def _dumbbells(axes: Axes, sides: tuple[Side, Side], families: Sequence[str]) -> None:
    places = np.arange(len(families))
    axes.hlines(places, sides[0].families, sides[1].families, color=MUTED, lw=1.4, alpha=0.6, zorder=1)
    for side, colour, marker in zip(sides, _SIDES[1:], MARKERS[1:], strict=False):
        axes.scatter(side.families, places, s=30, c=colour, marker=marker, lw=0, label=side.name, zorder=2)
    names = [name if len(name) <= 24 else name[:23] + "…" for name in families]
    axes.set_yticks(places, names)
    axes.set(ylim=(len(families) - 0.4, -0.6), xlabel="converted items of a family")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, handletextpad=0.3, columnspacing=1.2)


def fates_plot(groups: Sequence[Fated], names: Sequence[str]) -> str:
    """Left: the share of each group's pairs by fate. Right: the share that had had a correct rollout by each step.

    `groups` are the unlearnable and whatever they are compared with, at most seven; `names` name the four fates.
    """
    lines = [(INK, 1.8), *((colour, 1.1) for colour in COLOURS)]
    last = max((int(group.first_steps[-1]) for group in groups if len(group.first_steps)), default=0)
    with drawing("fates", "Fates of the items in training", (9.6, 1.5 + 0.28 * len(groups))) as (figure, svg):
        bars, curves = figure.subplots(1, 2)
        left = np.zeros(len(groups))
        for number, name in enumerate(names):
            share = np.array([group.met[number] / sum(group.met) for group in groups])
            bars.barh(range(len(groups)), share, 0.66, left, color=_FATE_COLOURS[number], linewidth=0, label=name)
            left += share
        bars.set_yticks(range(len(groups)), [group.name for group in groups])
        bars.invert_yaxis()
        bars.set(xlim=(0, 1), xlabel="items, once a seed (%)")
        bars.xaxis.set_major_formatter(PERCENT)
        bars.tick_params(axis="y", length=0)
        bars.grid(visible=False)
        bars.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, handlelength=1, columnspacing=1.2)
        for group, (colour, width) in zip(groups, lines, strict=False):
            steps, seen = _first_seen(group.first_steps)
            steps, seen = np.append(steps, max(last, 1)), np.append(seen, len(group.first_steps))
            curves.step(steps, seen / sum(group.met), where="post", color=colour, lw=width, label=group.name)
        curves.set(xlim=(0, max(last, 1)), ylim=(0, 1.02), xlabel="step", ylabel="had a correct rollout (%)")
        curves.yaxis.set_major_formatter(PERCENT)
        curves.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        curves.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, handlelength=1, columnspacing=1.2)
    return svg[0]


def _first_seen(first_steps: NDArray[np.int64]) -> tuple[Array, Array]:
    """Steps, and how many first correct rollouts had come by them; at most MAX_POINTS of them."""
    steps, counts = np.unique(first_steps, return_counts=True)
    seen = np.cumsum(counts)
    if len(steps) > MAX_POINTS:
        shown = np.unique(np.linspace(0, len(steps) - 1, MAX_POINTS).astype(int))
        steps, seen = steps[shown], seen[shown]
    return np.concatenate([[0.0], steps]), np.concatenate([[0.0], seen])


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


def lines_plot(
    name: str, label: str, x: Sequence[str], series: Mapping[str, Sequence[tuple[float, float, float]]], xlabel: str
) -> str:
    """Values with the ends of their intervals (all equal where there is none), one line a series over the places x.

    A value that is NaN leaves a gap.
    """
    with drawing(name, label, (9.6, 3.4)) as (figure, svg):
        axes = figure.subplots()
        axes.axhline(0, color=INK, lw=0.8)
        for number, (title, values) in enumerate(series.items()):
            colour, marker = COLOURS[number % SERIES], MARKERS[number % len(MARKERS)]
            middle, low, high = np.array(values, dtype=np.float64).reshape(-1, 3).T
            places = np.arange(len(middle)) + 0.04 * (number - (len(series) - 1) / 2)
            axes.vlines(places, low, high, color=colour, lw=1.6, alpha=0.5)
            axes.plot(places, middle, color=colour, lw=1.2, marker=marker, ms=5, label=title)
        axes.set_xticks(range(len(x)), x)
        axes.set(xlim=(-0.4, len(x) - 0.6), xlabel=xlabel, ylabel="mean cosine")
        figure.legend(loc="outside upper left", ncols=4, columnspacing=1.4)
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


def _commonest(categories: Sequence[str]) -> list[str]:
    """The categories that get a colour of their own, by name."""
    names, counts = np.unique(np.array(categories, dtype=str), return_counts=True)
    return sorted(str(name) for name in names[np.argsort(-counts, kind="stable")][:SERIES])


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
