"""Experiment 1: the share of each group, by cause and by the number of labelling runs, with and without certification.

Everything follows from the split's counts.parquet. Certification samples exist only for the items that all labelling
runs failed. To certify what fewer runs leave, the samples after each run are dealt into two disjoint parts without
replacement, one to label by and one to certify by, so that neither is used twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa

from experiments.markdown import Finding, Section, blocks, paragraph, table
from unlearnbench.io import tables
from unlearnbench.records import GROUPS, GroupName, Interval
from unlearnbench.reports.formatting import pct, span
from unlearnbench.scoring.counts import read_phase
from unlearnbench.scoring.intervals import mean_interval
from unlearnbench.scoring.labels import label_items
from unlearnbench.scoring.rates import Counts
from unlearnbench.splits import Split

PAPER = (
    ("MATH-Easy, Qwen2.5-0.5B", 0.302, 0.256, 0.235, 0.207),
    ("MATH-Hard, Llama-3.2-3B-Instruct", 0.219, 0.316, 0.377, 0.088),
    ("DeepScaleR, Qwen2.5-3B", 0.167, 0.142, 0.472, 0.219),
)
"""Shares of hard prompts in the paper's settings: unlearnable, learnable, no reward, rest (3 runs, 32 samples)."""
REPLICATION = (164, 91, 61, 45, 35)
"""Unlearnable items after 1 to 5 runs in an independent replication, of 1,023 MATH items with Qwen2.5-0.5B."""
FEW = 32
CERTIFY = 128
MOST_RUNS = 5


@dataclass(frozen=True)
class Dealt:
    """Counts of one way to label: base samples, and after each run those to label by and those to certify by."""

    name: str
    base: tuple[Counts, Counts]
    after: tuple[Counts, Counts]
    certify: tuple[Counts, Counts] | None
    unused: tuple[Counts, Counts]
    """Base samples that do not label, but count as successes: every way sees the same exposure."""


@dataclass(frozen=True)
class Shrinking:
    """Items of each group when so many runs are looked at: the mean over all choices of them, and the extremes."""

    runs: int
    mean: Mapping[GroupName, float]
    fewest: int
    most: int


def dealings(split: Split) -> list[Dealt]:
    """The ways to label that are compared: all samples, most of them and a certification, 32, and 32 with it."""
    counts, ids = split.counts(), [item.item_id for item in split.items]
    base = read_phase(counts, "base", ids).pooled
    after = read_phase(counts, "after", ids).table
    rng = np.random.Generator(np.random.Philox(key=split.config.seed))
    sure, many = _draw(rng, after, CERTIFY)
    few_base, unused = _draw(rng, base, FEW)
    none = (np.zeros_like(base[0]), np.zeros_like(base[1]))
    few, rest = _draw(rng, after, FEW)
    few_sure, _ = _draw(rng, rest, CERTIFY)
    n = int(after[1].min())
    return [
        Dealt(f"{n} samples", base, after, None, none),
        Dealt(f"{n - CERTIFY} samples, certified", base, many, sure, none),
        Dealt(f"{FEW} samples", few_base, few, None, unused),
        Dealt(f"{FEW} samples, certified", few_base, few, few_sure, unused),
    ]


def _draw(
    rng: np.random.Generator, counts: tuple[Counts, Counts], size: int
) -> tuple[tuple[Counts, Counts], tuple[Counts, Counts]]:
    """So many of the samples of every cell, drawn without replacement, and the others."""
    correct, n = counts
    drawn = rng.hypergeometric(correct, n - correct, size)
    return (drawn, np.full_like(n, size)), (correct - drawn, n - size)


def shrinking(split: Split, dealt: Dealt, sizes: Sequence[int]) -> list[Shrinking]:
    """The groups when only some of the labelling runs are looked at, by the package's own rule."""
    ids = [item.item_id for item in split.items]
    train = read_phase(split.counts(), "train", ids).table
    found = []
    for size in sizes:
        seen = []
        for chosen in map(list, combinations(range(dealt.after[0].shape[1]), size)):
            labels = label_items(_counts(ids, dealt, train, chosen), split.config.protocol, item_ids=ids)
            seen.append(Counter(labels.group))
        held = [counter["unlearnable"] for counter in seen]
        means = {group: sum(counter[group] for counter in seen) / len(seen) for group in GROUPS}
        found.append(Shrinking(size, means, min(held), max(held)))
    return found


def _counts(ids: Sequence[str], dealt: Dealt, train: tuple[Counts, Counts], runs: Sequence[int]) -> pa.Table:
    """The counts that a curation with these runs would have left."""
    parts = [_phase(ids, "base", 0, *dealt.base), _phase(ids, "train", "unused base samples", *dealt.unused)]
    phases = [("train", train), ("after", dealt.after), *([("certify", dealt.certify)] if dealt.certify else [])]
    for name, (correct, n) in phases:
        parts += [_phase(ids, name, run, correct[:, run], n[:, run]) for run in runs]
    return pa.concat_tables(parts)


def _phase(ids: Sequence[str], name: str, run: int | str, correct: Counts, n: Counts) -> pa.Table:
    named = {"item_id": list(ids), "phase": [name] * len(ids), "run": [str(run)] * len(ids)}
    return pa.table({**named, "n": n, "correct": correct}).cast(tables.COUNTS)


def share_of_hard(split: Split, group: GroupName) -> tuple[float, Interval | None]:
    """A group's share of the hard items, with its interval over families."""
    hard = [item for item in split.items if item.group != "easy"]
    values = np.array([float(item.group == group) for item in hard])
    names, families = [item.item_id for item in hard], [item.family for item in hard]
    return float(values.mean()), mean_interval(values, names, families, [], beyond=True, rollouts=1e9)


def section(split: Split) -> Section:
    """Tables of the partition, and what they say beside the paper."""
    ways = dealings(split)
    total = len(split.items)
    runs = ways[0].after[0].shape[1]
    sizes = range(1, min(MOST_RUNS, runs) + 1)
    by_way = [shrinking(split, way, [*sizes, *([runs] if runs > MOST_RUNS else [])]) for way in ways]
    share, interval = share_of_hard(split, "unlearnable")
    text = blocks(
        paragraph(
            f"{total} items; the labels rest on {runs} runs and {ways[0].name} an item, before and after each. Shares "
            "of the whole by what the base policy has seen of the items' names ([micro.md](micro.md) has every family):"
        ),
        _by_cause(split),
        paragraph("Beside the paper's settings, in percent of hard items (all that are not easy):"),
        _beside_paper(split, by_way),
        paragraph(
            "Unlearnable items when only some of the labelling runs are looked at: the mean over all choices of so "
            f"many of the {runs} runs, as a share of what one run leaves, and the extremes. To certify is to ask "
            f"{CERTIFY} further samples of every run to confirm the label; here they are dealt from the samples after "
            "each run, disjoint from those that label. Successes are counted over all samples in every column."
        ),
        _shrink_table(ways, by_way),
        paragraph(f"All groups by the number of runs ({ways[1].name}):"),
        _groups_table(by_way[1], total),
    )
    return Section("The partition", text, [_share_finding(share, interval), _shrink_finding(by_way)])


def _by_cause(split: Split) -> str:
    causes = list(dict.fromkeys(item.cause or "unknown" for item in split.items))
    met = Counter((item.cause or "unknown", item.group) for item in split.items)
    rows = []
    for cause in [*causes, "all"]:
        of = [sum(met[c, g] for c in causes) if cause == "all" else met[cause, g] for g in GROUPS]
        rows.append([cause, str(sum(of)), *(f"{n} ({pct(n / sum(of))})" if n else "" for n in of)])
    return table(["cause", "items", *GROUPS], rows)


def _beside_paper(split: Split, by_way: Sequence[Sequence[Shrinking]]) -> str:
    rows = [[name, *map(pct, shares)] for name, *shares in PAPER]
    easy = sum(item.group == "easy" for item in split.items)
    for way, words in ((by_way[2], "32 samples, not certified"), (by_way[1], "384 samples, certified")):
        three = next(row for row in way if row.runs == 3)
        hard = len(split.items) - three.mean["easy"]
        shares = [three.mean[group] / hard for group in ("unlearnable", "learnable", "no_reward")]
        rows.append([f"micro, 3 runs, {words}", *map(pct, [*shares, 1 - sum(shares)])])
    hard = len(split.items) - easy
    met = Counter(item.group for item in split.items)
    shares = [met[group] / hard for group in ("unlearnable", "learnable", "no_reward")]
    rows.append(["micro as shipped", *map(pct, [*shares, 1 - sum(shares)])])
    return table(["setting", "unlearnable", "learnable", "no reward", "rest"], rows)


def _shrink_table(ways: Sequence[Dealt], by_way: Sequence[Sequence[Shrinking]]) -> str:
    head = ["runs", *(way.name for way in ways), f"replication, {FEW} samples"]
    rows = []
    for place, _ in enumerate(by_way[0]):
        cells = []
        for way in by_way:
            row, first = way[place], way[0].mean["unlearnable"]
            ends = f", {row.fewest} to {row.most}" if row.fewest < row.most else ""
            cells.append(f"{row.mean['unlearnable']:.0f} ({100 * row.mean['unlearnable'] / first:.0f} %{ends})")
        runs = by_way[0][place].runs
        theirs = REPLICATION[runs - 1] if runs <= len(REPLICATION) else None
        rows.append([str(runs), *cells, "" if theirs is None else f"{theirs} ({100 * theirs / REPLICATION[0]:.0f} %)"])
    return table(head, rows)


def _groups_table(found: Sequence[Shrinking], total: int) -> str:
    rows = [[str(row.runs), *(pct(row.mean[group] / total) for group in GROUPS)] for row in found]
    return table(["runs", *GROUPS], rows)


def _share_finding(share: float, interval: Interval | None) -> Finding:
    least = min(row[1] for row in PAPER)
    here = f"{pct(share)} of hard items are certified unlearnable"
    here += f" (95 % over families: {span(interval)})" if interval else ""
    claim = f"A substantial share of hard items stays unlearned: {', '.join(pct(row[1]) for row in PAPER)}"
    if interval is None or interval[0] <= 0:
        return Finding(1, claim, here, "cannot be said")
    here += "; how large the share is, the mix of causes decides, by design"
    return Finding(1, claim, here, "agrees" if interval[1] >= least else "differs")


def _shrink_finding(by_way: Sequence[Sequence[Shrinking]]) -> Finding:
    held = [row.mean["unlearnable"] for row in by_way[2][: len(REPLICATION)]]
    left, theirs = held[-1] / held[0], REPLICATION[len(held) - 1] / REPLICATION[0]
    claim = (
        f"Most of what one labelling run leaves is cleared by {len(held) - 1} more: in an independent replication of "
        f"the paper's labels {pct(theirs)} are left"
    )
    here = f"{pct(left)} are left after {len(held)} runs, with {FEW} samples"
    return Finding(1, claim, here, "agrees" if left < 0.5 else "differs", of_paper=False)
