"""PROTOCOL read a second time, in plain Python over the raw files, to be held against what the package computes.

It shares nothing with the package: tables are lists of dictionaries, limits come from binomial tails, and permutations
are counted one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from scipy import stats

Rows = list[dict[str, Any]]


def rows(path: Path) -> Rows:
    found: Rows = pq.read_table(path).to_pylist()
    return found


@cache
def above(correct: int, n: int, tau: float) -> bool:
    """The one-sided 95 % lower limit is above tau: so many would come up at rate tau in fewer than 5 % of draws."""
    return bool(stats.binom.sf(correct - 1, n, tau) < 0.05)


@cache
def below(correct: int, n: int, tau: float) -> bool:
    """The one-sided 95 % upper limit is below tau."""
    return bool(correct < n and stats.binom.cdf(correct, n, tau) < 0.05)


class Reading:
    """A split's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = yaml.safe_load((folder / "split.yaml").read_text())
        self.tau = float(self.config["protocol"]["tau"])
        self.items = {row["item_id"]: row for row in rows(folder / "items.parquet")}
        self.twins = rows(folder / "twins.parquet")
        self.counts = rows(folder / "counts.parquet")
        self.unlearnable = [name for name, item in self.items.items() if item["group"] == "unlearnable"]

    def labels(self) -> dict[str, str]:
        """PROTOCOL 2, rule by rule."""
        told: dict[str, dict[str, Rows]] = defaultdict(lambda: defaultdict(list))
        for row in self.counts:
            told[row["item_id"]][row["phase"]].append(row)
        return {name: self._label(told[name]) for name in self.items}

    def _label(self, phases: Mapping[str, Rows]) -> str:
        def pooled(name: str) -> tuple[int, int]:
            return sum(row["correct"] for row in phases[name]), sum(row["n"] for row in phases[name])

        base = Fraction(*pooled("base"))
        after = [Fraction(row["correct"], row["n"]) for row in phases["after"]]
        tau = Fraction(str(self.tau))
        successes = pooled("base")[0] + pooled("train")[0]
        if base > tau:
            return "easy"
        if all(rate > tau for rate in after):
            return "learnable"
        if any(rate > tau for rate in after):
            return "unstable"
        if successes < self.config["protocol"]["min_successes"]:
            return "no_reward"
        correct, n = pooled("certify")
        sure = not n or (
            below(correct, n, self.tau)
            and not any(above(row["correct"], row["n"], self.tau) for row in phases["certify"])
        )
        return "unlearnable" if sure else "boundary"

    def candidates(self) -> Iterable[tuple[str, str]]:
        """Problem and item of each candidate for a probe: twins with other numbers; without any, similar problems."""
        kinds = [(twin["twin_id"], twin["item_id"]) for twin in self.twins if twin["kind"] == "changed_numbers"]
        if kinds:
            return kinds
        return [(row["problem_id"], row["item_id"]) for row in rows(self.folder / "similar.parquet")]

    def probes(self) -> dict[str, str]:
        """The first candidate of each unlearnable item that the base and every labelling run failed."""
        rates: dict[str, dict[tuple[str, str], Fraction]] = defaultdict(dict)
        for row in rows(self.folder / "twin_counts.parquet"):
            if row["phase"] in ("base", "after"):
                rates[row["twin_id"]][row["phase"], row["run"]] = Fraction(row["correct"], row["n"])
        found: dict[str, str] = {}
        for problem, item in self.candidates():
            seen = rates[problem]
            measured = {phase for phase, _ in seen} == {"base", "after"}
            failed = measured and all(rate <= Fraction(str(self.tau)) for rate in seen.values())
            if item in self.unlearnable and failed:
                found.setdefault(item, problem)
        return found

    def weights(self) -> dict[str, float]:
        """Of the frontier: unlearnable and unstable items by the share of labelling runs that did not solve them."""
        after: dict[str, list[bool]] = defaultdict(list)
        for row in self.counts:
            if row["phase"] == "after":
                after[row["item_id"]].append(Fraction(row["correct"], row["n"]) > Fraction(str(self.tau)))
        chosen = [name for name, item in self.items.items() if item["group"] in ("unlearnable", "unstable")]
        return {name: 1 - fmean(after[name]) for name in chosen}


class Run:
    """The counts of a method, or of a control, on a split."""

    def __init__(self, split: Reading, table: Rows) -> None:
        self.split = split
        self.cells = {(row["phase"], row["item_id"], row["run"]): (row["correct"], row["n"]) for row in table}
        self.seeds = sorted({run for phase, _, run in self.cells if phase == "eval"}, key=int)

    def solved(self, name: str, seed: str, phase: str = "eval") -> bool:
        correct, n = self.cells[phase, name, seed]
        return correct / n >= 0.25 and above(correct, n, self.split.tau)

    def converted(self, name: str, seed: str) -> bool:
        probe = self.split.probes().get(name)
        return probe is not None and self.solved(name, seed) and self.solved(probe, seed, "twin")

    def memorised(self, name: str, seed: str) -> bool:
        probe = self.split.probes().get(name)
        return probe is not None and self.solved(name, seed) and not self.solved(probe, seed, "twin")

    def share(self, what: str, names: Iterable[str] | None = None) -> float:
        """Mean over seeds of the share of items."""
        rule, chosen = getattr(self, what), list(names or self.split.unlearnable)
        return fmean(fmean(rule(name, seed) for name in chosen) for seed in self.seeds)

    def frontier(self) -> float:
        weights = self.split.weights()
        held = sum(w * fmean(self.solved(name, seed) for seed in self.seeds) for name, w in weights.items())
        return held / sum(weights.values())

    def easy_lost(self) -> float:
        names = [name for name, item in self.split.items.items() if item["group"] == "easy"]
        return fmean(below(*self.cells["eval", name, seed], self.split.tau) for name in names for seed in self.seeds)


def p_runs(method: Sequence[float], null: Sequence[float]) -> float:
    """Share of the ways to call so many runs the method's whose gain is at least the observed one."""
    whole, size = [*method, *null], len(method)
    seen = fmean(method) - fmean(null)
    ways = list(combinations(range(len(whole)), size))
    gains = [fmean(whole[i] for i in way) - fmean(whole[i] for i in range(len(whole)) if i not in way) for way in ways]
    return fmean(gain >= seen - 1e-9 for gain in gains)


def p_families(difference: Mapping[str, Fraction], families: Mapping[str, str]) -> float:
    """Chance that as many families, drawn with replacement, have no gain together: exact, by powers of a polynomial."""
    sums: dict[str, Fraction] = defaultdict(Fraction)
    for name, value in difference.items():
        sums[families[name]] += value
    if len(sums) < 2:
        return 1.0
    unit = int(np.lcm.reduce([value.denominator for value in sums.values()]))
    steps = [int(value * unit) for value in sums.values()]
    low = min(steps)
    one = np.zeros(max(steps) - low + 1)
    for step in steps:
        one[step - low] += 1 / len(steps)
    size = 1 << (len(steps) * (len(one) - 1)).bit_length()
    whole = np.fft.irfft(np.fft.rfft(one, size) ** len(steps), size)
    return min(1.0, max(0.0, float(whole[: 1 - low * len(steps)].sum()))) if low <= 0 else 0.0
