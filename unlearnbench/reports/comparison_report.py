"""comparison.html and comparison.json: runs against one another, with a figure of each pair's items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup

from unlearnbench.io import files
from unlearnbench.reports import plots
from unlearnbench.reports.formatting import pct, plain, plural, point_span, points
from unlearnbench.reports.templating import templates
from unlearnbench.scoring.comparison import Comparison, Pair
from unlearnbench.scoring.conversion_rule import LEAST_RATE

MAX_FAMILIES = 16  # of a figure: those that differ most; the table has all
MAX_ITEMS = 200  # of a table; comparison.json has all


def write_page(folder: Path, told: Comparison) -> Path:
    """Write both files and return the page's path. The same comparison gives the same bytes.

    Raises RunError if they cannot be written.
    """
    folder = Path(folder)
    files.write_json(folder / "comparison.json", told.model_dump(mode="json"))
    text = (
        templates()
        .get_template("comparison.html")
        .render(
            told=told,
            warning=several(told),
            max_items=MAX_ITEMS,
            pairs=[
                {
                    "pair": pair,
                    "title": f"{named(told, pair.first)} against {named(told, pair.second)}",
                    "sentences": sentences(told, pair),
                    "gain": _gain(pair),
                    "figure": _figure(told, pair),
                    "families": _families(pair),
                    "moved": _moved(told, pair),
                }
                for pair in told.pairs
            ],
        )
    )
    path = folder / "comparison.html"
    files.write_bytes(path, text.encode("utf-8", "replace"))
    return path


def _gain(pair: Pair) -> Markup | None:
    ends = (("these families", pair.interval), ("families like these", pair.interval_families))
    rows = [(name, pair.gain, interval) for name, interval in ends if interval is not None]
    return (
        Markup(plots.gain_plot(rows, f"{pair.first} less {pair.second}", f"gain-{pair.first}-{pair.second}"))
        if rows
        else None
    )


def _figure(told: Comparison, pair: Pair) -> Markup:
    rates = {run.label: np.array(run.rates, dtype=np.float64) for run in told.runs}
    families = [name for name, _, first, second in _families(pair) if first != second][:MAX_FAMILIES]
    sides = [
        plots.Side(named(told, label), rates[label], [getattr(pair.families[name], place) for name in families])
        for label, place in ((pair.first, "first"), (pair.second, "second"))
    ]
    who = dict.fromkeys(told.item_ids, "neither")
    who |= dict.fromkeys(pair.both, "both")
    for side, items in zip(sides, (pair.only_first, pair.only_second), strict=True):
        who |= {item.item_id: side.name for item in items}
    name = f"pair-{pair.first}-{pair.second}"
    shown = [plain(family) for family in families]
    return Markup(plots.pair_plot(sides[0], sides[1], list(who.values()), shown, threshold=LEAST_RATE, name=name))


def _families(pair: Pair) -> list[tuple[str, int, float, float]]:
    """Of each family: name, items, converted in the first and in the second run; what differs most comes first."""
    rows = [(name, part.items, part.first, part.second) for name, part in pair.families.items()]
    return sorted(rows, key=lambda row: (-abs(row[2] - row[3]), row[0]))


def _moved(told: Comparison, pair: Pair) -> list[tuple[str, object]]:
    """The tables of items that one run alone converted, each under its title."""
    sides = ((pair.first, pair.second, pair.only_first), (pair.second, pair.first, pair.only_second))
    return [
        (f"Converted in {named(told, winner)} and not in {named(told, loser)}", items) for winner, loser, items in sides
    ]


def named(told: Comparison, label: str) -> str:
    """A run as the sentences call it: its letter and its method."""
    return next(f"{run.label} ({plain(run.method)})" for run in told.runs if run.label == label)


def claim(told: Comparison, pair: Pair) -> str:
    """Which of two runs converted more, if that can be said."""
    winner = {"first": pair.first, "second": pair.second}.get(pair.claim)
    if winner:
        return f"{named(told, winner)} converted more: the interval for families like these excludes 0."
    if pair.interval_families is None:
        return "No difference is claimed: without an interval for families like these, nothing follows."
    return "No difference is claimed: the interval for families like these holds 0."


def sentences(told: Comparison, pair: Pair) -> list[str]:
    """What two runs show against one another: both rates, the intervals, what is claimed, and at what cost."""
    first, second = named(told, pair.first), named(told, pair.second)
    said = []
    if pair.a_a:
        said.append("An A/A comparison: source, settings and start are the same, so only chance differs.")
    if pair.shared_draws:
        said.append(
            f"Seeds {', '.join(map(str, pair.shared_draws))} have equal counts in both: the same runs twice, which "
            "says nothing of chance."
        )
    said.append(
        f"With {pair.seeds[0]} and {plural(pair.seeds[1], 'seed')}, {first} converted {pct(pair.first_conversion)} "
        f"and {second} {pct(pair.second_conversion)} of {pair.items} items: {points(pair.gain)}."
    )
    these = "none" if pair.interval is None else point_span(pair.interval)
    beyond = "none" if pair.interval_families is None else point_span(pair.interval_families)
    said.append(f"95 % interval for these families: {these}; for families like these: {beyond}.")
    said.append(claim(told, pair))
    kept, cost = pair.retention, pair.cost
    if kept.difference is not None:
        interval = "" if kept.interval is None else f" (95 % interval {point_span(kept.interval)})"
        said.append(f"Rate of {kept.items} easy items: {points(kept.difference)}{interval}.")
    ratios = {"FLOPs": cost.flops, "generated tokens": cost.generated_tokens, "trained tokens": cost.trained_tokens}
    ratios["training seconds"] = cost.seconds
    shown = [f"{ratio:.2f} times the {name}" for name, ratio in ratios.items() if ratio is not None]
    said.append(f"Cost a seed, {first}: {', '.join(shown) or 'unknown'} of {second}.")
    return said


def several(told: Comparison) -> str | None:
    """What the number of comparisons does to their intervals; None for a single one."""
    if told.comparisons < 2:
        return None
    return (
        f"These are {told.comparisons} comparisons, each with 95 % intervals: if no method differed from any "
        f"other, at least one of them would still claim a difference in up to {min(100, 5 * told.comparisons)} % "
        "of such tables."
    )
