"""Gradient similarity of an item to its own augmentations: changed numbers, and another wording.

    python -m experiments.augmentations            # a few minutes; it resumes

The paper compares the gradient of an item with those of problems made from it. The base policy's correct rollouts of
items and of their twins are drawn alike, `unlearnbench diagnose` takes their gradients, and the page shows the cosine
of an item with its own twin beside that with the twins of the group's other items.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load_file

from experiments.markdown import blocks, paragraph, table
from experiments.runs import of_group
from experiments.sweep import RUNS
from unlearnbench.diagnosis.diagnose import diagnose
from unlearnbench.diagnosis.record import SimilarityRecord
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.io import tables
from unlearnbench.policies.policy import load_policy
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.records import Interval, Sampling
from unlearnbench.reports.formatting import cosine
from unlearnbench.rng import shuffled
from unlearnbench.splits import Split, load_split
from unlearnbench.verifier import Verifier
from unlearnbench.workers.measure import Problem, measure

GROUPS = ("easy", "learnable", "unlearnable")
KINDS = ("changed_numbers", "other_wording")
ITEMS = 60
DRAWN = 1024
ROLLOUTS = 20
RESAMPLES = 2000
FOLDER = "augmentations"

Cosines = NDArray[np.float64]


@dataclass(frozen=True)
class Own:
    """Of one group and kind of twin: mean cosine of an item with its own twin, and with the other items' twins.

    Intervals are 95 %, by bootstrap over items; `apart` is the difference of the two means.
    """

    items: int
    own: float
    own_interval: Interval
    others: float
    apart_interval: Interval


def chosen(split: Split) -> dict[str, list[Problem]]:
    """By name of a set (group, or group and kind): at most ITEMS items of each group, and the first twin of a kind."""
    twins: dict[tuple[str, str], Problem] = {}
    for twin in split.twins:
        twins.setdefault((twin.item_id, twin.kind), Problem(twin.twin_id, twin.prompt, twin.answer))
    sets: dict[str, list[Problem]] = {}
    for group in GROUPS:
        items = shuffled(of_group(split, group), "augmentations", group)[:ITEMS]
        sets[group] = [Problem(item.item_id, item.prompt, item.answer) for item in items]
        for kind in KINDS:
            sets[f"{group}, {kind}"] = [twins[item.item_id, kind] for item in items if (item.item_id, kind) in twins]
    return sets


def draw(split: Split, folder: Path) -> Path:
    """Write the first ROLLOUTS correct rollouts of every problem that has so many of DRAWN, temperature 1."""
    file = folder / "rollouts.parquet"
    if not file.is_file():
        policy = load_policy(Path(split.policy_path))
        sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=split.config.protocol.sampling.max_tokens)
        parts = []
        with Verifier() as verifier:
            for name, problems in chosen(split).items():
                print(f"rollouts: {name}", file=sys.stderr, flush=True)
                rows = measure(
                    problems,
                    DRAWN,
                    policy=policy,
                    sampler=TransformersSampler(policy),
                    verifier=verifier,
                    sampling=sampling,
                    root="augmentations",
                )
                parts.append(_first_correct(rows, name, {one.problem_id: one.prompt for one in problems}))
        tables.write_parquet(file, pa.concat_tables(parts))
    return file


def _first_correct(rows: pa.Table, group: str, prompts: dict[str, str]) -> pa.Table:
    """The first ROLLOUTS correct rollouts of each problem, as `diagnose --rollouts` reads them."""
    rows = rows.filter(rows["correct"])
    seen: dict[str, int] = {}
    kept = []
    for name in rows["item_id"].to_pylist():
        seen[name] = seen.get(name, 0) + 1
        kept.append(seen[name] <= ROLLOUTS)
    rows = rows.filter(pa.array(kept, pa.bool_()))
    ids = rows["item_id"].to_pylist()
    return (
        rows.select(["item_id", "completion", "token_ids", "finish", "correct"])
        .append_column("prompt", pa.array([prompts[name] for name in ids], pa.string()))
        .append_column("group", pa.array([group] * len(ids), pa.string()))
    )


def compare(split: Split, folder: Path) -> dict[tuple[str, str], Own]:
    """The figures of every group and kind from a finished diagnosis; empty where there is none."""
    if not (folder / "similarity.json").is_file():
        return {}
    record = tables.read_json_record(folder / "similarity.json", SimilarityRecord)
    cosines = load_file(folder / "similarity.safetensors")["cosine"].astype(np.float64)
    place = {name: number for number, name in enumerate(record.item_ids)}
    sets, found = chosen(split), {}
    for group in GROUPS:
        for kind in KINDS:
            pairs = [
                (place[item.problem_id], place[twin.problem_id])
                for item, twin in zip(sets[group], sets[f"{group}, {kind}"], strict=True)
                if item.problem_id in place and twin.problem_id in place
            ]
            if len(pairs) > 1:
                rows, columns = zip(*pairs, strict=True)
                found[group, kind] = own_and_others(cosines[np.ix_(rows, columns)])
    return found


def own_and_others(cosines: Cosines) -> Own:
    """`cosines` (items, their twins): the diagonal is an item with its own twin, a row's rest with the others'."""
    count = len(cosines)
    own = np.diag(cosines)
    others = (cosines.sum(1) - own) / (count - 1)
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    return Own(
        count,
        float(own.mean()),
        _interval(own[drawn].mean(1)),
        float(others.mean()),
        _interval((own - others)[drawn].mean(1)),
    )


def _interval(values: Cosines) -> Interval:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def section(split: Split, folder: Path) -> str:
    """The table, or that it was not measured."""
    found = compare(split, folder / "similarity" / FOLDER)
    if not found:
        return "Items with their own augmentations: not measured (`python -m experiments.augmentations`)."
    rows = [
        [
            *(group, kind.replace("_", " "), str(one.items)),
            *(_with(one.own, one.own_interval), cosine(one.others), _with(one.own - one.others, one.apart_interval)),
        ]
        for (group, kind), one in found.items()
    ]
    return blocks(
        paragraph(
            f"An item with its own augmentations at the base policy (adapter on q and v, {ROLLOUTS} correct rollouts",
            f"of each, items and twins that have them among {DRAWN}): mean cosine with its own twin, with the same",
            "kind of twin of the group's other items, and the difference, with 95 % intervals over items.",
        ),
        table(["group", "twin", "items", "own", "others'", "difference"], rows, left=2),
    )


def _with(value: float, interval: Interval) -> str:
    return f"{cosine(value)} ({cosine(interval[0])} to {cosine(interval[1])})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs [default: build/experiments]")
    parser.add_argument("--split", default="micro", help="name or folder of the split [default: micro]")
    parser.add_argument("--workers", type=int, help="processes [default: one per core]")
    given = parser.parse_args(arguments)
    try:
        split, folder = load_split(given.split), given.runs / "similarity" / FOLDER
        file = draw(split, folder.with_name(f"{FOLDER}-rollouts"))
        groups = tuple(chosen(split))
        diagnose(
            split.policy_path,
            rollouts=file,
            out=folder,
            rollouts_per_item=ROLLOUTS,
            workers=given.workers,
            groups=groups,
        )
    except UnlearnBenchError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
