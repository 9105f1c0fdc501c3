"""comparison.html and comparison.json: runs against one another, with a figure of each pair's items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup

from unlearnbench import plots, tables
from unlearnbench.comparison import Comparison, Pair
from unlearnbench.comparison_text import named, sentences, several
from unlearnbench.notation import plain
from unlearnbench.report import POOLED, templates

MAX_FAMILIES = 16  # of a figure: those that differ most; the table has all
MAX_ITEMS = 200  # of a table; comparison.json has all


def write_page(folder: Path, told: Comparison) -> Path:
    """Write both files and return the page's path. The same comparison gives the same bytes.

    Raises RunError if they cannot be written.
    """
    folder = Path(folder)
    tables.write_json(folder / "comparison.json", told.model_dump(mode="json"))
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
    tables.write_bytes(path, text.encode("utf-8", "replace"))
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
    return Markup(plots.pair_plot(sides[0], sides[1], list(who.values()), shown, threshold=POOLED, name=name))


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
