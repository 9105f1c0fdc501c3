"""A small split around the policy of micro, the files of a finished run on it, and the bundle made of them.

Nothing is trained: the weights of a run are those of policies that are there. Its rollouts are drawn from them by the
package's own measuring, and what training drew and spent is made up, such that nothing in it contradicts itself.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from made_run import SAMPLES, SEEDS, eval_counts, make_result

from unlearnbench.harness.evaluate import score_run
from unlearnbench.harness.evaluation_jobs import measure_policy, measure_start
from unlearnbench.harness.run_config import RunConfig
from unlearnbench.io import files, tables
from unlearnbench.io.safe_zip import read_archive
from unlearnbench.leaderboard.bundles.bundle import Statement, member_limit
from unlearnbench.leaderboard.bundles.opening import open_bundle
from unlearnbench.leaderboard.bundles.writing import write_bundle, write_members
from unlearnbench.leaderboard.verification.scores import facts_of_bundle, scored
from unlearnbench.methods import MethodSource
from unlearnbench.policies.weights import take_over
from unlearnbench.records import BudgetRef, Lora, MethodRecord, Protocol, Sampling, Twin
from unlearnbench.rng import in_epochs, shuffled
from unlearnbench.splits import Split, find_split, load_split, write_split
from unlearnbench.training.ledger import ROLLOUTS
from unlearnbench.training.meter import flops
from unlearnbench.workers.jobs import Compute, Job, stream_root
from unlearnbench.workers.measure_job import measure

METHOD = '''"""A method of the test."""

from unlearnbench import Method


class Mine(Method):
    track = "verifier"
'''
Members = dict[str, bytes]
Refused = Callable[[Callable[[Members], None]], dict[str, str]]
"""The first reason of each check against the made bundle with a change."""

BASE, POSITIVE = "policy", "positive_control/policy"
"""Folders of micro: the base policy, and one that solves most unlearnable items."""
PROMPTS, GROUP, TOKENS, STEPS = 12, 4, 9, 3
"""Of a made-up training: items per step, rollouts per item, tokens of each rollout, steps."""


def make_split(folder: Path, *, unlearnable: int = 30) -> Split:
    """Some items of micro with their policy, twins, two canaries, and a null control of ten seeds that solve little."""
    micro, home = load_split("micro"), find_split("micro")
    for name in (BASE, POSITIVE):
        shutil.copytree(home / name, folder / name)
    items = []
    for group, number in (("easy", 8), ("learnable", 8), ("unlearnable", unlearnable)):
        items += [item for item in micro.items if item.group == group][:: 3 if group == "unlearnable" else 1][:number]
    ids = pa.array(sorted(item.item_id for item in items))
    step = _cost(micro, 1)["flops"]
    config = micro.config.model_copy(
        update={
            "name": "made",
            "files": {},
            "budget": BudgetRef(flops_1x=step * STEPS - step // 100),
            "recipe": micro.config.recipe.model_copy(update={"prompts_per_step": PROMPTS, "group_size": GROUP}),
            "protocol": Protocol(
                sampling=Sampling(max_tokens=micro.config.protocol.sampling.max_tokens), valid_trace="solution"
            ),
        }
    )
    counts = micro.counts()
    split = write_split(
        folder,
        config,
        items,
        twins=_probes(micro, ids.to_pylist()),
        canaries=list(micro.canaries[:2]),
        counts=counts.filter(pc.is_in(counts["item_id"], ids)),
    )
    place = split.path / "null_control" / "1x"
    rates = np.array([0.9 if item.group == "easy" else 0.04 for item in items])
    tables.write_parquet(place / "counts.parquet", eval_counts(split, rates, tuple(range(101, 111)), SAMPLES))
    null = make_result(split, 0, method=MethodRecord(name="grpo", source_hash="0", track="verifier"), gain=None)
    files.write_json(place / "result.json", null)
    return split


def _probes(micro: Split, ids: list[str]) -> list[Twin]:
    """The first twin with changed numbers of each item, as its probe."""
    found: dict[str, Twin] = {}
    for twin in micro.twins:
        if twin.item_id in ids and twin.kind == "changed_numbers":
            found.setdefault(twin.item_id, twin.model_copy(update={"probe": True}))
    return list(found.values())


def make_run(
    folder: Path,
    split: Split,
    weights: str | Path = POSITIVE,
    *,
    seeds: tuple[int, ...] = SEEDS,
    quick: bool = False,
    start: str = "base",
    settings: Mapping[str, Any] | None = None,
    draw_as: Mapping[int, int] | None = None,
) -> Path:
    """A finished run whose seeds all have these weights (a folder of the split, or any): scored by `score_run`.

    `draw_as`: seeds whose files are written under another number, as one who picks lucky seeds would.
    """
    source = folder.parent / "my_algo.py"
    files.write_text(source, METHOD)
    config = RunConfig(
        split=split,
        method=MethodSource("my_algo", str(source), None, None),
        seeds=seeds,
        samples=8 if quick else SAMPLES,
        quick=quick,
    )
    for seed in seeds:
        place = folder / str(seed)
        _write_seed(place, config, seed, {"start": start, "settings": dict(settings or {})})
        steps = 24 if quick else STEPS
        _write_training(place, split, (draw_as or {}).get(seed, seed), steps)
        base, lora = split.path / BASE, (settings or {}).get("lora")
        given = Path(weights) if Path(weights).is_absolute() else split.path / weights
        take_over(
            given, base, place / "checkpoint", None if lora is None else Lora(**lora), {"finished": True, "step": steps}
        )
        _measure(folder, config, seed, start, draw_as or {})
    score_run(config, folder)
    return folder


def _measure(folder: Path, config: RunConfig, seed: int, start: str, draw_as: Mapping[int, int]) -> None:
    split, numbered = config.split, draw_as.get(seed, seed)
    jobs = [
        measure_policy(split, folder, numbered, folder / str(seed) / "checkpoint", config.samples, "eval", Compute())
    ]
    if start != "base":
        jobs.append(measure_start(split, folder, numbered, split.path / POSITIVE, config.samples, "eval", Compute()))
    for job in jobs:
        run_here(job)
    if numbered != seed:
        shutil.move(folder / str(numbered) / "evaluation", folder / str(seed) / "evaluation")
        shutil.rmtree(folder / str(numbered))


class _Link:
    """A measuring's link to nobody."""

    def report(self, event: object) -> None: ...


def run_here(job: Job) -> None:
    """Do a measuring job in this process."""
    measure(job.work, _Link())  # type: ignore[arg-type]


def _write_seed(place: Path, config: RunConfig, seed: int, told: dict[str, Any]) -> None:
    files.write_json(place / "config.json", config.configuration() | {"seed": seed})
    files.write_json(place / "environment.json", {"python": "3.11", "packages": {"torch": "2.9"}})
    files.write_text(place / "method.py", METHOD)
    settings = config.split.config.recipe.model_dump(mode="json") | told["settings"]
    method = {"name": "my_algo", "class": "Mine", "source_hash": config.method.hash, "track": "verifier", "reads": []}
    method |= {"settings": settings, "hooks": ["advantages"], "start": told["start"]}
    if told["start"] != "base":
        method |= {"track": "base", "reads": ["base"]}
    files.write_json(place / "method.json", method)
    steps = 24 if config.quick else STEPS
    cost = _cost(config.split, steps) | {"verifier_calls": steps * PROMPTS * GROUP, "ungradable": 0}
    files.write_json(place / "cost.json", cost | {"seconds": 12.5, "device": "CPU (x86_64)", "cpu_seconds": 12.0})


def _cost(split: Split, steps: int) -> dict[str, int]:
    """What the made-up training spent: each rollout drawn, its prompts and as many tokens again passed and trained."""
    generated = steps * PROMPTS * GROUP * TOKENS
    parameters = split.config.base_policy.parameters or 0
    spent = {"generated_tokens": generated, "trained_tokens": generated // 2, "forward_tokens": generated}
    return spent | {"flops": flops(parameters, 2 * generated, generated // 2)}


def _write_training(place: Path, split: Split, seed: int, steps: int) -> None:
    draw, root = np.random.default_rng(seed), stream_root(split, "eval", seed)
    pool = sorted([*(item.item_id for item in split.items), *(canary.item_id for canary in split.canaries)])
    rows: list[dict[str, Any]] = []
    for step in range(steps):
        chosen = in_epochs(pool, step, PROMPTS, lambda ids, epoch: shuffled(ids, root, "method", "epoch", epoch))
        for item_id in chosen:
            for rollout in range(GROUP):
                right = bool(draw.random() < 0.3)
                row = {"step": step, "round": 0, "item_id": item_id, "rollout": rollout, "source": "policy"}
                row |= {"policy_version": step, "completion": "", "token_ids": [1] * TOKENS, "finish": "stop"}
                row |= {"correct": right, "answer": None, "reason": "match", "reward": float(right), "kept": True}
                rows.append(row | {"valid_trace": right and bool(draw.random() < 0.5)})
    tables.write_parquet(place / "rollouts/000003.parquet", pa.Table.from_pylist(rows, schema=ROLLOUTS))
    lines = [{"step": step, "flops": _cost(split, step + 1)["flops"]} for step in range(steps)]
    files.write_text(place / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def make_bundle(run: Path, out: Path, **stated: Any) -> Path:
    write_bundle(run, out, Statement(**({"name": "Mine", "tried": 1} | stated)))
    return out


def members_of(bundle: Path) -> Members:
    """All members, weights included."""
    return dict(read_archive(bundle, member_limit).members)


def altered(bundle: Path, out: Path, change: Callable[[Members], None]) -> Path:
    """The bundle with some members changed, and a manifest that is true of them."""
    members = members_of(bundle)
    change(members)
    write_members(members, out)
    return out


def retold(bundle: Path, out: Path, split: Split, change: Callable[[list[dict[str, Any]]], Any]) -> Path:
    """The bundle with other rollouts, and counts and a result that follow from what they claim."""
    return altered(bundle, out, lambda members: retell(members, split, change))


def retell(members: Members, split: Split, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    in_table(members, "rollouts.parquet", change)
    rollouts = pq.read_table(io.BytesIO(members["rollouts.parquet"]))
    ones = rollouts.append_column("n", pa.array([1] * rollouts.num_rows)).append_column(
        "right", pc.cast(rollouts["correct"], pa.int64())
    )
    sums = ones.group_by(["problem_id", "phase", "seed"], use_threads=False).aggregate([("n", "sum"), ("right", "sum")])
    columns = [sums["problem_id"], sums["phase"], pc.cast(sums["seed"], pa.string()), sums["n_sum"], sums["right_sum"]]
    counts = pa.table(columns, schema=tables.COUNTS)
    members["counts.parquet"] = parquet(counts)
    with tempfile.TemporaryDirectory() as folder:
        write_members(members, Path(folder) / "x.zip")
        bundle = open_bundle(Path(folder) / "x.zip")
    assert bundle.result.fates is not None
    told = scored(counts, split, facts_of_bundle(bundle, split, bundle.result.fates))
    members["result.json"] = json.dumps(told.model_dump(mode="json")).encode()


def in_json(members: Members, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(members[name])
    change(content)
    members[name] = json.dumps(content).encode()


def in_table(members: Members, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    """Change the rows of a table as dicts; `change` may return other rows."""
    table = pq.read_table(io.BytesIO(members[name]))
    rows = table.to_pylist()
    rows = change(rows) or rows
    members[name] = parquet(pa.Table.from_pylist(rows, schema=table.schema))


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **({"compression": "zstd"} | options))
    return sink.getvalue()


def told(found: Any) -> Mapping[str, str]:
    """The first reason of each check."""
    first: dict[str, str] = {}
    for reason in found.reasons:
        first.setdefault(reason.check, reason.reason)
    return first
