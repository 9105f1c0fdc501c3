"""The first screen of a run's page (four figures, a strip, chips), and what speaks for or against the result."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from markupsafe import Markup

from unlearnbench.records import Result
from unlearnbench.reports.charts import StripRow, strip
from unlearnbench.reports.formatting import number, p_value, pct, plural, point_span, points, signed
from unlearnbench.reports.headline import LARGE_FALL, beats_tuned, forgets, no_tuned, tuned_name
from unlearnbench.reports.run_files import Run
from unlearnbench.scoring.canaries import golds_were_read
from unlearnbench.scoring.comparisons.null_vs_null import null_gains

SEEDS_OF_NULL = 1.0
"""The budget multiple at which GRPO is compared with itself."""


@dataclass(frozen=True)
class Figure:
    """A number with its name, and the line below it."""

    what: str
    value: str
    unit: str
    below: str


@dataclass(frozen=True)
class Chip:
    """A short fact that leads to its section."""

    text: str
    href: str
    mark: Literal["ok", "warn", ""] = ""


def about(run: Run) -> list[str]:
    """Track, budget, seeds and date, one short phrase each."""
    result = run.result
    budget = "budget unknown" if result.budget.multiple is None else f"{result.budget.multiple:g}\u00d7 budget"
    size = f"{plural(len(result.seeds), 'seed')} \u00d7 {plural(result.samples, 'sample')}"
    told = [f"{result.method.track} track", budget, size]
    if run.finished is not None:
        day = datetime.fromtimestamp(run.finished, UTC)
        told.append(f"finished {day.day} {day:%b %Y}")
    return told


def figures(result: Result) -> list[Figure]:
    """Gain, converted, GRPO re-run, easy items lost."""
    score, of, kept = result.conversion, result.groups["unlearnable"], result.retention
    probed = of.converted is not None
    gain, interval = (score.gain, score.interval_families) if probed else (score.solved_gain, score.solved_interval)
    verb = "Conversion" if probed else "Solved"
    hit, noun = (of.converted, "Converted") if probed else (of.solved, "Solved")
    first = Figure(f"{verb} gain over GRPO re-run", "\u2013", "", no_gain(result))
    if gain is not None:
        zero = "" if interval is None else " (includes 0)" if interval[0] <= 0 <= interval[1] else ""
        below = (
            "no interval" if interval is None else f"95 % interval {signed(interval[0])} to {signed(interval[1])}{zero}"
        )
        first = Figure(first.what, signed(gain), "points", below)
    second = Figure(noun, _of(hit, of.items), "", "fewer samples than the rule needs" if hit is None else "")
    if hit is not None and of.items:
        ends = of.conversion_interval if probed else None
        span = "" if ends is None else f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
        second = Figure(noun, _of(hit, of.items), "", f"{pct(hit / of.items)}{span}")
    null = score.null_rate
    if not probed:
        null = None if hit is None or score.solved_gain is None else hit / of.items - score.solved_gain
    third = Figure("GRPO re-run", "\u2013", "", no_gain(result))
    if null is not None:
        third = Figure(
            "GRPO re-run", _of(null * of.items, of.items), "", f"{pct(null)}, {plural(score.null_seeds, 'seed')}"
        )
    beside = ["fewer samples than the rule needs"] if kept.easy_lost is None and kept.easy_items else []
    beside += [] if kept.null_easy_lost is None else [f"GRPO re-run: {number(kept.null_easy_lost)}"]
    if kept.easy_rate_change is not None and kept.easy_rate_change < -LARGE_FALL:
        beside.append(f"rate {signed(kept.easy_rate_change)} points")
    return [
        first,
        second,
        third,
        Figure("Easy items lost", _of(kept.easy_lost, kept.easy_items), "", ", ".join(beside)),
    ]


def gains(result: Result) -> list[StripRow]:
    """Gains over GRPO re-run and tuned GRPO, and the frontier score, those that are defined."""
    score, front = result.conversion, result.frontier
    rows = []
    if score.gain is not None:
        rows.append(StripRow("vs GRPO re-run", score.gain, score.interval_families or score.interval))
    elif score.solved_gain is not None:
        rows.append(StripRow("solved, vs GRPO re-run", score.solved_gain, score.solved_interval))
    if score.gain is not None and score.tuned_null is not None and score.tuned_null.gain is not None:
        rows.append(StripRow("vs tuned GRPO", score.tuned_null.gain, score.tuned_null.interval))
    if score.gain is not None and front is not None and front.gain is not None:
        rows.append(StripRow("frontier", front.gain, front.interval_families or front.interval))
    return rows


def strip_figure(run: Run) -> Markup | None:
    """The gains beside those of GRPO against itself; None without any."""
    score, rows = run.result.conversion, gains(run.result)
    if not rows:
        return None
    itself = null_gains(run.split, len(run.seeds)) if run.null and run.result.budget.multiple == SEEDS_OF_NULL else []
    box = (min(itself), max(itself)) if itself and score.gain is not None else None
    return strip(rows, box, "gain (percentage points)", "GRPO against itself")


def chips(result: Result) -> list[Chip]:
    """Canaries, memory, probes, cost and steps, each with the section that says more."""
    score, of, found = result.conversion, result.groups["unlearnable"], list[Chip]()
    if result.canaries.items and result.canaries.converted is not None:
        hit = result.canaries.converted
        found.append(
            Chip(
                f"Canaries {number(hit)} / {result.canaries.items}",
                "#checks",
                "warn" if golds_were_read(result.canaries) else "ok",
            )
        )
    if of.memorised is not None:
        found.append(Chip(f"Memorised {number(of.memorised)} / {of.items}", "#twins"))
    if result.schema_version > 1 and of.items and of.solved is not None:
        full = of.with_probe == of.items
        found.append(Chip(f"Probes {of.with_probe} / {of.items}", "#twins", "ok" if full else ""))
    if score.gain is not None and score.tuned_null is not None:
        found.append(Chip(f"Tuned GRPO beaten: {'yes' if beats_tuned(score) else 'no'}", "#checks"))
    if forgets(result):
        found.append(Chip("Forgets easy items", "#groups", "warn"))
    found += _cost_chips(result)
    return found


def steps_sentence(result: Result) -> str | None:
    """How many of the planned steps were made, and why fewer; None where it is not known."""
    steps = result.steps
    if steps is None:
        return None
    if steps.made >= steps.planned - 0.5:
        return f"trained {number(steps.made)} of {steps.planned} steps"
    return f"trained {number(steps.made)} of {steps.planned} steps: budget spent"


def _cost_chips(result: Result) -> list[Chip]:
    found, limit = [], result.budget.limit
    if result.budget.used and limit:
        share = max(result.budget.used) / limit
        found.append(Chip(f"Cost {100 * share:.0f} % of limit", "#cost", "ok" if share < 1.1 else "warn"))
    elif not result.budget.used:
        found.append(Chip("Cost unknown", "#cost", "warn"))
    if (told := steps_sentence(result)) is not None:
        full = result.steps is not None and result.steps.made >= result.steps.planned - 0.5
        found.append(Chip(told[0].upper() + told[1:], "#cost", "ok" if full else ""))
    return found


def no_gain(result: Result) -> str:
    """Why a result is not compared with GRPO, in a few words."""
    if result.quick:
        return "quick run: not scored"
    return "no null control to compare with" if result.comparable else "not comparable"


def _of(hit: float | None, items: int) -> str:
    return f"{'–' if hit is None else number(hit)} / {items}"  # noqa: RUF001


# --- checks ---------------------------------------------------------------------------------------------------------


def checks(result: Result) -> list[tuple[str, str | None, str]]:
    """Evidence for or against a result: name, what was found (None: undefined), what it means."""
    score, of = result.conversion, result.groups["unlearnable"]
    found = [_canaries(result)]
    if score.p is not None:
        found.append(
            ("chance", f"p = {p_value(score.p)}", "the larger of a permutation of runs and a resampling of families")
        )
    found.append(_tuned(result))
    if score.ceiling is not None:
        found.append(("ceiling", pct(score.ceiling), "conversion of the positive control, another base policy"))
    if score.solved_gain is not None:
        ends = "" if score.solved_interval is None else f" ({point_span(score.solved_interval)})"
        found.append(("solved gain", points(score.solved_gain) + ends, "the same for solved, which counts memory too"))
    if (front := result.frontier) is not None and front.gain is not None:
        ends = "" if front.interval_families is None else f" ({point_span(front.interval_families)})"
        found.append(("frontier gain", f"{points(front.gain)}{ends}", "where runs of GRPO differ; separates methods"))
    if score.scope is not None:
        few = "all of the gain lies there" if score.scope != "families" else "the gain is spread over families"
        found.append(("scope", score.scope, few))
    if result.thin.items:
        hit = None if result.thin.converted is None else f"{number(result.thin.converted)} of {result.thin.items}"
        found.append(("thin items converted", hit, "items labelled from 2 to 5 successes only"))
    if of.converted_at_start:
        found.append(("solved at the start", number(of.converted_at_start), "by the policy that training began from"))
    naive = score.naive.any_seed
    found.append(
        ("naive counting", None if naive is None else pct(naive), "share of items above tau in any one seed; GRPO too")
    )
    return found


def _canaries(result: Result) -> tuple[str, str | None, str]:
    hit, items = result.canaries.converted, result.canaries.items
    if not items:
        return "canaries", "none measured", "problems whose stored answer is wrong on purpose"
    means = "their stored answers are wrong on purpose: whoever gives a fifth of them or more has read the golds"
    return "canaries", None if hit is None else f"{number(hit)} of {plural(items, 'canary', 'canaries')} solved", means


def _tuned(result: Result) -> tuple[str, str | None, str]:
    tuned = result.conversion.tuned_null
    if tuned is None:
        return "tuned GRPO", None, f"not compared: {no_tuned(result)}"
    told = pct(tuned.rate or 0)
    if tuned.gain is not None:
        ends = "" if tuned.interval is None else f" ({point_span(tuned.interval)})"
        told += f"; gain over it {points(tuned.gain)}{ends}"
    lost = "" if tuned.easy_lost is None else f"; it loses {pct(tuned.easy_lost)} of the easy items"
    return "tuned GRPO", told, f"{tuned_name(result.conversion)}, {plural(tuned.seeds, 'seed')}{lost}"
