"""The paper's claims: its own measure, the rise of mean training reward, beside ours, the conversion gain.

The paper says that none of its interventions makes unlearnable items learned. By its measure a claim agrees where the
mean training reward of the unlearnable items rises by less than a tenth of what that of the learnable items does, from
the first quarter of training to the last. By ours it holds where the conversion gain is below a tenth of the ceiling's
with its interval. Each is taken over all unlearnable items, and over those of the cause `runs.CAUSE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments import gradients, training_reward
from experiments.markdown import Section, blocks, paragraph, table, with_interval
from experiments.runs import CAUSE, Runs, of_group
from unlearnbench.records import Interval, Item
from unlearnbench.reports.formatting import pct, signed
from unlearnbench.scoring.comparisons.comparability import Finished
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.nulls import control_outcomes
from unlearnbench.scoring.outcomes import outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.splits import Split

TENTH = 0.1


@dataclass(frozen=True)
class Claim:
    """An intervention that the paper says does not help, the run that repeats it, and what differs here."""

    what: str
    run: str
    differs: str = ""


CLAIMS = (
    Claim("replay, one success and seven failures per prompt (its text)", "replay"),
    Claim("replay as its released code does it", "replay-code"),
    Claim("clip-higher alone", "clip_higher", "the KL weight stays (the released command raises it tenfold)"),
    Claim("no KL term", "no_kl"),
    Claim("SFT on correct rollouts of unlearnable items", "sft_unlearnable", "then GRPO, in one budget"),
    Claim("training on unlearnable items alone, 64 rollouts", "only_unlearnable"),
    Claim("similar problems beside them", "similar_problems", "made by the split's recipe, not by a model"),
    Claim("sub-problems beside them", "sub_problems", "made by the split's recipe, not by a model"),
    Claim("curriculum: easy and learnable first", "curriculum_easy_first", "the first phase is half of the budget"),
)
Row = tuple[str, str, str, str, str, str]
"""Claim, items, the paper's measure, its verdict, our measure, its verdict."""


@dataclass(frozen=True)
class Converted:
    """Conversion gain of a run on some items as a share of the positive control's gain on them."""

    gain: float
    interval: Interval | None
    """For these families of problems."""
    beyond: Interval | None
    ceiling: float

    def share(self, value: float) -> float:
        return value / self.ceiling

    @property
    def verdict(self) -> str:
        """Whether the claim that it does not help holds."""
        if self.interval is None or self.ceiling <= 0:
            return "not measured"
        if self.beyond is not None and self.share(self.beyond[1]) < TENTH:
            return "holds"
        if self.share(self.interval[1]) < TENTH:
            return "holds on these families"
        return "does not hold" if self.share(self.interval[0]) >= TENTH else "undecided"

    @property
    def cell(self) -> str:
        share = f"{pct(self.share(self.gain))} of the ceiling's" if self.ceiling > 0 else "no ceiling"
        if self.beyond is not None and self.ceiling > 0:
            share += f" ({pct(self.share(self.beyond[0]))} to {pct(self.share(self.beyond[1]))})"
        return f"{with_interval(self.gain, None)} points, {share}"


def converted(run: Finished, split: Split, items: Sequence[Item]) -> Converted | None:
    """None where the split lacks the null control at 1x, the positive control or probes of these items."""
    null, ceiling = split.control("null_control", "1x"), split.control("positive_control")
    probes, tau, families = probes_of(split), split.config.protocol.tau, [item.family for item in items]
    if null is None or ceiling is None or not any(item.item_id in probes for item in items):
        return None
    seeds = [str(seed) for seed in run.result.seeds]
    mine = outcomes_of(run.counts, items, probes, seeds, tau, str(run.folder)).converted
    theirs = control_outcomes(null, items, probes, tau, "null control").converted
    most = control_outcomes(ceiling, items, probes, tau, "positive control").converted
    interval, beyond = gain_intervals(share_arm(mine), share_arm(theirs), families)
    level = float(theirs.mean())
    return Converted(float(mine.mean()) - level, interval, beyond, float(most.mean()) - level)


def scopes(runs: Runs) -> dict[str, list[Item]]:
    """All unlearnable items, and those of the cause that is shown apart."""
    found = {"all": runs.unlearnable(), CAUSE: runs.unlearnable(CAUSE)}
    return {name: items for name, items in found.items() if items}


def section(runs: Runs, found: gradients.Found) -> Section:
    """One table of all claims, each over all unlearnable items and over those of one cause."""
    parts, verdicts = scopes(runs), Counter[tuple[str, str]]()
    learnable = [item.item_id for item in of_group(runs.split, "learnable")]
    rows: list[Row] = []
    reference = _rise(runs.methods.get("grpo"), learnable)
    for claim in CLAIMS:
        run = runs.methods.get(claim.run)
        for name, items in parts.items():
            theirs, agrees, ours, holds = _measured(run, runs.split, items, learnable, reference)
            verdicts[name, "theirs"] += agrees == "agrees"
            verdicts[name, "holds"] += holds.startswith("holds")
            verdicts[name, "narrow"] += holds == "holds on these families"
            rows.append((f"{claim.what} (`{claim.run}`)", name, theirs, agrees, ours, holds))
    counted = [
        f"{name}: of {len(CLAIMS)} interventions {verdicts[name, 'theirs']} agree by its measure and "
        f"{verdicts[name, 'holds']} hold by ours "
        f"({verdicts[name, 'narrow']} of them on these families only)"
        for name in parts
    ]
    rows += [*_mid_training(runs, parts, found), *gradients.claims(found), *_reasoning(runs, parts)]
    return Section("The paper's claims", blocks(_preamble(counted), table(_HEAD, rows, left=6), _notes()))


_HEAD = ["claim of the paper", "unlearnable items", "its measure", "by it", "our measure", "by ours"]


def _preamble(counted: Sequence[str]) -> str:
    return paragraph(
        "The first rows are interventions that, as the paper says, do not make unlearnable items learned. Its measure:",
        "rise of the mean training reward from the first quarter of training to the last, unlearnable and learnable",
        "items of the same run (of `grpo` where the run draws no learnable ones); it agrees below a tenth. Ours:",
        "conversion gain at 1x as a share of the positive control's gain on the same items, with the 95 % interval",
        "beyond these families (the ceiling is taken as exact); a claim holds where the interval stays below a tenth,",
        "on these families where only the narrower interval for them does, and does not hold where that interval",
        "lies above it.",
        f"Counted by the items that they are taken over, {'; '.join(counted)}.",
    )


def _measured(
    run: Finished | None, split: Split, items: Sequence[Item], learnable: Sequence[str], reference: float | None
) -> tuple[str, str, str, str]:
    if run is None:
        return "not run", "-", "not run", "-"
    theirs, agrees = _reward(run, [item.item_id for item in items], learnable, reference)
    gain = converted(run, split, items)
    return theirs, agrees, *(("-", "not measured") if gain is None else (gain.cell, gain.verdict))


def _rise(run: Finished | None, ids: Sequence[str]) -> float | None:
    found = None if run is None else training_reward.quarters(run, ids)
    return None if found is None else training_reward.rise(found.reward)


def _reward(
    run: Finished, unlearnable: Sequence[str], learnable: Sequence[str], reference: float | None
) -> tuple[str, str]:
    """The rises in points, and whether the first is below a tenth of the second."""
    found = training_reward.quarters(run, [*unlearnable, *learnable])
    if found is None:
        return "no ledger", "cannot be said"
    rises = [training_reward.rise(found.of(ids).reward) for ids in (unlearnable, learnable)]
    mine, theirs = rises[0], reference if rises[1] is None else rises[1]
    if mine is None or theirs is None or theirs <= 0:
        return "not drawn in the first and last quarter", "cannot be said"
    of = "" if rises[1] is not None else " in `grpo`"
    cell = f"{signed(mine)} beside {signed(theirs)} points{of} ({pct(mine / theirs)})"
    return cell, "agrees" if mine < TENTH * theirs else "differs"


def _mid_training(runs: Runs, parts: Mapping[str, Sequence[Item]], found: gradients.Found) -> list[Row]:
    """The paper claims that similarity rises; whether the items are then learned is our own question."""
    run, (theirs, agrees) = runs.methods.get("mid_training"), gradients.raised(found)
    rows: list[Row] = []
    for name, items in parts.items():
        gain = None if run is None else converted(run, runs.split, items)
        ours = "not run" if run is None else "-" if gain is None else gain.cell
        helps = gain is not None and gain.interval is not None and gain.interval[0] > TENTH * gain.ceiling > 0
        verdict = "-" if gain is None else "learned" if helps else "not shown to be learned"
        first = (theirs, agrees) if name == "all" else ("-", "not measured")
        claim = "mid-training raises the similarity of unlearnable items (that they are then learned is no claim of it)"
        rows.append((f"{claim} (`mid_training`)", name, *first, ours, verdict))
    return rows


def _reasoning(runs: Runs, parts: Mapping[str, Sequence[Item]]) -> list[Row]:
    """Valid traces among the correct rollouts of GRPO: the learnable items' share rises, the unlearnable items' not."""
    claim, run = "reasoning in correct rollouts improves for learnable items only", runs.methods.get("grpo")
    learnable = [item.item_id for item in of_group(runs.split, "learnable")]
    rows: list[Row] = []
    for name, items in parts.items():
        ids = [item.item_id for item in items]
        found = None if run is None else training_reward.quarters(run, [*ids, *learnable])
        shares = None if found is None else [found.of(part).valid_share for part in (ids, learnable)]
        rises = [None, None] if shares is None else [training_reward.rise(values) for values in shares]
        mine, theirs = rises
        if shares is None or mine is None or theirs is None:
            rows.append((claim, name, "not measured", "-", "too few correct rollouts, or not run", "-"))
            continue
        told = [f"{pct(float(values[0]))} to {pct(float(values[-1]))}" for values in shares]
        holds = theirs > 0 and mine < TENTH * theirs
        verdict = "holds" if holds else "does not hold"
        cell = f"valid traces, first to last quarter: {told[0]}; learnable {told[1]}"
        rows.append((claim, name, "marks of a judge model: not measured", "-", cell, verdict))
    return rows


def _notes() -> str:
    told = [f"`{claim.run}`: {claim.differs}" for claim in CLAIMS if claim.differs]
    return paragraph(f"What differs from the paper: {'; '.join(told)}.")
