"""What of a policy is evaluated: every item, the twins of unlearnable ones, the canaries; and the counts of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from unlearnbench.io import tables
from unlearnbench.splits import Split
from unlearnbench.workers.jobs import Problems, measure_job, measure_task, stream_root
from unlearnbench.workers.measure import counts_of
from unlearnbench.workers.worker_group import Job


def measure_policy(
    split: Split, folder: Path, seed: int, policy: Path, samples: int, purpose: str, processes: int = 1
) -> Job:
    """Measure the policy that a seed has left, on items, twins and canaries."""
    place = folder / str(seed)
    unlearnable = set(split.ids("unlearnable"))
    twins = [(t.twin_id, t.prompt, t.answer) for t in split.twins if t.item_id in unlearnable]
    canaries = [(canary.item_id, canary.prompt, canary.answer) for canary in split.canaries]
    root = stream_root(split, purpose, seed) + "/measure"
    tasks = [
        measure_task(place / f"evaluation/{name}.parquet", f"{root}/{name}", problems, key, samples)
        for name, problems, key in (
            ("items", _items(split), "item_id"),
            ("twins", twins, "twin_id"),
            ("canaries", canaries, "item_id"),
        )
        if problems
    ]
    return measure_job(split, policy, tasks, place / "log.txt", seed=seed, stage="measure", processes=processes)


def measure_start(
    split: Split, folder: Path, seed: int, start: Path, samples: int, purpose: str, processes: int = 1
) -> Job:
    """Measure the policy that a seed started from, on the items."""
    place = folder / str(seed)
    root = stream_root(split, purpose, seed) + "/measure/start"
    task = measure_task(place / "evaluation/start.parquet", root, _items(split), "item_id", samples)
    return measure_job(split, start, [task], place / "log.txt", seed=seed, stage="start", processes=processes)


def collect_counts(folder: Path, seeds: Sequence[int]) -> pa.Table:
    """Counts of a run from its evaluation rows: phases start, eval, canary, twin; run = seed."""
    parts = []
    for seed in seeds:
        for path in sorted((folder / str(seed) / "evaluation").glob("*.parquet")):
            rows = tables.read_parquet(path)
            key = "twin_id" if path.stem == "twins" else "item_id"
            phase = {"items": "eval", "twins": "twin", "canaries": "canary", "start": "start"}[path.stem]
            part = counts_of(rows, phase, str(seed), key)
            parts.append(part.rename_columns(["item_id", *part.column_names[1:]]))
    return pa.concat_tables(parts).cast(tables.COUNTS)


def _items(split: Split) -> Problems:
    return [(item.item_id, item.prompt, item.answer) for item in split.items]
