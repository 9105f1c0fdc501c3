"""A split and the files of a run on it, made up without training, that a page can be made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from results import result_of

from unlearnbench.io import files, tables
from unlearnbench.records import (
    BudgetRef,
    Canary,
    Cost,
    CountOf,
    FamilyConversion,
    Fates,
    GroupName,
    GroupScore,
    Item,
    MethodRecord,
    NaiveConversion,
    PolicyRef,
    Protocol,
    Result,
    Retention,
    Sampling,
    SpentBudget,
    SplitConfig,
    Steps,
    Twin,
    TwinScore,
)
from unlearnbench.splits import Split, write_split

CAUSES = ("rare_skill", "private_skill", "missing_skill", "guess")
SAMPLES, SEEDS, NULL_SEEDS, FEW = 32, (1, 2, 3), tuple(range(101, 111)), 8
HOSTILE = '<script>alert("x")</script><img src="http://evil.example/x.png" onerror=alert(1)>\u202e$\\frac{'


def make_split(
    folder: Path,
    *,
    unlearnable: int = 60,
    hostile: bool = False,
    answers: int = 1000,
    probes: bool = False,
    deep: bool = False,
) -> Split:
    """A labelled split with ten families of unlearnable items, some easy ones and a null control of ten seeds.

    Items that are `answers` apart have the same answer. With `probes` every unlearnable item has one; `deep`
    items take one, two or three steps in turn.
    """
    draw = np.random.default_rng(0)
    groups = ["unlearnable"] * unlearnable + ["easy"] * 12 + ["learnable"] * 8
    items = [
        Item(
            item_id=f"item-{number:03}",
            prompt=HOSTILE if hostile else f"zup{number % 10} {number + 11} {99 - number}=",
            answer=str(number % answers),
            solution=f"{number}>\\boxed{{{number % answers}}}",
            family=(HOSTILE if hostile and number % 10 == 0 else f"{CAUSES[number % 4]} zup{number % 10}"),
            group=group,
            certified=True if group == "unlearnable" else None,
            cause=None if hostile else CAUSES[number % 4] if group == "unlearnable" else "skill",
            depth=1 + number % 3 if deep else None,
        )
        for number, group in enumerate(groups)
    ]
    base = [
        {
            "item_id": i.item_id,
            "phase": "base_fresh",
            "run": "1",
            "n": 128,
            "correct": int(draw.binomial(128, 0.05)),
        }
        for i in items
    ]
    twins = [
        Twin(
            twin_id=f"{i.item_id}-probe", item_id=i.item_id, kind="changed_numbers", prompt="p", answer="1", probe=True
        )
        for i in items
        if probes and i.group == "unlearnable"
    ]
    split = write_split(
        folder,
        SplitConfig(
            name="tiny",
            base_policy=PolicyRef(path="policy"),
            protocol=Protocol(),
            budget=BudgetRef(flops_1x=10**12),
        ),
        items,
        canaries=[Canary(item_id="canary", prompt="sum 1 1=", answer="3", true_answer="2", family="sum")],
        counts=pa.Table.from_pylist(base, schema=tables.COUNTS),
        twins=twins or None,
    )
    rates = np.full(len(items), 0.05)
    place = split.path / "null_control" / "1x"
    tables.write_parquet(place / "counts.parquet", eval_counts(split, rates, NULL_SEEDS, SAMPLES))
    null = make_result(split, 0, method=MethodRecord(name="grpo", source_hash="0", track="verifier"), gain=None)
    files.write_json(place / "result.json", null)
    return split


def eval_counts(split: Split, rates: np.ndarray, seeds: Sequence[int], n: int) -> pa.Table:
    draw = np.random.default_rng(1)
    rows = [
        {"item_id": item.item_id, "phase": "eval", "run": str(seed), "n": n, "correct": int(draw.binomial(n, rate))}
        for item, rate in zip(split.items, rates, strict=True)
        for seed in seeds
    ]
    by_item = {item.item_id: rate for item, rate in zip(split.items, rates, strict=True)}
    rows += [
        {
            "item_id": twin.twin_id,
            "phase": "twin",
            "run": str(seed),
            "n": n,
            "correct": int(draw.binomial(n, by_item[twin.item_id])),
        }
        for twin in split.twins
        for seed in seeds
    ]
    return pa.Table.from_pylist(rows, schema=tables.COUNTS)


def make_run(folder: Path, split: Split, *, converts: int, hostile: bool = False, n: int = SAMPLES) -> None:
    """The files of a run whose first `converts` items (and their probes) have a rate of 0.7, other hard ones 0.05."""
    rates = np.array([0.95 if item.group == "easy" else 0.05 for item in split.items])
    rates[:converts] = 0.7
    tables.write_parquet(folder / "counts.parquet", eval_counts(split, rates, SEEDS, n))
    rows = [
        {
            "item_id": item.item_id,
            "seed": seed,
            "fate": "held" if number < converts else "flickered" if number % 3 else "never",
            "first_correct_step": 7 + number if number < converts or number % 3 else None,
            "rewarded": 5 if number < converts else 1,
            "rewarded_valid_trace": 4 if number < converts else None,
        }
        for number, item in enumerate(split.items)
        for seed in SEEDS
    ]
    tables.write_parquet(folder / "fates.parquet", pa.Table.from_pylist(rows))
    for seed in SEEDS:
        write_seed(folder / str(seed), split, seed, hostile)


def write_seed(folder: Path, split: Split, seed: int, hostile: bool) -> None:
    draw = np.random.default_rng(seed)
    lines = []
    for step in range(30):
        share = 0.2 + 0.5 * (1 - np.exp(-step / 12)) + draw.normal(0, 0.03)
        dead = step == 4  # a step without signal has no update
        lines.append(
            {"step": step, "rollouts": 320, "groups": 40, "kept_groups": 0 if dead else 12, "reward": share}
            | {"correct": share, "truncated": 0.01, "length": 20 + draw.normal(0, 1), "flops": step * 10**9}
            | {"kl": None if dead else step * 1e-3, "gradient_norm": None if dead else 0.4 + draw.random()}
        )
    files.write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    files.write_json(folder / "environment.json", {"python": "3.11", "packages": {"torch": "2.9"}})
    text = HOSTILE if hostile else "9*4>\\boxed{36}"
    rows = [
        {"item_id": item.item_id, "sample": sample, "completion": text, "correct": sample == 1}
        for item in split.items
        for sample in range(2)
    ]
    tables.write_parquet(folder / "evaluation" / "items.parquet", pa.Table.from_pylist(rows))


def group(items: int, converted: int | None, before: float, after: float) -> GroupScore:
    share = None if converted is None else converted / items
    return GroupScore(
        items=items,
        rate_before=before,
        rate_start=before,
        rate_after=after,
        rate_after_interval=(max(0, after - 0.02), min(1, after + 0.02)),
        converted_at_start=None if converted is None else 0,
        converted=converted,
        solved=None if converted is None else float(converted),
        memorised=None if converted is None else 0.0,
        with_probe=0 if converted is None else items,
        conversion=share,
        conversion_interval=None if share is None else (max(0, share - 0.05), min(1, share + 0.05)),
        pass_at_k={"1": after, "8": min(1, 2 * after), "64": None},
    )


def twins(items: int, gain: float | None) -> TwinScore:
    return TwinScore(
        items=items,
        eligible=items,
        rate=0.5 if gain else None,
        null_rate=0.05 if gain else None,
        gain=0.45 if gain else None,
        interval=(0.3, 0.6) if gain else None,
        verdict="generalised" if gain and gain > 0.1 else "undecided",
    )


def make_result(
    split: Split,
    converted: int | None,
    *,
    gain: float | None,
    interval: tuple[float, float] | None = None,
    **changes: Any,
) -> Result:
    items = len(split.ids("unlearnable"))
    families = sorted({item.family for item in split.items if item.group == "unlearnable"})
    share = None if converted is None else converted / items
    control = split.control("null_control") if gain is not None else None
    groups: dict[GroupName, GroupScore] = {
        "easy": group(12, None if converted is None else 12, 0.94, 0.95),
        "learnable": group(8, None if converted is None else 8, 0.05, 0.7),
        "unlearnable": group(items, converted, 0.049, 0.05 + 0.6 * (share or 0)),
    }
    score = {
        "gain": gain,
        "interval": None if interval is None else tuple((end + (gain or 0)) / 2 for end in interval),
        "interval_families": interval,
        "method_rate": share,
        "null_rate": None if gain is None else 0.008,
        "null_hash": control.hash if control else None,
        "null_seeds": 10 if control else 0,
        "rule": "Solved, in one seed: at least 8 of 32 rollouts correct. Converted: solved, and so is the probe.",
        "scope": None if gain is None else "families",
        "naive": NaiveConversion(any_seed=0.3, two_seeds=0.25),
        "families": {
            name: FamilyConversion(items=items // len(families), converted=None if converted is None else 2)
            for name in families
        },
    }
    given: dict[str, Any] = {
        "split": split.name,
        "split_hash": split.hash,
        "method": MethodRecord(
            name="my_algo", source_hash="ab" * 32, track="verifier", settings={"bonus": 0.2, "kl": 1e-3}
        ),
        "seeds": SEEDS,
        "samples": SAMPLES,
        "sampling": Sampling(max_tokens=40),
        "budget": SpentBudget(multiple=1.0, limit=10**12, used=[99 * 10**10] * 3),
        "groups": groups,
        "twins": {"changed_numbers": twins(converted or 0, gain)},
        "thin": CountOf(items=4, converted=None if converted is None else 1),
        "canaries": CountOf(items=1, converted=None if converted is None else 0),
        "fates": Fates(never=60, flickered=60, lost=10, held=50),
        "retention": Retention(
            easy_items=12,
            easy_lost=None if converted is None else 0,
            easy_rate_change=0.01,
            interval=(-0.01, 0.03),
        ),
        "steps": Steps(made=140, planned=250),
        "cost": Cost(
            generated_tokens=1234567, trained_tokens=234567, flops=297 * 10**10, seconds=130.4, device="CPU (x86_64)"
        ),
    }
    return result_of(score, **given | changes)
