"""The figures of the leaderboard's site that are not a run's: what a split holds, and the phenomenon for a newcomer.

Plain arrays in, inline SVG out, as in `drawing`. A picture is narrow enough to be read on a phone without scrolling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from unlearnbench.leaderboard.site.drawing import COLOURS, INK, MARKERS, MUTED, PERCENT, SERIES, Array, drawing

PICTURE = (4.9, 3.5)
"""Inches: on a phone its 9-point text is about 9 pixels high."""
_BAR = 0.62


@dataclass(frozen=True)
class Strip:
    """The rates of a group's items before and after training, as fractions, each of shape (items,); NaN: unknown."""

    name: str
    before: Array
    after: Array | None


def strips_plot(strips: Sequence[Strip], *, tau: float) -> str:
    """Every item as a dot: for each group its rates before and, beside them, after training; a bar at the mean."""
    draw = np.random.Generator(np.random.Philox(key=0))  # only for where a dot lies within its column
    with drawing("strips", "Rate of every item by group, before and after training", (9.6, 4.0)) as (figure, svg):
        axes = figure.subplots()
        for number, strip in enumerate(strips):
            columns = [(strip.before, -0.21, MUTED)]
            columns += [] if strip.after is None else [(strip.after, 0.21, COLOURS[0])]
            for rates, shift, colour in columns:
                x = number + shift + draw.uniform(-0.15, 0.15, len(rates))
                axes.scatter(x, rates, s=5, c=colour, alpha=0.55, linewidths=0)
                if np.isfinite(rates).any():
                    axes.hlines(np.nanmean(rates), number + shift - 0.19, number + shift + 0.19, color=INK, lw=1.8)
        _tau(axes, tau)
        axes.set_xticks(range(len(strips)), [f"{strip.name}\n{len(strip.before)} items" for strip in strips])
        axes.set(xlim=(-0.55, len(strips) - 0.1), ylim=(-0.02, 1.02), ylabel="rate of correct rollouts (%)")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.tick_params(axis="x", length=0)
        handles = [_dot(MUTED, "o", "base policy"), _dot(COLOURS[0], "o", "after GRPO")]
        handles.append(Line2D([], [], color=INK, lw=1.8, label="mean of the group"))
        figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.4)
    return svg[0]


def same_start_plot(strips: Sequence[Strip], *, tau: float) -> str:
    """Items as dots, the rate before training against the rate after it, one colour and shape per group."""
    draw = np.random.Generator(np.random.Philox(key=0))
    with drawing("start", "Rate of hard items before and after training", PICTURE) as (figure, svg):
        axes = figure.subplots()
        for number, strip in enumerate(strips):
            if strip.after is None:
                continue
            colour, marker = COLOURS[number % SERIES], MARKERS[number % len(MARKERS)]
            x = strip.before + draw.uniform(-0.0025, 0.0025, len(strip.before))  # equal counts would hide each other
            axes.scatter(x, strip.after, s=9, c=colour, marker=marker, alpha=0.6, linewidths=0)
        _tau(axes, tau)
        axes.set(ylim=(-0.03, 1.03), xlabel="correct rollouts before training (%)", ylabel="after GRPO (%)")
        axes.xaxis.set_major_formatter(PERCENT)
        axes.yaxis.set_major_formatter(PERCENT)
        handles = [
            _dot(COLOURS[number % SERIES], MARKERS[number % len(MARKERS)], f"{strip.name} ({len(strip.before)})")
            for number, strip in enumerate(strips)
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.2)
    return svg[0]


def luck_plot(rows: Sequence[tuple[str, float]]) -> str:
    """Shares of the unlearnable items by rule (fractions) as bars, the value in percent at each end."""
    with drawing("luck", "What counts of GRPO re-run by each rule", (PICTURE[0], 0.6 + 0.5 * len(rows))) as (
        figure,
        svg,
    ):
        axes = figure.subplots()
        colours = [MUTED] * (len(rows) - 1) + [COLOURS[0]]
        axes.barh(range(len(rows)), [share for _, share in rows], _BAR, color=colours, linewidth=0)
        for number, (_, share) in enumerate(rows):
            axes.annotate(f"{100 * share:.1f} %", (share, number), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.set(xlabel="unlearnable problems (%)", xlim=(0, 1.18 * max((share for _, share in rows), default=1) or 1))
        axes.xaxis.set_major_formatter(PERCENT)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
    return svg[0]


def sorted_rates_plot(curves: Mapping[str, Array], *, tau: float) -> str:
    """Rates of the same items under several policies, each sorted by itself: the room between two curves is a gain."""
    with drawing("sorted", "Sorted rates of the unlearnable items under each policy", PICTURE) as (figure, svg):
        axes = figure.subplots()
        for number, (name, rates) in enumerate(curves.items()):
            colour = MUTED if number == 0 else COLOURS[(number - 1) % SERIES]
            style = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))[number % 4]
            share = 100 * (np.arange(len(rates)) + 0.5) / max(len(rates), 1)
            axes.plot(share, np.sort(rates)[::-1], color=colour, lw=1.8, ls=style, label=name)
        _tau(axes, tau, 0.8)
        axes.set(xlim=(0, 100), ylim=(-0.03, 1.03), xlabel="unlearnable items, best first (%)")
        axes.set_ylabel("rate of correct rollouts (%)")
        axes.yaxis.set_major_formatter(PERCENT)
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return svg[0]


def rewards_plot(curves: Mapping[str, tuple[Array, Array]]) -> str:
    """Mean reward of each group's rollouts over the steps of one training run: steps and rewards by group."""
    with drawing("rewards", "Mean reward in training by group", (9.6, 3.2)) as (figure, svg):
        axes = figure.subplots()
        for number, (name, (steps, rewards)) in enumerate(curves.items()):
            axes.plot(
                steps, rewards, color=COLOURS[number % SERIES], marker=MARKERS[number % 7], ms=3, lw=1.5, label=name
            )
        axes.set(xlabel="step", ylabel="mean reward of rollouts")
        figure.legend(loc="outside upper left", ncols=4, columnspacing=1.4)
    return svg[0]


def _tau(axes: Axes, tau: float, at: float = 1.0) -> None:
    """The line of tau, named left of the place `at`, a share of the width."""
    axes.axhline(tau, color=INK, lw=0.8, ls=(0, (4, 3)))
    place = ("axes fraction", "data")
    axes.annotate(f"tau {100 * tau:g} %", (at, tau), (0, 3), xycoords=place, textcoords="offset points", ha="right")


def _dot(colour: str, marker: str, label: str) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, ls="", ms=5, label=label)
