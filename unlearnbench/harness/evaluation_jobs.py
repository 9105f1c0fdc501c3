"""What of a policy is measured after training, as jobs, and the counts of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from unlearnbench.io import tables
from unlearnbench.splits import Split
from unlearnbench.workers.jobs import Compute, Job, MeasureTask, measure_job, stream_root
from unlearnbench.workers.measure import counts_of

FILES = {"items": "eval", "twins": "twin", "canaries": "canary", "start": "start"}
"""Files of a seed's `evaluation` folder, and the phase of their counts."""


def measure_policy(
    split: Split, folder: Path, seed: int, policy: Path, samples: int, purpose: str, compute: Compute
) -> Job:
    """Measure the policy that a seed has left, on all that an evaluation asks (`Split.problems`)."""
    place = folder / str(seed)
    root = stream_root(split, purpose, seed) + "/measure"
    tasks = []
    for name in ("items", "twins", "canaries"):
        if problems := split.problems(FILES[name]):
            out = str((place / f"evaluation/{name}.parquet").resolve())
            key = "twin_id" if name == "twins" else "item_id"
            tasks.append(MeasureTask(out=out, root=f"{root}/{name}", problems=problems, key=key, n=samples))
    return measure_job(split, policy, tasks, place / "log.txt", compute, seed=seed, stage="measure")


def measure_start(
    split: Split, folder: Path, seed: int, start: Path, samples: int, purpose: str, compute: Compute
) -> Job:
    """Measure the policy that a seed started from, on the items."""
    place = folder / str(seed)
    root = stream_root(split, purpose, seed) + "/measure/start"
    out = str((place / "evaluation/start.parquet").resolve())
    task = MeasureTask(out=out, root=root, problems=split.problems("eval"), key="item_id", n=samples)
    return measure_job(split, start, [task], place / "log.txt", compute, seed=seed, stage="start")


def collect_counts(folder: Path, seeds: Sequence[int]) -> pa.Table:
    """Counts of a run from its evaluation rows: phases start, eval, canary, twin; run = seed."""
    parts = []
    for seed in seeds:
        for path in sorted((folder / str(seed) / "evaluation").glob("*.parquet")):
            rows = tables.read_parquet(path)
            key = "twin_id" if path.stem == "twins" else "item_id"
            part = counts_of(rows, FILES[path.stem], str(seed), key)
            parts.append(part.rename_columns(["item_id", *part.column_names[1:]]))
    return pa.concat_tables(parts).cast(tables.COUNTS)
