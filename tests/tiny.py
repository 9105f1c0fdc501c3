"""A complete small split of ten items, two of each group, written in milliseconds; tests alter it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from results import result_of

from unlearnbench.io import files, tables
from unlearnbench.records import (
    TWIN_KINDS,
    BudgetRef,
    Canary,
    CountOf,
    Item,
    NaiveConversion,
    PolicyRef,
    Protocol,
    Retention,
    Samples,
    SplitConfig,
    Twin,
)
from unlearnbench.splits import Split, write, write_split

# Correct rollouts in the phases base (of 32), train (80), after (32), certify (128): the last three for each run.
COUNTS = {
    "easy": (16, (40, 40, 40), (30, 30, 30), None),
    "learnable": (1, (20, 20, 20), (20, 20, 20), None),
    "unlearnable": (2, (6, 6, 6), (1, 1, 1), (4, 4, 4)),
    "no_reward": (0, (0, 0, 0), (0, 0, 0), None),
    "unstable": (1, (9, 9, 9), (20, 0, 0), None),
}
ROLLOUTS = {"base": 32, "train": 80, "after": 32, "certify": 128}


def config(**changes: Any) -> SplitConfig:
    given: dict[str, Any] = {
        "name": "tiny",
        "description": "two sums a group",
        "base_policy": PolicyRef(path="policy", parameters=10),
        "protocol": Protocol(runs=3, samples=Samples(base=32, after=32, certify=128)),
        "budget": BudgetRef(flops_1x=1000),
    }
    return SplitConfig(**given | changes)


def items() -> list[Item]:
    return [
        Item(
            item_id=f"item-{number:02}",
            prompt=f"sum {number} 5=",
            answer=str(number + 5),
            solution=f"{number}+5>\\boxed{{{number + 5}}}",
            family=f"family {number % 2}",
            group=group,
            certified=True if group == "unlearnable" else None,
            cause="skill",
        )
        for number, group in enumerate([group for group in COUNTS for _ in range(2)])
    ]


def twins() -> list[Twin]:
    return [
        Twin(
            twin_id=f"{item.item_id}/{kind}",
            item_id=item.item_id,
            kind=kind,
            prompt=f"twin {kind} of {item.prompt}",
            answer=item.answer,
        )
        for item in items()
        for kind in TWIN_KINDS
    ]


CANARIES = [Canary(item_id="item-03b", prompt="sum 90 9=", answer="98", true_answer="99", family="family 0")]


def counts() -> pa.Table:
    rows = []
    for item in items():
        base, *phases = COUNTS[str(item.group)]
        found: list[tuple[str, int, int]] = [("base", 1, base)]
        for phase, of_runs in zip(("train", "after", "certify"), phases, strict=True):
            found += [(phase, run, correct) for run, correct in enumerate(of_runs or (), start=1)]
        rows += [
            {"item_id": item.item_id, "phase": phase, "run": str(run), "n": ROLLOUTS[phase], "correct": correct}
            for phase, run, correct in found
        ]
    return pa.Table.from_pylist(rows, schema=tables.COUNTS)


def twin_counts() -> pa.Table:
    rows = [{"twin_id": twin.twin_id, "phase": "base", "run": "1", "n": 32, "correct": 1} for twin in twins()]
    return pa.Table.from_pylist(rows, schema=tables.TWIN_COUNTS)


def make(folder: Path, **changes: Any) -> Split:
    """A complete small split, without controls and without items in `boundary`."""
    for name, content in (
        ("model.safetensors", b"weights"),
        ("config.json", b"{}"),
        (".cache/x", b"not part of it"),
    ):
        files.write_bytes(folder / "policy" / name, content)
    given: dict[str, Any] = {
        "config": config(),
        "items": items(),
        "twins": twins(),
        "canaries": CANARIES,
        "counts": counts(),
        "twin_counts": twin_counts(),
    }
    return write_split(folder, **given | changes)


def add_control(split: Split, place: str, **changes: Any) -> None:
    """The counts and the result of a control that nothing was converted in."""
    ids = [
        *(("eval", item.item_id) for item in split.items),
        *(("twin", twin.twin_id) for twin in split.twins),
        *(("canary", canary.item_id) for canary in split.canaries),
    ]
    rows = [
        {"item_id": identity, "phase": phase, "run": str(seed), "n": 32, "correct": 0}
        for phase, identity in ids
        for seed in (9, 10)
    ]
    tables.write_parquet(split.path / place / "counts.parquet", pa.Table.from_pylist(rows, schema=tables.COUNTS))
    told: dict[str, Any] = {
        "split": split.name,
        "split_hash": split.hash,
        "seeds": (9, 10),
        "canaries": CountOf(items=1, converted=0),
        "retention": Retention(easy_items=2, easy_lost=0, easy_rate_change=0.0, interval=None),
    }
    score = {"method_rate": 0.0, "naive": NaiveConversion(any_seed=0.0, two_seeds=0.0)}
    files.write_json(split.path / place / "result.json", result_of(score, **told | changes))


def rehash(folder: Path) -> None:
    """Bring the hashes up to date, so that only the content of the files can be what is wrong."""
    old = tables.read_yaml_record(folder / "split.yaml", SplitConfig)
    hashes = {name: files.sha256(folder / name) for name in write.label_files(folder, old)}
    text = json.dumps(old.model_copy(update={"files": hashes}).model_dump(mode="json"))  # JSON is YAML
    files.write_text(folder / "split.yaml", text)
