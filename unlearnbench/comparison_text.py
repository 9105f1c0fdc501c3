"""A comparison of two runs in sentences: the same on the command line, on its page and in a notebook."""

from __future__ import annotations

from unlearnbench.comparison import Comparison, Pair
from unlearnbench.notation import pct, plain, plural, point_span, points


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
        f"With {plural(pair.seeds, 'seed')} each, {first} converted {pct(pair.first_conversion)} and {second} "
        f"{pct(pair.second_conversion)} of {pair.items} items: {points(pair.gain)}."
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
