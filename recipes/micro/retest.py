"""How repeatable are the labels? Measured three ways on what `make micro` left, and printed as tables.

    python -m recipes.micro.retest --certify    # candidates certified again, fresh draws, the same checkpoints
    python -m recipes.micro.retest --repeat     # the whole protocol again: fresh base samples, runs and draws
    python -m recipes.micro.retest --shrink     # the unlearnable set for 1 to 5 runs, with and without certification

Without an option: all three. `--seed 7` looks at the variant build/micro-7.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recipes.micro.make import ROOT
from unlearnbench.cli.progress import Bars
from unlearnbench.curation.curate import curate
from unlearnbench.io import files, tables
from unlearnbench.records import GROUPS
from unlearnbench.scoring.counts import read_phase
from unlearnbench.scoring.labels import label_items
from unlearnbench.scoring.rates import Counts, Flags, is_above, is_below
from unlearnbench.splits import Split, load_split
from unlearnbench.workers.executor import run_chains
from unlearnbench.workers.jobs import Compute, MeasureTask, measure_job, stream_root
from unlearnbench.workers.measure import counts_of

REPEAT_SEED = 1_000_000  # added to the split's seed: other streams for everything that the protocol draws
RUNS_SHOWN = 5
FEW_SAMPLES = 32  # of the replication
REPLICATION = (164, 91, 61, 45, 35)
"""Unlearnable items after 1 to 5 seeds in the replication that PROTOCOL cites: 32 samples, no certification."""


def recertify(split: Split, work: Path) -> str:
    """Candidates sampled afresh on the labelling runs' checkpoints and labelled again by the same rule."""
    counts = split.counts().select(tables.COUNTS.names)
    certified = counts.filter(pc.equal(counts["phase"], "certify"))
    wanted = set(certified["item_id"].to_pylist())
    again = _sampled(split, work, "certify", wanted)
    others = counts.filter(pc.not_equal(counts["phase"], "certify"))
    ids = [item.item_id for item in split.items]
    labels = label_items(pa.concat_tables([others, again]), split.config.protocol, item_ids=ids)
    first = {item.item_id for item in split.items if item.group == "unlearnable" and item.certified}
    second = {
        item_id
        for item_id, group, sure in zip(labels.item_ids, labels.group, labels.certified, strict=True)
        if group == "unlearnable" and sure
    }
    n = split.config.protocol.samples.certify
    return (
        f"{len(wanted)} candidates, {n} samples in each of {split.config.protocol.runs} runs: {len(first)} core items "
        f"the first time, {len(second)} the second, {len(first & second)} both times; Jaccard index "
        f"{len(first & second) / max(1, len(first | second)):.3f}."
    )


def repeat(split: Split, work: Path) -> str:
    """The whole protocol again with fresh seeds: how many items of each group came out in which group."""
    pool = work / "again" / "pool"
    if not (pool / "split.yaml").is_file():
        shutil.copytree(work / "pool", pool, dirs_exist_ok=True, ignore=shutil.ignore_patterns("split.yaml"))
        text = (work / "pool" / "split.yaml").read_text()
        own = f"\nseed: {split.config.seed}\n"
        assert text.count(own) == 1
        files.write_text(pool / "split.yaml", text.replace(own, f"\nseed: {split.config.seed + REPEAT_SEED}\n"))
    with Bars() as bars:
        again = curate(pool / "split.yaml", work / "again" / "split", work=work / "again" / "work", progress=bars.show)
    second = {item.item_id: item.group for item in again.items}
    moved = Counter((item.group, second[item.item_id]) for item in split.items)
    rows = ["| first time \\ second time | " + " | ".join(GROUPS) + " | all |", "|---|" + "---:|" * (len(GROUPS) + 1)]
    for group in GROUPS:
        cells = [moved[group, other] for other in GROUPS]
        rows.append(f"| {group} | " + " | ".join(map(str, [*cells, sum(cells)])) + " |")
    core = len(split.ids("unlearnable"))
    wrong = moved["unlearnable", "learnable"] + moved["unlearnable", "easy"]
    both = moved["unlearnable", "unlearnable"]
    agree = sum(moved[group, group] for group in GROUPS)
    union = core + len(again.ids("unlearnable")) - both
    return "\n".join(rows) + (
        f"\n\nOf {core} core items {wrong} ({100 * wrong / max(1, core):.1f} %) became learnable or easy and {both} "
        f"({100 * both / max(1, core):.1f} %) stayed unlearnable; Jaccard index of the two cores "
        f"{both / max(1, union):.3f}. {agree} of {len(split.items)} items ({100 * agree / len(split.items):.1f} %) "
        "kept their group."
    )


def shrink(split: Split, work: Path) -> str:
    """Unlearnable items when only S of the labelling runs are looked at: the mean over all subsets of S runs.

    Certification needs samples of items that later runs cleared, so all hard items are sampled afresh here. Few
    samples are a draw without replacement from the many that the labels rest on.
    """
    tau, ids = split.config.protocol.tau, [item.item_id for item in split.items]
    counts = split.counts().select(tables.COUNTS.names)
    base = read_phase(counts, "base", ids).pooled
    after = read_phase(counts, "after", ids).table
    hard = base[0] / base[1] <= tau
    asked = [item_id for item_id, is_hard in zip(ids, hard, strict=True) if is_hard]
    certify = read_phase(_sampled(split, work, "shrink", set(asked)), "certify", ids).table
    train = read_phase(counts, "train", ids).table[0]
    rng = np.random.Generator(np.random.Philox(key=split.config.seed))
    few_base = rng.hypergeometric(base[0], base[1] - base[0], FEW_SAMPLES)
    few_after = rng.hypergeometric(after[0], after[1] - after[0], FEW_SAMPLES)
    many, few = after[0] / after[1] <= tau, few_after / FEW_SAMPLES <= tau
    n = int(after[1].min())
    rows = [
        f"| runs | {n} samples | and certified | {FEW_SAMPLES} samples | and certified | replication, 32 samples |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    first: list[float] = []
    for size in range(1, RUNS_SHOWN + 1):
        sizes = np.zeros(4)
        subsets = list(combinations(range(after[0].shape[1]), size))
        for chosen in map(list, subsets):
            rewarded = base[0] + train[:, chosen].sum(axis=1) >= split.config.protocol.min_successes
            sure = _certified(certify, chosen, tau)
            full = hard & many[:, chosen].all(axis=1) & rewarded
            thin = (few_base / FEW_SAMPLES <= tau) & few[:, chosen].all(axis=1) & rewarded
            sizes += [full.sum(), (full & sure).sum(), thin.sum(), (thin & sure).sum()]
        means = [*(sizes / len(subsets)).tolist(), float(REPLICATION[size - 1])]
        first = first or means
        cells = [f"{mean:.0f} ({100 * mean / most:.0f} %)" for mean, most in zip(means, first, strict=True)]
        rows.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _certified(certify: tuple[Counts, Counts], runs: Sequence[int], tau: float) -> Flags:
    """The protocol's certification on some of the runs."""
    correct, n = certify[0][:, runs], certify[1][:, runs]
    sure: Flags = is_below(correct.sum(axis=1), n.sum(axis=1), tau) & ~is_above(correct, n, tau).any(axis=1)
    return sure & (n > 0).all(axis=1)


def _sampled(split: Split, work: Path, name: str, wanted: Iterable[str]) -> pa.Table:
    """Fresh certification counts of these items on every labelling run's checkpoint, from streams of this name."""
    chosen = set(wanted)
    problems = [(item.item_id, item.prompt, item.answer) for item in split.items if item.item_id in chosen]
    n = split.config.protocol.samples.certify
    chains, places = [], {}
    for run in range(1, split.config.protocol.runs + 1):
        place = work / "retest" / f"{name}-{run}.parquet"
        places[str(run)] = place
        root = stream_root(split, "retest", run) + f"/{name}"
        task = MeasureTask(out=str(place), root=root, problems=problems, key="item_id", n=n, distinct=True)
        policy, log = work / "curation" / "runs" / str(run) / "checkpoint", work / "retest" / "log.txt"
        chains.append([measure_job(split, policy, [task], log, Compute(), seed=run, stage=name)])
    with Bars() as bars:
        run_chains(chains, os.cpu_count() or 1, bars.show)
    counts = [counts_of(tables.read_parquet(place), "certify", run) for run, place in places.items()]
    return pa.concat_tables([part.cast(tables.COUNTS) for part in counts])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    measures = {"certify": recertify, "repeat": repeat, "shrink": shrink}
    for name, measure in measures.items():
        parser.add_argument(f"--{name}", action="store_true", help=(measure.__doc__ or "").splitlines()[0])
    arguments = parser.parse_args()
    seed: int = arguments.seed
    split = load_split(ROOT / "splits" / "micro" if seed == 0 else ROOT / "build" / f"micro-{seed}")
    work = ROOT / "build" / f"micro-{seed}-work"
    chosen = [name for name in measures if getattr(arguments, name)] or list(measures)
    for name in chosen:
        print(f"### {name}\n\n{measures[name](split, work)}\n", flush=True)


if __name__ == "__main__":
    main()
