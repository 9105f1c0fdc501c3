"""The share of each group, by cause, beside the paper's settings, and by the number of labelling runs.

Everything follows from the split's counts.parquet. To compare with the paper's labels, 32 of the samples before and
after each labelling run are drawn without replacement, and nothing is certified.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from experiments.markdown import Section, blocks, paragraph, table
from unlearnbench.io import tables
from unlearnbench.records import GROUPS, GroupName
from unlearnbench.reports.formatting import pct
from unlearnbench.scoring.counts import read_phase
from unlearnbench.scoring.labels import label_items
from unlearnbench.scoring.rates import Counts
from unlearnbench.splits import Split

PAPER = (
    ("MATH-Easy, Qwen2.5-0.5B", 0.302, 0.256, 0.235, 0.207),
    ("MATH-Hard, Llama-3.2-3B-Instruct", 0.219, 0.316, 0.377, 0.088),
    ("DeepScaleR, Qwen2.5-3B", 0.167, 0.142, 0.472, 0.219),
)
"""Shares of hard prompts in the paper's settings: unlearnable, learnable, no reward, rest (3 runs, 32 samples)."""
PAPER_RUNS = 3
REPLICATION = (164, 91, 61, 45, 35)
"""Unlearnable items after 1 to 5 runs in an independent replication, of 1,023 MATH items with Qwen2.5-0.5B."""
FEW = 32


@dataclass(frozen=True)
class Samples:
    """(correct, n) before, (items,), and after each labelling run, (items, runs); `unused` base samples do not label,
    and count as successes in training, so that every choice of samples sees the same exposure."""

    base: tuple[Counts, Counts]
    after: tuple[Counts, Counts]
    unused: tuple[Counts, Counts]


@dataclass(frozen=True)
class Shrinking:
    """Items of each group when so many runs are looked at: the mean over all choices of them, and the extremes."""

    runs: int
    mean: Mapping[GroupName, float]
    fewest: int
    most: int


def samples_of(split: Split, size: int | None) -> Samples:
    """All samples that label, or `size` of each cell, drawn without replacement (stream: the split's seed)."""
    counts, ids = split.counts(), [item.item_id for item in split.items]
    base, after = read_phase(counts, "base", ids).pooled, read_phase(counts, "after", ids).table
    if size is None:
        return Samples(base, after, (np.zeros_like(base[0]), np.zeros_like(base[1])))
    rng = np.random.Generator(np.random.Philox(key=split.config.seed))
    few, few_base = _drawn(rng, after, size), _drawn(rng, base, size)
    return Samples(few_base, few, (base[0] - few_base[0], base[1] - few_base[1]))


def _drawn(rng: np.random.Generator, counts: tuple[Counts, Counts], size: int) -> tuple[Counts, Counts]:
    correct, n = counts
    return rng.hypergeometric(correct, n - correct, size), np.full_like(n, size)


def shrinking(split: Split, samples: Samples, sizes: Sequence[int]) -> list[Shrinking]:
    """The groups when only some of the labelling runs are looked at, by the package's own rule, uncertified."""
    ids = [item.item_id for item in split.items]
    train = read_phase(split.counts(), "train", ids).table
    found = []
    for size in sizes:
        seen = []
        for chosen in combinations(range(samples.after[0].shape[1]), size):
            parts = [_phase(ids, "base", 0, *samples.base)]
            parts += [_phase(ids, "train", "unused base samples", *samples.unused)]
            for name, (correct, n) in (("train", train), ("after", samples.after)):
                parts += [_phase(ids, name, run, correct[:, run], n[:, run]) for run in chosen]
            labels = label_items(pa.concat_tables(parts), split.config.protocol, item_ids=ids)
            seen.append(Counter(labels.group))
        held = [counter["unlearnable"] for counter in seen]
        means = {group: sum(counter[group] for counter in seen) / len(seen) for group in GROUPS}
        found.append(Shrinking(size, means, min(held), max(held)))
    return found


def _phase(ids: Sequence[str], name: str, run: int | str, correct: Counts, n: Counts) -> pa.Table:
    named = {"item_id": list(ids), "phase": [name] * len(ids), "run": [str(run)] * len(ids)}
    return pa.table({**named, "n": n, "correct": correct}).cast(tables.COUNTS)


def section(split: Split) -> Section:
    """The groups by cause, beside the paper's shares of hard items, and by the number of labelling runs."""
    few = samples_of(split, FEW)
    runs = few.after[0].shape[1]
    by_runs = shrinking(split, few, [*range(1, min(runs, len(REPLICATION)) + 1)])
    return Section(
        "The partition",
        blocks(
            paragraph(
                f"{len(split.items)} items; the labels rest on {runs} runs. Groups by cause ([micro.md](micro.md) has",
                "every family):",
            ),
            _by_cause(split),
            paragraph(
                "Beside the paper's settings, in percent of hard items (all that are not easy). How large the shares",
                "are on micro was decided by its mix of causes.",
            ),
            _beside_paper(split, by_runs),
            paragraph(
                f"Unlearnable items by the number of labelling runs that are looked at, with {FEW} samples and no",
                "certification: the mean over all choices of runs, and the extremes.",
            ),
            _by_runs(by_runs),
        ),
    )


def _by_cause(split: Split) -> str:
    causes = list(dict.fromkeys(item.cause or "unknown" for item in split.items))
    met = Counter((item.cause or "unknown", item.group) for item in split.items)
    rows = []
    for cause in [*causes, "all"]:
        of = [sum(met[c, g] for c in causes) if cause == "all" else met[cause, g] for g in GROUPS]
        rows.append([cause, str(sum(of)), *(f"{n} ({pct(n / sum(of))})" if n else "" for n in of)])
    return table(["cause", "items", *GROUPS], rows)


def _beside_paper(split: Split, by_runs: Sequence[Shrinking]) -> str:
    rows = [[name, *map(pct, shares)] for name, *shares in PAPER]
    shipped: Mapping[GroupName, float] = Counter(item.group for item in split.items if item.group is not None)
    words = f"{PAPER_RUNS} runs, {FEW} samples, as in the paper"
    same = [(words, row.mean) for row in by_runs if row.runs == PAPER_RUNS]
    for words, met in [*same, ("as labelled", shipped)]:
        hard = sum(met.get(group, 0) for group in GROUPS) - met.get("easy", 0)
        shares = [met.get(group, 0) / hard for group in ("unlearnable", "learnable", "no_reward")]
        rows.append([f"{split.name}, {words}", *map(pct, [*shares, 1 - sum(shares)])])
    return table(["setting", "unlearnable", "learnable", "no reward", "rest"], rows)


def _by_runs(by_runs: Sequence[Shrinking]) -> str:
    rows = []
    for row, theirs in zip(by_runs, REPLICATION, strict=False):
        held, first = row.mean["unlearnable"], by_runs[0].mean["unlearnable"]
        share = f"{held:.0f} ({pct(held / first) if first else '-'}, {row.fewest} to {row.most})"
        rows.append([str(row.runs), share, f"{theirs} ({pct(theirs / REPLICATION[0])})"])
    return table(["runs", "micro", "replication"], rows)
