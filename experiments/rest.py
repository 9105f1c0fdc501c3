"""Experiment 8: does training on unlearnable items hurt the rest? GRPO on the whole pool, and on the pool without them.

Both spend the same budget, so without the unlearnable items the others are seen more often.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.markdown import Finding, Section, blocks, paragraph, table
from experiments.runs import Runs, cells_of, of_group
from unlearnbench.records import GroupName, Interval, Item
from unlearnbench.reports.formatting import pct, point_span, points
from unlearnbench.scoring.comparability import Finished
from unlearnbench.scoring.conversion_rule import lost, rate_arm
from unlearnbench.scoring.intervals import mean_interval

GROUPS: tuple[GroupName, ...] = ("easy", "learnable", "unlearnable", "no_reward", "unstable")
Change = tuple[float, Interval | None]
WITHOUT = "without_unlearnable"


def rate_change(first: Finished, second: Finished, items: Sequence[Item]) -> Change:
    """Mean rate of these items under the first run less that under the second, over families and seeds."""
    one, other = cells_of(first, items), cells_of(second, items)
    values = one.rates - other.rates
    names, families = [item.item_id for item in items], [item.family for item in items]
    rollouts = float(min(one.n.sum(), other.n.sum())) / len(items)
    arms = [rate_arm(one), rate_arm(other)]
    interval = mean_interval(values, names, families, arms, beyond=True, rollouts=rollouts)
    return float(values.mean()), interval


def section(runs: Runs) -> Section:
    """Rates and conversions of every group with and without the unlearnable items in the pool."""
    title = "Does training on unlearnable items hurt the rest?"
    whole, without = runs.get("grpo"), runs.get(WITHOUT)
    if whole is None or without is None:
        missing = [name for name, run in (("grpo", whole), (WITHOUT, without)) if run is None]
        return Section(title, f"Missing: {', '.join(missing)}.")
    tau, rows = runs.split.config.protocol.tau, []
    for group in GROUPS:
        items = of_group(runs.split, group)
        if items:
            told = [run.result.groups[group] for run in (whole, without)]
            rows.append(
                [
                    group,
                    str(len(items)),
                    *(pct(score.rate_after or 0.0) for score in told),
                    _cell(rate_change(whole, without, items)),
                    *(str(score.converted) for score in told),
                ]
            )
    easy = of_group(runs.split, "easy")
    gone = [int(lost(cells_of(run, easy), tau).sum()) for run in (whole, without)]
    head = ["group", "items", "rate, with", "without", "difference", "converted, with", "without"]
    text = blocks(
        paragraph(
            "GRPO at 1x on the whole pool, and on the pool without its unlearnable items, the same budget and seeds.",
            "The difference is with less without, in points, with its 95 % interval over families and seeds; an item",
            "counts as converted by the same rule in every group.",
        ),
        table(head, rows),
        paragraph(f"Easy items lost: {gone[0]} with them, {gone[1]} without, of {len(easy)}."),
    )
    return Section(title, text, [_finding(whole, without, runs)])


def _cell(change: Change) -> str:
    value, interval = change
    short = points(value).removesuffix(" points")
    return short if interval is None else f"{short} ({point_span(interval).removesuffix(' points')})"


def _finding(whole: Finished, without: Finished, runs: Runs) -> Finding:
    claim = "Unlearnable items in the pool do not hurt what is learned of the others"
    parts = {group: rate_change(whole, without, of_group(runs.split, group)) for group in ("easy", "learnable")}
    told = [f"{group} {points(value)} (95 %: {_ends(ends)})" for group, (value, ends) in parts.items()]
    here = f"rate with them less without: {'; '.join(told)}"
    intervals = [interval for _, interval in parts.values() if interval is not None]
    if len(intervals) < len(parts):
        return Finding(8, claim, here, "cannot be said", of_paper=False)
    if any(interval[1] < 0 for interval in intervals):
        return Finding(8, claim, here, "differs", of_paper=False)
    unharmed = all(interval[0] > -0.05 for interval in intervals)
    return Finding(8, claim, here, "agrees" if unharmed else "cannot be said", of_paper=False)


def _ends(interval: Interval | None) -> str:
    return "none" if interval is None else point_span(interval)
