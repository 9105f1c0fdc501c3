"""What speaks for or against believing a result, one line each."""

from __future__ import annotations

from unlearnbench.records import Result
from unlearnbench.reports.formatting import number, p_value, pct, plural, point_span, points
from unlearnbench.reports.headline import no_tuned, tuned_name


def checks(result: Result) -> list[tuple[str, str | None, str]]:
    """Name, what was found (None: undefined), what it means."""
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
        found.append(("frontier gain", f"{points(front.gain)}{ends}", "where runs of GRPO differ; tells methods apart"))
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
    means = "their stored answers are wrong on purpose: whoever gives them has read the gold answers"
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
