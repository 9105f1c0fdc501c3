"""Does a ranking of methods travel from one workload to another? A page and its picture.

    python -m experiments.sweep grpo pass_at_k dapo ... --split mini --runs build/experiments-mini
    python -m experiments.workloads micro=build/experiments mini=build/experiments-mini

Methods that were run on a workload (a split) are read from its folder; pairs of workloads are compared over the methods
that both have. Nothing is typed in: what was not run is named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from experiments.calibration.reliability import agreement as spearman
from experiments.figures import gains_figure
from experiments.markdown import blocks, paragraph, table, with_interval
from experiments.runs import read
from experiments.sweep import ROOT, Planned
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.io import files
from unlearnbench.records import Item, Result
from unlearnbench.scoring.comparisons.comparability import Finished
from unlearnbench.scoring.conversion_rule import solved
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.frontier import frontier_items
from unlearnbench.scoring.outcomes import outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Reals
from unlearnbench.splits import Split, load_split

PAGE = ROOT / "docs" / "results" / "workloads.md"
METHODS = ("grpo", "pass_at_k", "dapo", "maxrl", "dars", "sft_unlearnable", "only_unlearnable", "drift")
DRAWS = 2000
FEWEST = 4
"""Methods that two workloads must share for a correlation of ranks."""


@dataclass(frozen=True)
class Scored:
    """One score of several methods on a workload: of each (items, runs), and the family of each item."""

    methods: Mapping[str, Reals]
    families: Sequence[str]

    def means(self, rng: np.random.Generator | None = None) -> dict[str, float]:
        """Each method's score; with `rng` of families and of each method's runs drawn with replacement."""
        names, place = np.unique(self.families, return_inverse=True)
        share = np.ones(len(names))
        if rng is not None:
            share = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)).astype(float)
        found = {}
        for method, values in self.methods.items():
            count = values.shape[1]
            runs = range(count) if rng is None else rng.integers(count, size=count).tolist()
            found[method] = float(np.average(values[:, runs].mean(axis=1), weights=share[place]))
        return found


@dataclass(frozen=True)
class Agreement:
    """Spearman's correlation of the methods' scores on two workloads, with a 95 % interval; NaN where one is flat."""

    methods: int
    value: float
    low: float
    high: float


def agreement(one: Scored, other: Scored, draws: int = DRAWS) -> Agreement | None:
    """None where fewer than FEWEST methods are in both. The interval is of families and runs drawn again."""
    shared = sorted(one.methods.keys() & other.methods.keys())
    if len(shared) < FEWEST:
        return None
    rng = np.random.Generator(np.random.Philox(key=0))
    drawn = [spearman(one.means(rng), other.means(rng)) for _ in range(draws)]
    known = [value for value in drawn if np.isfinite(value)]
    low, high = np.quantile(known, [0.025, 0.975]) if known else (float("nan"), float("nan"))
    return Agreement(len(shared), spearman(one.means(), other.means()), float(low), float(high))


@dataclass(frozen=True)
class Workload:
    """A split and the methods that were run on it."""

    split: Split
    runs: Mapping[str, Finished]

    @property
    def results(self) -> dict[str, Result]:
        return {name: run.result for name, run in self.runs.items()}

    def conversion(self) -> Scored:
        """Whether each unlearnable item is converted, by run."""
        items = [item for item in self.split.items if item.group == "unlearnable"]
        probes, tau = probes_of(self.split), self.split.config.protocol.tau

        def of(run: Finished) -> Reals:
            return outcomes_of(run.counts, items, probes, _seeds(run), tau, "counts").converted.astype(float)

        return self._scored(items, of)

    def frontier(self) -> Scored:
        """Whether each item of the frontier is solved, weighted, by run."""
        items, weights = frontier_items(self.split)

        def of(run: Finished) -> Reals:
            cells = Cells.of(read_phase(run.counts, "eval", [item.item_id for item in items], runs=_seeds(run)))
            found: Reals = solved(cells, self.split.config.protocol.tau) * weights[:, None]
            return found

        return self._scored(items, of)

    def _scored(self, items: Sequence[Item], of: Callable[[Finished], Reals]) -> Scored:
        return Scored({name: of(run) for name, run in self.runs.items()}, [item.family for item in items])


def _seeds(run: Finished) -> list[str]:
    return [str(seed) for seed in run.result.seeds]


def collect(folders: Mapping[str, Path]) -> list[Workload]:
    """The methods that were run on each split. Raises RunError for a run of another method or split."""
    found = []
    for name, folder in folders.items():
        split = load_split(name)
        runs = {method: run for method in METHODS if (run := read(folder, Planned(method, method), split))}
        found.append(Workload(split, runs))
    return found


def sentence(workloads: Sequence[Workload]) -> str:
    """What all of it says, for the page, the README and the limits."""
    told = []
    for one, other in combinations(workloads, 2):
        found = agreement(one.frontier(), other.frontier())
        if found is not None:
            told.append(
                f"{one.split.name} and {other.split.name} rank {found.methods} methods alike by {_cell(found)} "
                "(Spearman's correlation of frontier scores)"
            )
    return "; ".join(told) + "." if told else "No two workloads have four methods in common yet."


def page(workloads: Sequence[Workload], pictures: Path) -> str:
    """The whole page; its picture is written beside it."""
    panels = {
        f"{one.split.name}: frontier gain": {
            name: (None, None) if of is None or of.frontier is None else (of.frontier.gain, of.frontier.interval)
            for name in METHODS
            for of in [one.results.get(name)]
        }
        for one in workloads
    }
    gains_figure(pictures / "workloads.png", panels)
    return (
        blocks(
            "# Does the ranking travel?",
            paragraph(
                "Written by `python -m experiments.workloads` from runs on each workload: the same methods at 1x,",
                "default settings, scored against the null control of each. A benchmark on one workload ranks methods",
                "for that workload; this page says how far the ranks agree.",
            ),
            paragraph(sentence(workloads)),
            "![Frontier gain of the methods on each workload](workloads.png)",
            "## Gains",
            _gains(workloads),
            paragraph(
                "In points over the null control, with 95 % intervals beyond these families. A dash: not run, or",
                "without a gain.",
            ),
            "## Ranks",
            _ranks(workloads),
            paragraph(
                "Spearman's correlation of the methods' scores over those that both workloads have; 95 % intervals:",
                f"families of items and runs of each method drawn again, {DRAWS:,} times. A correlation whose interval",
                "reaches from near -1 to near 1 says nothing.",
            ),
        )
        + "\n"
    )


def _gains(workloads: Sequence[Workload]) -> str:
    rows = []
    for name in METHODS:
        results = [one.results.get(name) for one in workloads]
        conversion = [
            "-" if of is None else with_interval(of.conversion.gain, of.conversion.interval_families) for of in results
        ]
        frontier = [
            "-" if of is None or of.frontier is None else with_interval(of.frontier.gain, of.frontier.interval_families)
            for of in results
        ]
        rows += [[f"`{name}`", "conversion", *conversion], ["", "frontier", *frontier]]
    return table(("method", "score", *(one.split.name for one in workloads)), rows, left=2)


def _ranks(workloads: Sequence[Workload]) -> str:
    rows = []
    for one, other in combinations(workloads, 2):
        pairs = agreement(one.conversion(), other.conversion()), agreement(one.frontier(), other.frontier())
        count = next((str(found.methods) for found in pairs if found is not None), "fewer than four")
        rows.append([f"{one.split.name}, {other.split.name}", count, *map(_cell, pairs)])
    return table(("workloads", "methods", "conversion", "frontier"), rows)


def _cell(found: Agreement | None) -> str:
    if found is None or not np.isfinite(found.value):
        return "-"
    return f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="SPLIT=DIR", help="a split, and where its runs are")
    given = parser.parse_args()
    if wrong := [one for one in given.runs if "=" not in one]:
        parser.error(f"{wrong[0]!r} is no SPLIT=DIR")
    try:
        workloads = collect({name: Path(folder) for name, _, folder in (one.rpartition("=") for one in given.runs)})
        files.write_text(PAGE, page(workloads, PAGE.parent))
    except UnlearnBenchError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
