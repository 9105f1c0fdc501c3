"""Write the tables of docs/results/micro.md from the split's own files: `python -m recipes.micro.datasheet`.

A test compares the page with what this makes, so the figures can neither be typed in nor go stale.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from recipes.controls import FACTORS
from recipes.micro.make import ROOT
from recipes.tables import control_in, controls_table, difficulty_table, groups_table, percent, probes
from unlearnbench.io import tables
from unlearnbench.records import GROUPS
from unlearnbench.splits import Control, Split, load_split

PAGE = ROOT / "docs/results/micro.md"
BEGIN, END = "<!-- figures: made by recipes/micro/datasheet.py -->", "<!-- end of figures -->"
CAUSES = ("skill", "rare_skill", "private_skill", "entangled_skill", "missing_skill", "guess")
MAIN = {
    "null": "null_control/1x",
    "null at 4x": "null_control/4x",
    "positive": "positive_control",
}
"""Controls by their short names."""


def figures(split: Split) -> str:
    """The generated part of the datasheet."""
    return "\n\n".join((_groups(split), _core(split), _controls(split), _causes(split), _families(split)))


def _groups(split: Split) -> str:
    return groups_table(split, "cause", lambda item: item.cause, CAUSES)


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
    kept = probes(split)
    probed = sum(item.item_id in kept for item in core)
    runs = split.config.protocol.runs
    return (
        f"Certified core of unlearnable items: {len(core)}, of them {thin} thin and {guess} of cause `guess` "
        f"({percent(guess / len(core))}). {seen} were rewarded in training at least once, {valid} "
        f"({percent(valid / len(core))}) with a trace that is valid step by step. {probed} "
        f"({percent(probed / len(core))}) have a probe. Exposure in training: "
        f"{min(exposure)} to {max(exposure)} rollouts per item over the {runs} labelling runs."
    )


def _valid_traces(split: Split) -> set[str]:
    """Items with a rewarded training rollout whose trace is valid step by step."""
    return {row["item_id"] for row in split.counts().to_pylist() if row["phase"] == "trace" and row["correct"]}


def _split_controls(split: Split, folders: dict[str, str]) -> dict[str, Control]:
    found = {name: control_in(split.path / folder) for name, folder in folders.items()}
    return {name: control for name, control in found.items() if control is not None}


def _controls(split: Split) -> str:
    """What every control solves, converts and memorises of the unlearnable items."""
    folders = {"null (GRPO, fresh seeds)": "null_control/1x", "null at 4x the budget": "null_control/4x"}
    folders |= {f"GRPO, learning rate x {factor:g}": f"tuned_null/{factor:g}" for factor in FACTORS}
    folders["positive (mid-trained, then GRPO)"] = "positive_control"
    table = controls_table(split, _split_controls(split, folders))
    positive = split.control("positive_control")
    if positive is None or positive.result is None or positive.result.conversion.gain is None:
        return table
    gain = positive.result.conversion
    low, high = gain.interval_families or (float("nan"), float("nan"))
    return (
        f"{table} The positive control's gain is {100 * (gain.gain or 0):.1f} points (95 % interval over families "
        f"{100 * low:.1f} to {100 * high:.1f})."
    )


def _causes(split: Split) -> str:
    """The same by cause."""
    return difficulty_table(split, "cause", lambda item: item.cause, _split_controls(split, MAIN))


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


def page(split: Split, text: str) -> str:
    """The datasheet with its figures made again."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{figures(split)}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    PAGE.write_text(page(load_split(Path(ROOT / "splits" / "micro")), PAGE.read_text()))


if __name__ == "__main__":
    main()
