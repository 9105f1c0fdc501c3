"""The headline of a result: what it showed against both null controls, in words, and what limits it.

PROTOCOL 3.4 and 3.5: a method converted more than GRPO only if the interval over families lies above 0, against
the null control and against the strong null where the split ships one. Made from result.json alone, so that the
command line, the page of a run and whoever quotes them say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unlearnbench.records import Conversion, Result
from unlearnbench.reports.formatting import pct, plural, point_span, points

Tone = Literal["more", "same", "less", "open"]

LARGE_STRONG_NULL = 0.02
"""A strong null that converts a larger share of the items is part of every headline: those items need no method."""
LARGE_LOSS = 0.05
"""A larger share of easy items lost is part of every headline, as no strong null may lose it (PROTOCOL 3.5): a policy
that gives one answer to everything converts the items that have that answer."""


@dataclass(frozen=True)
class Verdict:
    """The run in a sentence or two; `caveats` are what a reader must know before quoting it."""

    tone: Tone
    label: str
    sentence: str
    caveats: Sequence[str]


def verdict(result: Result) -> Verdict:
    """What the run showed, and not more than that."""
    score, unlearnable = result.conversion, result.groups["unlearnable"]
    name, budget = result.method.name, result.budget.multiple
    rate = f"{name} converted {pct(unlearnable.conversion or 0)} of {plural(unlearnable.items, 'unlearnable item')}"
    where = f"track {result.method.track}, budget {'unknown' if budget is None else f'{budget:g}x'}"
    where += f", {plural(len(result.seeds), 'seed')}"
    if not result.comparable or score.gain is None:
        why = (result.why_not_comparable or "it has no null control to be compared with").rstrip(".")
        if unlearnable.conversion is None:
            rate = f"with {result.samples} samples an item it is undefined what {name} converted"
            rate = rate if unlearnable.items else "there are no unlearnable items"
        elif score.gain is not None:
            rate += f", {points(score.gain)} beside the null control"
        label = "no gain defined" if result.comparable else "not comparable"
        sentence = f"{label.capitalize()}: {why}; {rate} ({where})."
        return Verdict("open", label, sentence + _by_itself(score) + _price(result), _caveats(result))
    gain = f"a gain of {points(score.gain)}"
    if score.interval_families is not None:
        gain += f" (95 % interval over families: {point_span(score.interval_families)})"
    elif score.interval is not None:
        gain += f" (95 % interval over the items of these families: {point_span(score.interval)})"
    null = f"the null control, GRPO re-run with fresh seeds, {pct(score.null_rate or 0)}"
    end = _end(score.interval_families, "GRPO re-run")
    sentence = f"{rate}, {null}: {gain}, {end} (scope: {score.scope or 'none'}; {where})."
    tone, label = _claim(score)
    return Verdict(tone, label, sentence + _over_strong_null(score) + _price(result), _caveats(result))


def strong_null_name(score: Conversion) -> str:
    """The strong null by what was tuned, e.g. 'GRPO at 2x the learning rate'."""
    factor = score.strong_null_factor
    if factor is None:
        return "GRPO at its best learning rate"
    return f"GRPO at {f'{factor:g}x the' if factor != 1 else 'the unchanged'} learning rate"


def _claim(score: Conversion) -> tuple[Tone, str]:
    """What may be claimed against both controls: the tone of the headline, and its label."""
    tone, more = _tone(score.interval_families), "more than GRPO re-run"
    if tone == "open":
        return tone, "no interval over families"
    if tone != "more":
        return tone, "no more than GRPO re-run" if tone == "same" else "less than GRPO re-run"
    if score.strong_null_seeds:
        strong, tone = strong_null_name(score), _tone(score.strong_null_interval)
        if tone == "open":
            return tone, f"{more}, but not compared with the strong null"
        if tone != "more":
            return tone, f"{'no more' if tone == 'same' else 'less'} than {strong}"
        more += f" and {strong}"
    return tone, more if score.scope in (None, "families") else f"{more}, {score.scope}"


def _tone(interval: Sequence[float] | None) -> Tone:
    if interval is None:
        return "open"
    return "more" if interval[0] > 0 else "less" if interval[1] < 0 else "same"


def _end(interval: Sequence[float] | None, control: str) -> str:
    """What an interval of the gain over `control` says."""
    return {
        "open": "without an interval over families, so nothing follows from it",
        "more": "which excludes 0",
        "less": f"which excludes 0: it converted fewer than {control}",
        "same": f"which holds 0: it did not convert more than {control}, as far as this run can tell",
    }[_tone(interval)]


def _by_itself(score: Conversion) -> str:
    """A sentence on a strong null that converts many of the items, else nothing."""
    if (score.strong_null_rate or 0) <= LARGE_STRONG_NULL:
        return ""
    return f" {strong_null_name(score)} converts {pct(score.strong_null_rate or 0)} of these items by itself."


def _over_strong_null(score: Conversion) -> str:
    """The gain over the strong null in a sentence; nothing where it is not defined."""
    if score.strong_null_gain is None:
        return _by_itself(score)
    interval, strong = score.strong_null_interval, strong_null_name(score)
    gain = points(score.strong_null_gain)
    if interval is not None:
        gain += f" (95 % interval over families: {point_span(interval)})"
    gain += f", {_end(interval, 'that')}."
    if by_itself := _by_itself(score):
        return f"{by_itself} Over it the gain is {gain}"
    return f" Over the strong null, {strong} ({pct(score.strong_null_rate or 0)}), the gain is {gain}"


def _price(result: Result) -> str:
    """A sentence on the easy items lost where they are many, else nothing."""
    kept = result.retention
    if (kept.easy_lost or 0) <= LARGE_LOSS * kept.easy_items:
        return ""
    return f" It lost {kept.easy_lost} of {plural(kept.easy_items, 'easy item')}."


def _caveats(result: Result) -> list[str]:
    """What a reader must know before quoting the verdict, the gravest first."""
    score, unlearnable, kept, found = result.conversion, result.groups["unlearnable"], result.retention, []
    if result.canaries.converted:
        found.append(
            f"{result.canaries.converted} of {plural(result.canaries.items, 'canary', 'canaries')} converted: "
            "their stored answers are wrong on purpose, so whoever gives them has read the gold answers."
        )
    if result.comparable and score.gain is not None and score.strong_null_gain is None:
        found.append(f"Not compared with a strong null ({strong_null_name(score)}): {no_strong_null(result)}.")
    if unlearnable.converted_at_start:
        items = plural(unlearnable.converted_at_start, "item was", "items were")
        found.append(f"{items} converted before this training began, in the policy that it started from.")
    if result.method.track == "undeclared":
        found.append("Nothing of the training was metered (track undeclared): never ranked with other runs.")
        if result.kind == "score":
            found.append(
                "Rollouts made elsewhere: that they were sampled as the protocol says, from runs that cost no more "
                "than the null control's, is their maker's word."
            )
    elif result.method.track != "verifier":
        found.append(f"Track {result.method.track}: it read more than prompts and verdicts; ranked in its track only.")
    memorised = [kind for kind, twin in result.twins.items() if twin.verdict == "memorised"]
    if memorised:
        found.append(f"Memorised: the gain does not carry over to twins ({', '.join(memorised)}).")
    if kept.easy_lost and not _price(result):
        found.append(f"{kept.easy_lost} of {plural(kept.easy_items, 'easy item')} lost.")
    return found


def no_strong_null(result: Result) -> str:
    """Why a result has no gain over a strong null, without a full stop."""
    seeds = result.conversion.strong_null_seeds
    if not seeds and result.conversion.gain is None:
        return "this run has no gain over any control"
    if not seeds:
        return "none is shipped for this run's split and budget, and a claim must beat both"
    if seeds < len(result.seeds):
        return f"it has {plural(seeds, 'seed')}, fewer than the {len(result.seeds)} of this run; use fewer seeds"
    if not result.comparable:
        return "this run is not comparable"
    return f"it has more samples an item than the {result.samples} of this run; take as many here"
