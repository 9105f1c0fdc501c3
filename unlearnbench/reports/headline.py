"""The headline of a result: what it showed against GRPO, in words, and what limits it.

PROTOCOL 3.4 and 3.5: a method converted more than GRPO only if the interval beyond these families lies above 0, against
the null control and against the tuned null where the split ships one. Made from result.json alone, so that the command
line, the page of a run and whoever quotes them say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unlearnbench.records import Conversion, Result
from unlearnbench.reports.formatting import number, p_value, pct, plural, point_span, points
from unlearnbench.scoring.canaries import golds_were_read
from unlearnbench.scoring.inference.permutation import MOST_P

Tone = Literal["more", "same", "less", "open"]

LARGE_LOSS = 0.05
"""A larger share of easy items lost is part of every headline: a policy that gives one answer to everything converts
the items that have that answer."""

LARGE_FALL = 0.1
"""A larger fall of the easy items' success rate is said: a policy may be right far less often and lose few items."""


@dataclass(frozen=True)
class Detectable:
    """Smallest gains that a design detects in 80 % of runs, as fractions."""

    spread: float | None
    """Of a method that raises every item alike."""
    families: float | None
    """Of one that learns some families whole."""


@dataclass(frozen=True)
class Verdict:
    """The run in a few words (`label`), in two sentences (`summary`), and in one that may be quoted (`sentence`).

    `caveats` are what a reader must know before quoting it.
    """

    tone: Tone
    label: str
    summary: Sequence[str]
    sentence: str
    caveats: Sequence[str]


def verdict(result: Result, detectable: Detectable | None = None) -> Verdict:
    """What the run showed, and not more than that."""
    tone, label = _outcome(result)
    return Verdict(tone, label, _summary(result, detectable), _sentence(result), _caveats(result))


def converts_more(score: Conversion) -> bool:
    """Beyond the null control: interval beyond these families above 0, and p at most 5 %."""
    beyond = score.interval_families
    return beyond is not None and beyond[0] > 0 and (score.p is None or score.p <= MOST_P)


def beats_tuned(score: Conversion) -> bool | None:
    """Whether the gain over the tuned null excludes 0; None where there is none to compare with."""
    if score.tuned_null is None or score.tuned_null.interval is None:
        return None
    return score.tuned_null.interval[0] > 0


def solves_by_memory(score: Conversion) -> bool:
    """Whether the run solves more than GRPO, and most of it without solving the probes."""
    interval = score.solved_interval
    more = interval is not None and interval[0] > 0
    return more and (score.memorised_rate or 0) > (score.method_rate or 0)


def tuned_name(score: Conversion) -> str:
    """The tuned null by what was tuned, such as 'GRPO at 1.4x the learning rate'."""
    if score.tuned_null is None:
        return "GRPO at its best learning rate"
    return f"GRPO at {score.tuned_null.learning_rate:g}x the learning rate"


def no_tuned(result: Result) -> str:
    """Why a result has no gain over a tuned null, without a full stop."""
    if result.conversion.gain is None:
        return "a quick run is not scored" if result.quick else "this run has no gain over any control"
    return "the split ships none that loses as few easy items, or none at all"


def forgets(result: Result) -> bool:
    """Whether the run lost more than LARGE_LOSS of the easy items."""
    return (result.retention.easy_lost or 0) > LARGE_LOSS * result.retention.easy_items


# --- the parts of it ------------------------------------------------------------------------------------------


def _outcome(result: Result) -> tuple[Tone, str]:
    score, unlearnable = result.conversion, result.groups["unlearnable"]
    if golds_were_read(result.canaries):
        return "less", "Read the answers: canaries solved"
    if result.schema_version == 1:
        return "open", "Score version 1: not ranked"
    if not result.comparable:
        if result.quick:
            return "open", "Quick run: not scored"
        return (
            "open",
            "Too few samples to score" if unlearnable.solved is None and unlearnable.items else "Not comparable",
        )
    if score.gain is None:
        if score.null_rate is None and score.solved_gain is not None:
            return _by_solved(score)
        return "open", "No gain defined"
    if converts_more(score):
        if beats_tuned(score) is False:
            return "same", "Tuned GRPO converts as many"
        if forgets(result):
            return "more", "Converts more than GRPO, forgets"
        if solves_by_memory(score):
            return "more", "Converts a few, memorises more"
        return "more", "Converts more than GRPO"
    if solves_by_memory(score):
        return "same", "Solves by memory"
    beyond = score.interval_families
    if beyond is not None and beyond[1] < 0:
        return "less", "Converts less than GRPO"
    return "same", "No gain over GRPO detected"


def _by_solved(score: Conversion) -> tuple[Tone, str]:
    """For a split without probes, where learning and memorising cannot be distinguished."""
    interval = score.solved_interval
    if interval is not None and interval[0] > 0:
        return "open", "Solves more; learning not measured"
    return "same", "No gain over GRPO detected"


def _summary(result: Result, detectable: Detectable | None) -> Sequence[str]:
    """Two short sentences in counts."""
    score, of = result.conversion, result.groups["unlearnable"]
    if not of.items:
        return ("The split has no unlearnable items.",)
    if of.solved is None and of.converted is None:
        return (f"With {plural(result.samples, 'sample')} per item, nothing can count as solved.", _why(result))
    verb, hit = ("converts", of.converted) if of.converted is not None else ("solves", of.solved or 0.0)
    first = f"It {verb} {number(hit)} of {plural(of.items, 'unlearnable item')}"
    if score.null_rate is not None:
        first += f"; GRPO re-run {verb} {number(score.null_rate * of.items)} on average"
    return (f"{first}.", _second(result, detectable))


def _second(result: Result, detectable: Detectable | None) -> str:
    score, of = result.conversion, result.groups["unlearnable"]
    if not result.comparable or score.gain is None or result.schema_version == 1:
        return _why(result)
    if not converts_more(score):
        if solves_by_memory(score):
            return (
                f"It solves {number(of.memorised or 0)} more as they stand, but not with other numbers: that is memory."
            )
        return _smallest(score, detectable)
    tuned = score.tuned_null
    if beats_tuned(score) is False and tuned is not None:
        return f"{tuned_name(score)} converts {number((tuned.rate or 0) * of.items)}, and the difference may be chance."
    if forgets(result):
        return f"It loses {_lost(result)}."
    if solves_by_memory(score):
        return _memory(result)
    where = "" if score.scope in (None, "families") else f", {score.scope}"
    if score.interval_families is None:
        return f"The gain is {points(score.gain)}{where}."
    return f"The gain is {points(score.gain)} (95 % interval {point_span(score.interval_families)}){where}."


def _memory(result: Result) -> str:
    hit = number(result.groups["unlearnable"].memorised or 0)
    return f"It solves {hit} more as they stand, but not with other numbers: that is memory."


def _smallest(score: Conversion, detectable: Detectable | None) -> str:
    """What the run could have seen."""
    if detectable is not None and (smallest := detectable.spread or detectable.families) is not None:
        most = detectable.families
        beyond = "" if most is None or most <= smallest else f", or {number(100 * most)} if it learns whole families"
        return f"This run could not have detected a gain below about {number(100 * smallest)} points{beyond}."
    if score.interval_families is None:
        return "It has no interval beyond these families, so nothing follows from it."
    return f"Gains above {points(score.interval_families[1])} are excluded, smaller ones are not."


def _why(result: Result) -> str:
    why = result.why_not_comparable or "it has no null control to compare with"
    if result.comparable and result.conversion.solved_gain is not None:
        why = "whether it learned or memorised them was not measured: probes (held-out twins) were not"
    if result.schema_version == 1:
        why = "it was scored by version 1, which counted memory as conversion; rerun the same `eval` command"
    return why[:1].upper() + why[1:].rstrip(".") + "."


def _sentence(result: Result) -> str:
    """The sentence to quote: both rates, the gain with its interval, p, both controls, what it lost."""
    score, of, name = result.conversion, result.groups["unlearnable"], result.method.name
    budget = result.budget.multiple
    where = f"{result.split}, track {result.method.track}, budget {'unknown' if budget is None else f'{budget:g}x'}"
    where += f", {plural(len(result.seeds), 'seed')}, score version {result.schema_version}"
    if not of.items:
        return f"{name}: the split has no unlearnable items ({where})."
    if of.solved is None and of.converted is None:
        told = f"with {plural(result.samples, 'sample')} per item it is undefined what {name} converted"
    elif of.converted is None:
        told = f"{name} solved {pct((of.solved or 0) / of.items)} of {plural(of.items, 'unlearnable item')}; "
        told += "whether it learned or memorised them was not measured"
    else:
        told = f"{name} converted {pct(of.conversion or 0)} of {plural(of.items, 'unlearnable item')}"
    if not result.comparable or score.gain is None:
        label = "Not comparable" if not result.comparable else "No gain defined"
        return f"{label}: {_why(result)[:1].lower()}{_why(result)[1:-1]}; {told} ({where}).{_price(result)}"
    told += f", GRPO re-run with fresh seeds {pct(score.null_rate or 0)}: a gain of {points(score.gain)}"
    told += f" ({_interval(score)}), {_end(score)}"
    if score.scope not in (None, "families"):
        told += f", {score.scope}"
    return f"{told} ({where}).{_over_tuned(score)}{_price(result)}"


def _interval(score: Conversion) -> str:
    if score.interval_families is None:
        return "no interval beyond these families"
    p = "" if score.p is None else f", p = {p_value(score.p)}"
    return f"95 % interval {point_span(score.interval_families)}{p}"


def _end(score: Conversion) -> str:
    """What the interval of the gain says."""
    interval = score.interval_families
    if interval is None:
        return "so nothing follows from it"
    if interval[1] < 0:
        return "which excludes 0: fewer than GRPO re-run"
    if interval[0] > 0:
        return "which excludes 0" if converts_more(score) else "which excludes 0, but chance gives as much too often"
    return "which includes 0: no evidence of a gain"


def _over_tuned(score: Conversion) -> str:
    """The gain over the tuned null in a sentence; nothing where there is none."""
    tuned = score.tuned_null
    if tuned is None or tuned.gain is None:
        return ""
    interval = "" if tuned.interval is None else f" (95 % interval {point_span(tuned.interval)})"
    rate = "" if tuned.rate is None else f", which converts {pct(tuned.rate)}"
    return f" Over {tuned_name(score)}{rate}: {points(tuned.gain)}{interval}."


def _price(result: Result) -> str:
    """A sentence on the easy items lost where they are many, else nothing."""
    return f" It lost {_lost(result)}." if forgets(result) else ""


def _lost(result: Result) -> str:
    kept = result.retention
    return f"{number(kept.easy_lost or 0)} of {plural(kept.easy_items, 'easy item')}"


def _caveats(result: Result) -> list[str]:
    """What a reader must know before quoting the verdict, the gravest first."""
    score, of, kept, found = result.conversion, result.groups["unlearnable"], result.retention, []
    if golds_were_read(result.canaries):
        found.append(
            f"{number(result.canaries.converted or 0)} of {plural(result.canaries.items, 'canary', 'canaries')} "
            "solved: their stored answers are wrong on purpose, so whoever gives them has read the gold answers."
        )
    elif few := result.canaries.converted:
        found.append(
            f"{number(few)} of {plural(result.canaries.items, 'canary', 'canaries')} solved: "
            "training rewards their stored answers, so few may be learned by luck; read golds show in most of them."
        )
    if result.kind == "eval" and result.budget.used and not result.cost.trained_tokens:
        found.append("Nothing was trained: no rollout was ever kept, so what was measured is the policy of the start.")
    if result.comparable and score.gain is not None and beats_tuned(score) is None:
        found.append(f"Not compared with a tuned null: {no_tuned(result)}.")
    if (without := of.items - of.with_probe) and of.converted is not None and result.schema_version > 1:
        found.append(
            f"{plural(without, 'unlearnable item has', 'unlearnable items have')} no probe and cannot convert."
        )
    if of.converted_at_start:
        hit = number(of.converted_at_start)
        found.append(f"{hit} items were solved before this training began, by the policy that it started from.")
    if result.method.track == "undeclared":
        found.append("Nothing of the training was metered (track undeclared): never ranked with other runs.")
        if result.kind == "score":
            found.append(
                "The rollouts were made elsewhere: nothing here checks that they were sampled as the protocol says, "
                "or what the training cost."
            )
    elif result.method.track != "verifier":
        found.append(f"Track {result.method.track}: it read more than prompts and verdicts; ranked in its track only.")
    memorised = [kind.replace("_", " ") for kind, twin in result.twins.items() if twin.verdict == "memorised"]
    if memorised:
        found.append(f"Memorised: what it solves does not carry over to twins ({', '.join(memorised)}).")
    if kept.easy_lost and not forgets(result):
        found.append(f"{_lost(result)} lost.")
    if (fallen := kept.easy_rate_change) is not None and fallen < -LARGE_FALL:
        found.append(
            f"The success rate of easy items fell by {100 * -fallen:.0f} points, which few lost items may hide."
        )
    return found
