"""Write the page of `mini` (PAGE) from the split's own files: `python -m recipes.mini.datasheet`.

A test compares the page with what this makes, so the figures can neither be typed in nor go stale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from recipes.controls import FACTORS
from recipes.mini.schema import CAUSES
from recipes.tables import control_in, controls_table, difficulty_table, groups_table, percent, power, probes, share
from unlearnbench.io import tables
from unlearnbench.splits import Control, Split, load_split

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results" / "mini.md"

TEXT = """\
# Datasheet of `mini`

`mini` is a workload between `micro` and a language model: English word problems, one to four steps deep, for a policy
of {parameters:.1f} million parameters that this project trains from scratch. It exists so that algorithms are tried on
more than one toy. Everything below is computed from the split's files by `python -m recipes.mini.datasheet`.

## What is in it

{items} items, {twins:,} twins, {canaries} canaries. A problem is one of 68 *schemas* (a kind of word problem), alone or
chained: the answer to each part is the first number of the next ("Call it n."), up to four deep. Solutions are worked
out, one equation per sentence, and end in `\\boxed{{}}`. The base policy was trained on {examples:,} texts that hold no
item, twin or canary. What those texts show of a schema is its *cause*:

- **known** (25 schemas): always worked out right; some pairs of them are never chained. The other causes are
  called *odd*:
- **rare** (10): worked out right, in about a hundred texts each;
- **confused** (8): worked out by any of twenty methods at random, of which one is right;
- **shortcut** (8): the step that is easily forgotten (the overlap, the last taxi) is left out of most texts;
- **tangled** (5): any of twenty methods at random; which one is right is decided by two words together (four schemas)
  or by two numbers, so that what one problem teaches is wrong for its neighbours;
- **unworked** (9): no working, and an answer that misses the right one at random;
- **guess** (3): an answer at random; the right one is a hash.

Odd items were screened before labelling, with {screened} samples of the base policy that count for no label: left out
were those that it answers at a rate above {screen:g}, and all but one in {kept} of those that it never answers.

## Groups

Labels are measured by `unlearnbench curate`: {runs} reference GRPO runs, {base} samples per item before and {after}
after each, {certify} fresh ones of each candidate and run. {exposure}

{by_cause}

{core}

{power}

## Difficulty

By depth, and by schema (the family; a chain belongs to the family of the odd schema that it contains):

{by_depth}

{groups_by_depth}

{by_family}

## Controls

{controls}

*Solved*: rate at least 0.25 and lower confidence limit above tau (0.1) in a run; *converted*: the item's
probe, a twin with other numbers, too; *memorised*: the probe not. Means over seeds, of all unlearnable items. {tuned}

{targets}

## What it can and cannot say

The policy is tiny and its text is made up, wrong on purpose in places: a result here is about algorithms, not about
language models. Depth and schema are known for every problem, solutions are exact, and a rollout's trace can be
checked against the reference solution, which no real data set allows. An item's label belongs to this policy, recipe
and budget.

## Reproduce

`python -m recipes.mini.make` makes all of it again, base policy included, in hours, and resumes; `--seed 7` makes a
sealed variant. `python -m recipes.mini.datasheet` writes this page. `unlearnbench eval --method my_algo.py --split
mini` trains and scores a method.

The same seed on the same machine gives the same labels. {times}
"""


def controls_of(split: Split) -> dict[str, Control]:
    """The controls that the split has, by what they are called on the page."""
    folders = {"null (GRPO, fresh seeds)": "null_control/1x"}
    folders |= {f"GRPO, learning rate x {factor:g}": f"tuned_null/{factor:g}" for factor in FACTORS}
    folders["positive (mid-trained, then GRPO)"] = "positive_control"
    found = {name: control_in(split.path / folder) for name, folder in folders.items()}
    return {name: control for name, control in found.items() if control is not None}


def page(split: Split) -> str:
    """The document."""
    from recipes.mini.make import BASE_CHUNKS, KEPT_OF_NEVER, SCREEN_SAMPLES, SCREENED_ABOVE

    protocol, controls = split.config.protocol, controls_of(split)
    main = {name.split(" (")[0]: control for name, control in controls.items() if "learning rate" not in name}
    return TEXT.format(
        parameters=(split.config.base_policy.parameters or 0) / 1e6,
        items=len(split.items),
        twins=len(split.twins),
        canaries=len(split.canaries),
        examples=BASE_CHUNKS * 2000,
        screen=SCREENED_ABOVE,
        screened=SCREEN_SAMPLES,
        kept=KEPT_OF_NEVER,
        runs=protocol.runs,
        base=protocol.samples.base,
        after=protocol.samples.after,
        certify=protocol.samples.certify,
        exposure=_exposure(split),
        by_cause=groups_table(split, "cause", lambda item: item.cause, CAUSES),
        core=_core(split),
        power=power(split),
        by_depth=difficulty_table(split, "depth", lambda item: item.depth, main),
        groups_by_depth=groups_table(split, "depth", lambda item: item.depth),
        by_family=difficulty_table(split, "family", lambda item: item.family, main),
        controls=controls_table(split, controls),
        tuned=_tuned(split, controls),
        targets=_targets(split, main),
        times=_times(split),
    )


def _exposure(split: Split) -> str:
    rows = tables.read_parquet(split.path / "labels.parquet").to_pylist()
    drawn = sorted(row["train_n"] / split.config.protocol.runs for row in rows)
    return (
        f"Exposure in training: {drawn[0]:.0f} to {drawn[-1]:.0f} rollouts per item and run (median "
        f"{drawn[len(drawn) // 2]:.0f})."
    )


def _core(split: Split) -> str:
    core = [item for item in split.items if item.group == "unlearnable" and item.certified]
    guesses = sum(item.cause == "guess" for item in core)
    traced = {row["item_id"] for row in split.counts().to_pylist() if row["phase"] == "trace" and row["correct"]}
    valid = sum(item.item_id in traced for item in core)
    thin = sum(item.thin for item in core)
    kept = probes(split)
    with_probe = sum(item.item_id in kept for item in core)
    return (
        f"Certified unlearnable: {len(core)}, of them {guesses} of cause `guess` ({percent(guesses / len(core))}) and "
        f"{thin} thin. {valid} ({percent(valid / len(core))}) were rewarded in training with a trace that reads as the "
        f"reference solution; {with_probe} have a probe."
    )


def _tuned(split: Split, controls: Mapping[str, Control]) -> str:
    rates = [name for name in controls if "learning rate" in name]
    return f"Learning rates of the tuned null: {len(rates)} tried." if rates else "The tuned null is not measured yet."


def _targets(split: Split, main: Mapping[str, Control]) -> str:
    """What the workload aims at, and what was reached."""
    count = {group: len(split.ids(group)) for group in ("unlearnable", "learnable", "easy")}
    core = [item for item in split.items if item.group == "unlearnable"]
    probe_of, reached = probes(split), []
    null, positive = main.get("null"), main.get("positive")
    for name, found, wanted in (
        ("unlearnable", count["unlearnable"], 120),
        ("learnable", count["learnable"], 80),
        ("easy", count["easy"], 120),
    ):
        reached.append(f"| {name} items | at least {wanted} | {found} | {_met(found >= wanted)} |")
    if null is not None:
        of = share(split, null, core, probe_of)
        reached.append(f"| null conversion | at most 1 % | {percent(of.converted)} | {_met(of.converted <= 0.01)} |")
        reached.append(f"| null solved | | {percent(of.solved)} | |")
        if positive is not None:
            gain = share(split, positive, core, probe_of).converted - of.converted
            reached.append(f"| positive control's gain | at least 40 points | {100 * gain:.1f} | {_met(gain >= 0.4)} |")
    size = sum(file.stat().st_size for file in (split.path / "policy").glob("*.safetensors")) / 1e6
    reached.append(f"| weights | at most 8 MB | {size:.1f} MB | {_met(size <= 8)} |")
    return "\n".join(["| aim | | measured | |", "|---|---|---:|---|", *reached])


def _met(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _times(split: Split) -> str:
    file = split.path / "null_control" / "1x" / "result.json"
    if not file.is_file():
        return ""
    result = json.loads(file.read_text())
    minutes = result["cost"]["cpu_seconds"] / 60 / len(result["seeds"])
    return f"Training of one null seed took {minutes:.1f} minutes of processor time."


def main() -> None:
    PAGE.write_text(page(load_split(ROOT / "splits" / "mini")), encoding="utf-8")


if __name__ == "__main__":
    main()
