"""Experiments 5 and 7: gradient similarity between groups, along GRPO and before and after mid-training.

Each policy's diagnosis (`unlearnbench.diagnose`) is kept in build/experiments/similarity and not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from experiments.figures import Curve, blocks_figure
from experiments.markdown import Finding, Section, Verdict, blocks, cosine, paragraph, table
from experiments.runs import Runs
from experiments.sweep import CHECKPOINTS
from unlearnbench.diagnosis.diagnose import diagnose
from unlearnbench.diagnosis.record import BlockRecord, SimilarityRecord
from unlearnbench.reports.formatting import point_span, points
from unlearnbench.splits import Split

ITEMS = 100
ROLLOUTS = 20
SHOWN = ("easy", "learnable", "unlearnable")
PARAMETERS = {"lora": "adapter on q and v", "all": "all weights"}
START, END, MID = "start", "end of GRPO", "after mid-training"
SHIPPED = (START, MID)
"""Policies that come with the split; the others are left by runs."""
Found = Mapping[tuple[str, str], SimilarityRecord]
"""By place and choice of parameters."""


@dataclass(frozen=True)
class Place:
    """A policy to diagnose; `policy` is None while the run that leaves it is missing."""

    name: str
    policy: Path | None


def places(runs: Runs) -> list[Place]:
    """The base policy, GRPO's policies at shares of its budget and at its end (seed 1), and the mid-trained one."""
    split = runs.split
    parts = [(f"{part:.0%} of GRPO", f"grpo-{part:g}x") for part in CHECKPOINTS]
    found = [Place(START, Path(split.policy_path))]
    for name, run in [*parts, (END, "grpo")]:
        policies = runs.seed_policies(run)
        found.append(Place(name, policies[0] if policies and (policies[0] / "config.json").is_file() else None))
    mid = split.path / "positive_control" / "policy"
    return [*found, Place(MID, mid if mid.is_dir() else None)]


def diagnose_all(
    found: Sequence[Place], split: Split, out: Path, tell: Callable[[str], None], workers: int | None = None
) -> dict[tuple[str, str], SimilarityRecord]:
    """A record of every policy that is there, for each choice of parameters; resumable."""
    records = {}
    for kind in PARAMETERS:
        for place in found:
            if place.policy is None:
                continue
            folder = out / f"{place.name.replace(' ', '-').replace('%', '')}-{kind}"
            tell(f"gradients: {place.name}, {PARAMETERS[kind]}")
            diagnosis = diagnose(
                place.policy,
                split,
                out=folder,
                items_per_group=ITEMS,
                rollouts_per_item=ROLLOUTS,
                parameters=kind,
                workers=workers,
            )
            records[place.name, kind] = diagnosis.record
    return records


def along_training(runs: Runs, found: Found, pictures: Path) -> Section:
    """Experiment 7: the blocks at each policy, and whether unlearnable items are outliers."""
    title = "Gradient similarity between groups along GRPO"
    names = [place.name for place in places(runs) if place.name != MID]
    there = [name for name in names if all((name, kind) in found for kind in PARAMETERS)]
    missing = [name for name in names if name not in there]
    if START not in there:
        return Section(title, "The diagnoses are missing.")
    panels = {title: _curves(found, there, kind) for kind, title in PARAMETERS.items()}
    blocks_figure(pictures / "experiments-similarity.png", [_short(name) for name in there], panels)
    tables = [
        blocks(f"{words[0].upper()}{words[1:]}:", _table(found, there, kind)) for kind, words in PARAMETERS.items()
    ]
    text = blocks(
        paragraph(
            f"`unlearnbench diagnose`: at most {ITEMS} items a group, {ROLLOUTS} correct rollouts of every item,",
            "drawn from the policy itself; mean raw cosines with 95 % intervals over items, and the AUC with which",
            "similarity to the other items tells learnable from unlearnable ones (0.5 says nothing). Items without",
            "that many correct rollouts take no part: see how many are left. The policies along GRPO are those of",
            "seed 1. A low reliability makes a low cosine by itself: a raw cosine is expected to be the true one",
            "times the root of both groups' reliabilities.",
            f"Missing: {', '.join(missing)}." if missing else "",
        ),
        "![Mean cosines of pairs of groups along GRPO](experiments-similarity.png)",
        *tables,
    )
    return Section(title, text, [_outliers(found, kind) for kind in PARAMETERS])


def mid_training(runs: Runs, found: Found) -> Section:
    """Experiment 5: what mid-training does to conversion and to similarity."""
    run = runs.get("mid_training")
    both = [kind for kind in PARAMETERS if {(START, kind), (MID, kind)} <= set(found)]
    parts, findings = [], []
    if run is None:
        parts.append("The run `mid_training` is missing.")
    else:
        group, score = run.result.groups["unlearnable"], run.result.conversion
        beyond = score.interval_families
        parts.append(
            paragraph(
                "The positive control's recipe (worked solutions of the missing skills and of what names mean, with",
                f"other numbers) and then GRPO at 1x: of {group.items} unlearnable items {group.converted_at_start}",
                f"were converted before GRPO began and {group.converted} after it, a gain of",
                f"{points(score.gain or 0.0)}",
                f"(95 % over families: {point_span(beyond)})." if beyond else ".",
            )
        )
        here = f"GRPO re-run converts {100 * (score.null_rate or 0.0):.1f} %, "
        here += f"after mid-training {group.converted} of {group.items}"
        verdict: Verdict = "agrees" if beyond is not None and beyond[0] > 0.5 else "differs"
        findings.append(Finding(5, "Another base policy (mid-training) makes unlearnable items learned", here, verdict))
    if both:
        parts.append("Mean raw cosines at the base policy and at the mid-trained policy, before GRPO:")
        parts += [blocks(f"{PARAMETERS[kind].capitalize()}:", _table(found, [START, MID], kind)) for kind in both]
        findings += [_raised(found, kind) for kind in both]
    else:
        parts.append("The diagnoses are missing.")
    return Section("Mid-training", blocks(*parts), findings)


def _pairs() -> list[tuple[str, str]]:
    return list(combinations_with_replacement(SHOWN, 2))


def block(record: SimilarityRecord, a: str, b: str) -> BlockRecord | None:
    """The block of two groups; None where no item of one took part."""
    return next((one for one in record.blocks if {one.a, one.b} == {a, b}), None)


def _table(found: Found, names: Sequence[str], kind: str) -> str:
    rows = []
    for a, b in _pairs():
        cells = [block(found[name, kind], a, b) for name in names]
        rows.append([f"{a}, {b}", *("-" if one is None else cosine(one.raw, one.interval) for one in cells)])
    aucs = [found[name, kind].auc for name in names]
    rows.append(["AUC", *("-" if auc is None else f"{auc.value:.2f}{_ends(auc.interval)}" for auc in aucs)])
    kept = [", ".join(str(found[name, kind].groups.count(group)) for group in SHOWN) for name in names]
    rows.append([f"items: {', '.join(SHOWN)}", *kept])
    reliable = [{row.group: row.median for row in found[name, kind].reliability} for name in names]
    rows.append(
        ["median reliability", *(", ".join(_reliability(row.get(group)) for group in SHOWN) for row in reliable)]
    )
    return table(["pairs", *names], rows)


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"


def _reliability(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _curves(found: Found, names: Sequence[str], kind: str) -> dict[str, Curve]:
    curves = {}
    for a, b in _pairs():
        ends = [block(found[name, kind], a, b) for name in names]
        values = np.array([_limits(one) for one in ends])
        curves[f"{a}, {b}"] = Curve(values[:, 0], values[:, 1], values[:, 2])
    return curves


def _limits(one: BlockRecord | None) -> tuple[float, float, float]:
    if one is None or one.raw is None:
        return float("nan"), float("nan"), float("nan")
    return one.raw, *(one.interval or (one.raw, one.raw))


def _short(name: str) -> str:
    return name.replace(" of GRPO", "")


def _outliers(found: Found, kind: str) -> Finding:
    """The paper's finding at the start: the interval of learnable with unlearnable lies below that of learnable "
    "alone."""
    claim = f"Unlearnable items' gradients are unlike those of the others at the start ({PARAMETERS[kind]})"
    alone, between = (block(found[START, kind], "learnable", other) for other in ("learnable", "unlearnable"))
    if alone is None or between is None or alone.interval is None or between.interval is None:
        return Finding(7, claim, "too few items", "cannot be said")
    here = (
        f"cosine of learnable with unlearnable {cosine(between.raw, between.interval)}, of learnable among themselves "
        f"{cosine(alone.raw, alone.interval)}"
    )
    if between.interval[1] < alone.interval[0]:
        return Finding(7, claim, here, "agrees")
    return Finding(7, claim, here, "differs" if (between.raw or 0.0) >= (alone.raw or 0.0) else "cannot be said")


def _raised(found: Found, kind: str) -> Finding:
    """Whether mid-training raises the similarity of unlearnable items with learnable ones: intervals apart."""
    claim = f"Mid-training raises the similarity of unlearnable items with the learnable ({PARAMETERS[kind]})"
    before, after = (block(found[name, kind], "learnable", "unlearnable") for name in (START, MID))
    if before is None or after is None or before.interval is None or after.interval is None:
        return Finding(5, claim, "too few items", "cannot be said")
    here = f"{cosine(before.raw, before.interval)} before, {cosine(after.raw, after.interval)} after"
    alone = block(found[MID, kind], "learnable", "learnable")
    if alone is not None and alone.interval is not None and after.interval[1] < alone.interval[0]:
        here += f", still unlike the learnable among themselves ({cosine(alone.raw, alone.interval)})"
    if after.interval[0] > before.interval[1]:
        return Finding(5, claim, here, "agrees")
    return Finding(5, claim, here, "differs" if (after.raw or 0.0) <= (before.raw or 0.0) else "cannot be said")
