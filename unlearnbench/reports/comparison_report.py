"""comparison.html and comparison.json: runs against one another; each pair opens with its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from unlearnbench.io import files
from unlearnbench.reports.charts import StripRow, scatter, strip
from unlearnbench.reports.formatting import number, p_value, pct, plain, point_span, points, signed
from unlearnbench.reports.summary import Figure
from unlearnbench.reports.templating import templates
from unlearnbench.scoring.comparisons.comparison import ComparedRun, Comparison, Pair
from unlearnbench.scoring.comparisons.pilot import PilotComparison
from unlearnbench.scoring.conversion_rule import LEAST_RATE
from unlearnbench.scoring.inference.permutation import MOST_P, least_p_two_sided

MAX_ITEMS = 200  # of a table; comparison.json has all


@dataclass(frozen=True)
class PairVerdict:
    """A pair in a few words, and in two sentences."""

    tone: str
    label: str
    summary: str


def write_page(folder: Path, told: Comparison, prompts: Mapping[str, str] | None = None) -> Path:
    """Write both files and return the page's path; `prompts` are shown beside the items that moved.

    The same comparison gives the same bytes. Raises RunError if they cannot be written.
    """
    folder = Path(folder)
    files.write_json(folder / "comparison.json", told.model_dump(mode="json"))
    page = templates().get_template("comparison.html")
    text = page.render(
        told=told,
        warning=several(told),
        max_items=MAX_ITEMS,
        prompts=prompts or {},
        pairs=[
            {
                "pair": pair,
                "title": f"{named(told, pair.first)} minus {named(told, pair.second)}",
                "verdict": pair_verdict(told, pair),
                "sentences": sentences(told, pair),
                "figures": _figures(told, pair),
                "strip": _strip(pair),
                "scatter": _scatter(told, pair),
                "families": _families(pair),
                "moved": _moved(told, pair),
            }
            for pair in told.pairs
        ],
    )
    path = folder / "comparison.html"
    files.write_bytes(path, text.encode("utf-8", "replace"))
    return path


def write_pilot(folder: Path, told: PilotComparison) -> Path:
    """The same for runs that are compared without a claim."""
    folder = Path(folder)
    files.write_json(folder / "comparison.json", told.model_dump(mode="json"))
    text = templates().get_template("pilot.html").render(told=told)
    path = folder / "comparison.html"
    files.write_bytes(path, text.encode("utf-8", "replace"))
    return path


def named(told: Comparison, label: str) -> str:
    """A run as the sentences call it: its letter and its method."""
    return f"{label} ({plain(_run(told, label).method)})"


def pair_verdict(told: Comparison, pair: Pair) -> PairVerdict:
    """Which of two runs converted more, if that can be said."""
    first, second = _run(told, pair.first), _run(told, pair.second)
    counts = f"{pair.first} converts {number(first.converted)} and {pair.second} {number(second.converted)} of "
    counts += f"{pair.items} unlearnable items."
    if pair.shared_draws:
        return PairVerdict("open", "The same runs twice", f"{counts} Equal counts say nothing of chance.")
    winner = {"first": (pair.first, pair.second), "second": (pair.second, pair.first)}.get(pair.claim)
    if winner is not None:
        ends = "" if pair.interval_families is None else f" (95 % interval {point_span(pair.interval_families)})"
        label = f"{winner[0]} converts more than {winner[1]}"
        return PairVerdict("more", label, f"{counts} The difference is {points(pair.gain)}{ends}.")
    if pair.interval_families is None:
        return PairVerdict("open", "No difference can be claimed", f"{counts} There is no interval for the difference.")
    if _excludes_zero(pair):
        return PairVerdict("open", "No difference can be claimed", f"{counts} {_large_p(pair)}")
    label = "An A/A comparison: no difference" if pair.a_a else "No difference detected"
    reach = max(abs(end) for end in pair.interval_families)
    return PairVerdict("same", label, f"{counts} A difference of up to {number(100 * reach)} points is not excluded.")


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
        f"{first} converted {pct(pair.first_conversion)} and {second} {pct(pair.second_conversion)} of {pair.items} "
        f"items ({pair.seeds[0]} and {pair.seeds[1]} seeds): {points(pair.gain)}."
    )
    these = "none" if pair.interval is None else point_span(pair.interval)
    beyond = "none" if pair.interval_families is None else point_span(pair.interval_families)
    said.append(f"95 % interval for these families: {these}; beyond them: {beyond}; p = {p_value(pair.p)} (two-sided).")
    said.append(claim(told, pair))
    solved = "" if pair.solved_interval is None else f" (95 % interval {point_span(pair.solved_interval)})"
    said.append(f"Solved, which counts memory too: {points(pair.solved_gain)}{solved}.")
    kept, cost = pair.retention, pair.cost
    if kept.difference is not None:
        interval = "" if kept.interval is None else f" (95 % interval {point_span(kept.interval)})"
        said.append(f"Rate of {kept.items} easy items: {points(kept.difference)}{interval}.")
    ratios = {"FLOPs": cost.flops, "generated tokens": cost.generated_tokens, "trained tokens": cost.trained_tokens}
    ratios["training seconds"] = cost.seconds
    shown = [f"{ratio:.2f} times the {name}" for name, ratio in ratios.items() if ratio is not None]
    said.append(f"Cost per seed, {first}: {', '.join(shown) or 'unknown'} of {second}.")
    return said


def claim(told: Comparison, pair: Pair) -> str:
    """Which of two runs converted more, if that can be said, in a sentence."""
    winner = {"first": pair.first, "second": pair.second}.get(pair.claim)
    if winner:
        return (
            f"{named(told, winner)} converted more: the interval beyond these families excludes 0, and p is at most "
            f"{MOST_P:g}."
        )
    if pair.interval_families is None:
        return "No difference is claimed: without an interval beyond these families, nothing follows."
    if _excludes_zero(pair):
        return f"No difference is claimed. {_large_p(pair)}"
    return "No difference is claimed: the interval beyond these families includes 0."


def _excludes_zero(pair: Pair) -> bool:
    ends = pair.interval_families
    return ends is not None and not ends[0] <= 0 <= ends[1]


def _large_p(pair: Pair) -> str:
    """Why an interval that excludes 0 is not enough, and what would be."""
    said = f"The interval beyond these families excludes 0, but p = {p_value(pair.p)} is above {MOST_P:g}"
    least = least_p_two_sided(*pair.seeds)
    if least <= MOST_P:
        return f"{said}."
    return (
        f"{said}: with {pair.seeds[0]} and {pair.seeds[1]} seeds it cannot be below {p_value(least)}; with 4 and 4 it "
        f"can be {p_value(least_p_two_sided(4, 4))}."
    )


def several(told: Comparison) -> str | None:
    """What the number of comparisons does to their intervals; None for a single one."""
    if told.comparisons < 2:
        return None
    return (
        f"These are {told.comparisons} comparisons, each with 95 % intervals: if no method differed from any "
        f"other, at least one of them would still claim a difference in up to {min(100, 5 * told.comparisons)} % "
        "of such tables."
    )


# --- the parts of the page ------------------------------------------------------------------------------------------


def _run(told: Comparison, label: str) -> ComparedRun:
    return next(run for run in told.runs if run.label == label)


def _figures(told: Comparison, pair: Pair) -> list[Figure]:
    first, second = _run(told, pair.first), _run(told, pair.second)
    below = "no interval"
    if (ends := pair.interval_families) is not None:
        zero = " (includes 0)" if ends[0] <= 0 <= ends[1] else ""
        below = f"95 % interval {signed(ends[0])} to {signed(ends[1])}{zero}, p = {p_value(pair.p)}"
    found = [Figure(f"Conversion, {pair.first} minus {pair.second}", signed(pair.gain), "points", below)]
    for run in (first, second):
        below = f"{pct(run.conversion)}, solved {number(run.solved)}"
        found.append(Figure(f"{run.label} converted", f"{number(run.converted)} / {run.items}", "", below))
    lost = f"{number(first.easy_lost)} and {number(second.easy_lost)}"
    return [*found, Figure("Easy items lost", lost, "", f"of {first.easy_items}")]


def _strip(pair: Pair) -> Markup:
    rows = [
        StripRow("converted", pair.gain, pair.interval_families or pair.interval),
        StripRow("solved", pair.solved_gain, pair.solved_interval),
    ]
    if pair.retention.difference is not None:
        rows.append(StripRow("rate of easy items", pair.retention.difference, pair.retention.interval))
    return strip(rows, None, f"{pair.first} minus {pair.second} (percentage points)")


def _scatter(told: Comparison, pair: Pair) -> Markup:
    who = dict.fromkeys(pair.both, "both")
    who |= {item.item_id: "first" for item in pair.only_first}
    who |= {item.item_id: "second" for item in pair.only_second}
    rates = [np.array(_run(told, label).rates) for label in (pair.first, pair.second)]
    kinds = [who.get(name, "neither") for name in told.item_ids]
    return scatter(rates[0], rates[1], kinds, (f"rate in {pair.first}", f"rate in {pair.second}"), LEAST_RATE)


def _families(pair: Pair) -> list[tuple[str, int, float, float]]:
    """Of each family: name, items, converted in the first and in the second run; what differs most comes first."""
    rows = [(name, part.items, part.first, part.second) for name, part in pair.families.items()]
    return sorted(rows, key=lambda row: (-abs(row[2] - row[3]), row[0]))


def _moved(told: Comparison, pair: Pair) -> list[tuple[str, object]]:
    """The tables of items that one run alone solved in most seeds, each under its title."""
    sides = ((pair.first, pair.second, pair.only_first), (pair.second, pair.first, pair.only_second))
    return [
        (f"Solved in {named(told, winner)} and not in {named(told, loser)}", items) for winner, loser, items in sides
    ]
