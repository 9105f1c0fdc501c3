"""Write the tables of docs/results/micro.md from the split's own files: `python -m recipes.micro.datasheet`.

A test compares the page with what this makes, so the figures can neither be typed in nor go stale.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np

from recipes.micro.make import ROOT
from unlearnbench.io import tables
from unlearnbench.records import GROUPS
from unlearnbench.scoring.conversion_rule import conversion_arm
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.splits import Control, Split, load_split

PAGE = ROOT / "docs/results/micro.md"
BEGIN, END = "<!-- figures: made by recipes/micro/datasheet.py -->", "<!-- end of figures -->"
SCORED_SEEDS = 3
STRONG_LIMIT = 0.02
CAUSES = ("skill", "rare_skill", "private_skill", "missing_skill", "guess")


def figures(split: Split) -> str:
    """The generated part of the datasheet."""
    return "\n\n".join((_groups(split), _core(split), _controls(split), _families(split)))


def _groups(split: Split) -> str:
    count = Counter((item.cause, item.group) for item in split.items)
    rows = ["| cause | items | " + " | ".join(GROUPS) + " |", "|---|" + "---:|" * (len(GROUPS) + 1)]
    for cause in CAUSES:
        cells = [count[cause, group] for group in GROUPS]
        rows.append(f"| {cause} | {sum(cells)} | " + " | ".join(map(str, cells)) + " |")
    totals = [sum(count[cause, group] for cause in CAUSES) for group in GROUPS]
    rows.append(f"| all | {sum(totals)} | " + " | ".join(map(str, totals)) + " |")
    return "\n".join(rows)


def _core(split: Split) -> str:
    core = [item for item in split.items if item.group == "unlearnable" and item.certified]
    guess = sum(item.cause == "guess" for item in core)
    thin = sum(item.thin for item in core)
    labels = tables.read_parquet(split.path / "labels.parquet").to_pylist()
    rewarded = {row["item_id"]: row["train_correct"] for row in labels}
    seen = sum(rewarded[item.item_id] > 0 for item in core)
    traced = _valid_traces(split)
    valid = sum(item.item_id in traced for item in core)
    exposure = [row["train_n"] for row in labels]
    runs = split.config.protocol.runs
    return (
        f"Certified core of unlearnable items: {len(core)}, of them {thin} thin and {guess} of cause `guess` "
        f"({100 * guess / len(core):.1f} %). {seen} were rewarded in training at least once, {valid} "
        f"({100 * valid / len(core):.1f} %) with a trace that is valid step by step. Exposure in training: "
        f"{min(exposure)} to {max(exposure)} rollouts an item over the {runs} labelling runs."
    )


def _valid_traces(split: Split) -> set[str]:
    """Items with a rewarded training rollout whose trace is valid step by step."""
    return {row["item_id"] for row in split.counts().to_pylist() if row["phase"] == "trace" and row["correct"]}


def _controls(split: Split) -> str:
    rows = [
        "| control | seeds | converted unlearnable items | with three seeds | rate before | at the start | after "
        "| easy lost |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    strong = split.control("strong_null")
    factor = _factor(split, strong)
    for name, control in (
        ("null (GRPO, fresh seeds)", split.control("null_control", "1x")),
        ("null at 4x the budget", split.control("null_control", "4x")),
        (f"strong null (GRPO, learning rate x {factor:g})", strong),
        ("positive (mid-trained, then GRPO)", split.control("positive_control")),
    ):
        if control is None or control.result is None:
            continue
        group, lost = control.result.groups["unlearnable"], control.result.retention
        share = f"{group.converted} of {group.items} ({_pct(group.conversion)})"
        three = _pct(_converted_by(split, control, SCORED_SEEDS))
        start = f"{_pct(group.rate_start)}, {group.converted_at_start} converted"
        gone = f"{lost.easy_lost} of {lost.easy_items}"
        cells = (
            name,
            len(control.seeds),
            share,
            three,
            _pct(group.rate_before),
            start,
            _pct(group.rate_after),
            gone,
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    told = "\n".join(rows) + "\n\n" + _strength(split, strong, factor)
    positive = split.control("positive_control")
    if positive is None or positive.result is None or positive.result.conversion.gain is None:
        return told
    gain = positive.result.conversion
    low, high = gain.interval_families or (float("nan"), float("nan"))
    return (
        told + f'The naive rule "above tau in any of three runs" would call {_pct(_naive(split))} of them converted by '
        f"GRPO at 1x. The positive control's gain is {_pct(gain.gain)} (95 % interval over families {_pct(low)} to "
        f"{_pct(high)})."
    )


def _factor(split: Split, strong: Control | None) -> float:
    """The strong null's learning rate in units of the recipe's."""
    if strong is None or strong.result is None:
        return 1.0
    rate: float = strong.result.method.settings["learning_rate"]
    return round(rate / split.config.recipe.learning_rate, 3)


def _strength(split: Split, strong: Control | None, factor: float) -> str:
    """Whether a better learning rate alone converts items: the first thing to know about this pool."""
    if strong is None:
        return ""
    share = _converted_by(split, strong, SCORED_SEEDS)
    verdict = "more than 2 %: a claim must beat it" if share > STRONG_LIMIT else "not above 2 %"
    best = "the recipe's own" if factor == 1 else f"{factor:g} times the recipe's"
    return (
        f"**Strong null**: of the learning rates x 0.5, 1, 2 and 4 that lose at most 5 % of the easy items, the one "
        f"that converts most is {best}; with fresh seeds it converts {_pct(share)} ({verdict}). Tried with three seeds "
        f"each: {_trials(split)}. "
    )


def _trials(split: Split) -> str:
    """Every learning rate that was tried for the strong null, those that forget too much included."""
    file = split.path / "strong_null" / "trials.json"
    words = []
    for trial in json.loads(file.read_text())["trials"]:
        share, lost = trial["converted"] / trial["items"], trial["easy_lost"] / trial["easy_items"]
        words.append(f"x {trial['factor']:g} converts {_pct(share)} and loses {_pct(lost)} of easy")
    return "; ".join(words)


def _converted_by(split: Split, control: Control, seeds: int) -> float:
    """Converted share with so many of the control's seeds, mean over all subsets of them."""
    ids, runs = split.ids("unlearnable"), [str(seed) for seed in control.seeds]
    cells = Cells.of(read_phase(control.counts, "eval", ids, runs=runs))
    return float(conversion_arm(cells, split.config.protocol.tau, seeds).values.mean())


def _naive(split: Split) -> float:
    """Share of unlearnable items above tau in at least one of three null seeds, over all subsets of three."""
    from itertools import combinations

    control = split.control("null_control", "1x")
    assert control is not None
    rates = _rates(control, split.ids("unlearnable"))
    above = rates > split.config.protocol.tau
    return float(np.mean([above[:, chosen].any(1).mean() for chosen in combinations(range(above.shape[1]), 3)]))


def _rates(control: Control, ids: tuple[str, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    place = {item_id: row for row, item_id in enumerate(ids)}
    rates = np.zeros((len(ids), len(control.seeds)))
    for row in control.counts.to_pylist():
        if row["phase"] == "eval" and row["item_id"] in place:
            rates[place[row["item_id"]], control.seeds.index(int(row["run"]))] = row["correct"] / row["n"]
    return rates


def _families(split: Split) -> str:
    count = Counter((item.family, item.group) for item in split.items)
    names = sorted({item.family for item in split.items})
    rows = [
        f"{len(names)} families:",
        "",
        "| family | " + " | ".join(GROUPS) + " |",
        "|---|" + "---:|" * len(GROUPS),
    ]
    rows += [f"| {name} | " + " | ".join(str(count[name, group] or "") for group in GROUPS) + " |" for name in names]
    return "\n".join(rows)


def _pct(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def page(split: Split, text: str) -> str:
    """The datasheet with its figures made anew."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{figures(split)}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    PAGE.write_text(page(load_split(Path(ROOT / "splits" / "micro")), PAGE.read_text()))


if __name__ == "__main__":
    main()
