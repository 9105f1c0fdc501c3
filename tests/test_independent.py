"""What the package computes of the shipped split against a second reading of PROTOCOL: labels, probes, scores, p."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from independent import Reading, Run, p_families, p_runs, rows

from unlearnbench.io.tables import read_counts
from unlearnbench.records import Cost, MethodRecord, Result, SpentBudget
from unlearnbench.scoring.comparisons.comparison import claimed, paired_intervals
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.frontier import frontier_items
from unlearnbench.scoring.inference.permutation import DRAWS, p_two_sided
from unlearnbench.scoring.labels import label_items
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.score import RunFacts, score
from unlearnbench.splits import Split


@pytest.fixture(scope="module")
def read(micro: Split) -> Reading:
    return Reading(micro.path)


def controls(split: Split) -> list[Path]:
    """Controls that are scored as if they were methods."""
    return [split.path / "positive_control", *sorted((split.path / "tuned_null").glob("*"))]


def scored(split: Split, folder: Path) -> Result:
    counts = read_counts(folder / "counts.parquet")
    facts = RunFacts(
        method=MethodRecord(name=folder.name, source_hash="s", track="base"),
        seeds=sorted({int(run) for run in counts["run"].to_pylist()}),
        samples=32,
        sampling=split.config.protocol.sampling,
        budget=SpentBudget(),
        cost=Cost(),
        code_version="0",
    )
    return score(split, counts, facts, split.control("null_control", "1x"))


def test_labels(micro: Split, read: Reading) -> None:
    found = label_items(micro.counts(), micro.config.protocol, item_ids=list(read.items))
    expected = read.labels()
    assert dict(zip(found.item_ids, found.group, strict=True)) == expected
    assert {item.item_id: item.group for item in micro.items} == expected


def test_probes(micro: Split, read: Reading) -> None:
    assert probes_of(micro) == read.probes()


def test_frontier_weights(micro: Split, read: Reading) -> None:
    items, weights = frontier_items(micro)
    expected = read.weights()
    scale = sum(expected.values()) / len(expected)
    assert {item.item_id: w for item, w in zip(items, weights, strict=True)} == pytest.approx(
        {name: weight / scale for name, weight in expected.items()}
    )


def test_every_figure_of_every_control(micro: Split, read: Reading) -> None:
    probes = read.probes()
    read.probes = lambda: probes  # type: ignore[method-assign]  # asked for once an item
    null = Run(read, rows(micro.path / "null_control/1x/counts.parquet"))
    families = {name: item["family"] for name, item in read.items.items()}
    tuned: list[tuple[float, float, Path]] = []
    for folder in controls(micro):
        result, run = scored(micro, folder), Run(read, rows(folder / "counts.parquet"))
        gain, core = result.conversion, result.groups["unlearnable"]
        assert gain.method_rate == pytest.approx(run.share("converted")), folder
        assert gain.null_rate == pytest.approx(null.share("converted"))
        assert gain.gain == pytest.approx(run.share("converted") - null.share("converted"))
        assert gain.solved_gain == pytest.approx(run.share("solved") - null.share("solved"))
        assert gain.memorised_rate == pytest.approx(run.share("memorised"))
        assert core.solved == pytest.approx(run.share("solved") * len(read.unlearnable))
        assert core.with_probe == len(probes)
        assert result.retention.easy_lost == pytest.approx(run.easy_lost() * result.retention.easy_items)
        assert result.frontier is not None and result.frontier.method == pytest.approx(run.frontier())
        assert result.frontier.gain == pytest.approx(run.frontier() - null.frontier())

        by_run = [
            [
                sum(part.converted(name, seed) for name in read.unlearnable) / len(read.unlearnable)
                for seed in part.seeds
            ]
            for part in (run, null)
        ]
        difference = {
            name: Fraction(sum(run.converted(name, seed) for seed in run.seeds), len(run.seeds))
            - Fraction(sum(null.converted(name, seed) for seed in null.seeds), len(null.seeds))
            for name in read.unlearnable
        }
        alone = p_families(difference, families)
        assert gain.p == pytest.approx(max(p_runs(*by_run), alone), abs=4 * (alone * (1 - alone) / DRAWS) ** 0.5 + 1e-4)
        if folder.parent.name == "tuned_null":
            tuned.append((run.share("converted"), run.share("solved"), folder))
    if tuned:
        lost = max(0.05, Run(read, rows(controls(micro)[0] / "counts.parquet")).easy_lost())
        allowed = [part for part in tuned if Run(read, rows(part[2] / "counts.parquet")).easy_lost() <= lost]
        best = max(allowed, key=lambda part: part[:2])
        told = scored(micro, controls(micro)[0]).conversion.tuned_null
        assert told is not None and (told.rate, told.learning_rate) == (
            pytest.approx(best[0]),
            float(best[2].name),
        )


def test_what_a_comparison_claims(micro: Split, read: Reading) -> None:
    """Of two controls: by the interval that the package computes, and by p as it is read here, two-sided."""
    probes = read.probes()
    read.probes = lambda: probes  # type: ignore[method-assign]
    families = {name: item["family"] for name, item in read.items.items()}
    folders = controls(micro)
    decided = set()
    for one, other in ((folders[0], folders[1]), (folders[-1], folders[0]), (folders[1], folders[-1])):
        runs = [Run(read, rows(folder / "counts.parquet")) for folder in (one, other)]
        hits = [
            np.array([[run.converted(name, seed) for seed in run.seeds] for name in read.unlearnable], float)
            for run in runs
        ]
        means = [[Fraction(int(row.sum()), len(row)) for row in of] for of in hits]
        ahead = dict(zip(read.unlearnable, (a - b for a, b in zip(*means, strict=True)), strict=True))
        behind = {name: -value for name, value in ahead.items()}
        by_run = [of.mean(axis=0).tolist() for of in hits]
        sides = [
            max(p_runs(by_run[0], by_run[1]), p_families(ahead, families)),
            max(p_runs(by_run[1], by_run[0]), p_families(behind, families)),
        ]
        p = min(1.0, 2 * min(sides))
        found = p_two_sided(hits[0], hits[1], [families[name] for name in read.unlearnable])
        assert found == pytest.approx(p, abs=8 * (p * (1 - p / 2) / DRAWS) ** 0.5 + 2e-4)
        beyond = paired_intervals(
            share_arm(hits[0] > 0), share_arm(hits[1] > 0), [families[n] for n in read.unlearnable]
        )
        low, high = beyond[1] or (-1.0, 1.0)
        expected = "none" if low <= 0 <= high or p > 0.05 else "first" if low > 0 else "second"
        assert claimed(beyond[1], found) == expected
        decided.add(expected)
    assert decided == {"first", "second", "none"}


def test_rounding_does_not_decide_a_label(read: Reading) -> None:
    """Rates that equal tau are compared as fractions here and as numbers there."""
    at = [
        row
        for row in read.counts
        if row["phase"] in ("base", "after") and Fraction(row["correct"], row["n"]) == Fraction(1, 10)
    ]
    assert all(row["correct"] / row["n"] <= 0.1 for row in at)
