"""How repeatable are the labels? Certification again, with fresh draws, on the checkpoints that `make micro` left.

    python -m recipes.micro.retest          # after `make micro`; prints the Jaccard index of the two cores

Candidates are sampled afresh, n rollouts for each of the S checkpoints, from streams that no label rests on, and
labelled again by the same rule.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recipes.micro.make import ROOT
from unlearnbench import tables
from unlearnbench.cli.progress import Bars
from unlearnbench.jobs import measure_job, measure_task, run_chains, stream_root
from unlearnbench.labels import label_items
from unlearnbench.measure import counts_of
from unlearnbench.splits import Split, load_split


def recertify(split: Split, work: Path) -> dict[str, object]:
    """Both cores, their Jaccard index, and what moved."""
    counts = split.counts().select(tables.COUNTS.names)
    certified = counts.filter(pc.equal(counts["phase"], "certify"))
    wanted = set(certified["item_id"].to_pylist())
    problems = [(item.item_id, item.prompt, item.answer) for item in split.items if item.item_id in wanted]
    n = split.config.protocol.samples.certify
    chains, places = [], {}
    for run in range(1, split.config.protocol.runs + 1):
        place = work / "retest" / f"{run}.parquet"
        places[str(run)] = place
        root = stream_root(split, "retest", run) + "/certify"
        task = measure_task(place, root, problems, "item_id", n, distinct=True)
        policy = work / "curation" / "runs" / str(run) / "checkpoint"
        log = work / "retest" / "log.txt"
        chains.append([measure_job(split, policy, [task], log, seed=run, stage="retest")])
    with Bars() as bars:
        run_chains(chains, os.cpu_count() or 1, bars.show)
    again = [counts_of(tables.read_parquet(place), "certify", run) for run, place in places.items()]
    others = counts.filter(pc.not_equal(counts["phase"], "certify"))
    both = pa.concat_tables([others, *(part.cast(tables.COUNTS) for part in again)])
    labels = label_items(both, split.config.protocol, item_ids=[item.item_id for item in split.items])
    first = {item.item_id for item in split.items if item.group == "unlearnable" and item.certified}
    second = {
        item_id
        for item_id, group, sure in zip(labels.item_ids, labels.group, labels.certified, strict=True)
        if group == "unlearnable" and sure
    }
    return {
        "candidates": len(problems),
        "samples_per_run": n,
        "core_first": len(first),
        "core_second": len(second),
        "in_both": len(first & second),
        "jaccard": len(first & second) / max(1, len(first | second)),
        "only_first": sorted(first - second),
        "only_second": sorted(second - first),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed: int = parser.parse_args().seed
    split = load_split(ROOT / "splits" / "micro" if seed == 0 else ROOT / "build" / f"micro-{seed}")
    print(json.dumps(recertify(split, ROOT / "build" / f"micro-{seed}-work"), indent=2))


if __name__ == "__main__":
    main()
