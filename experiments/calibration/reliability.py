"""How well a score tells methods apart: reliability of three seeds, and agreement of ranks between editions.

    python -m experiments.calibration.reliability

From the board's editions (counts of entries that are in the repository), and from the tuned nulls of `micro`. Several
scores are held against the frontier score by the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pyarrow as pa
from scipy import stats

from experiments.calibration.board_runs import Board, boards
from unlearnbench.records import Item
from unlearnbench.scoring.conversion_rule import solved
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.frontier import frontier_items
from unlearnbench.scoring.outcomes import outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Reals, pass_at_k
from unlearnbench.splits import Split, load_split

SEEDS = 3
DRAWS = 2000
"""Bootstrap draws of methods."""
NOTHING = "no_training"
FRONTIER = "frontier"
REFERENCE = "grpo"
LEARNS = 0.5
"""Methods below this share of GRPO's own frontier score hardly learn: they lie far from all others, which makes any
score look reliable."""


@dataclass(frozen=True)
class Measured:
    """Counts of one method on a split, as every score reads them."""

    split: Split
    counts: pa.Table
    runs: Sequence[str]

    def cells(self, items: Sequence[Item]) -> Cells:
        """Counts of these items after training."""
        return Cells.of(read_phase(self.counts, "eval", [item.item_id for item in items], runs=self.runs))

    def of(self, *groups: str) -> Cells:
        """Counts of the items of these groups after training."""
        return self.cells([item for item in self.split.items if item.group in groups])

    def solved(self, *groups: str) -> Reals:
        """Share of these groups' items that are solved, by run."""
        share: Reals = solved(self.of(*groups), self.split.config.protocol.tau).mean(axis=0)
        return share

    def frontier(self, *, rates: bool = False) -> Reals:
        """The frontier score by run; with `rates`, of success rates in place of `solved`."""
        items, weights = frontier_items(self.split)
        cells = self.cells(items)
        values = cells.correct / cells.n if rates else solved(cells, self.split.config.protocol.tau)
        score: Reals = (values * weights[:, None]).mean(axis=0)
        return score

    def passed(self, k: int) -> Reals:
        """Mean pass@k of the unlearnable items, by run; pass@1 is the success rate."""
        cells = self.of("unlearnable")
        share: Reals = pass_at_k(cells.correct, cells.n, k).mean(axis=0)
        return share

    def conversion(self) -> Reals:
        """Share of unlearnable items that are converted, by run."""
        items = [item for item in self.split.items if item.group == "unlearnable"]
        tau = self.split.config.protocol.tau
        found = outcomes_of(self.counts, items, probes_of(self.split), self.runs, tau, "counts")
        share: Reals = found.converted.mean(axis=0)
        return share


HARD = ("learnable", "unlearnable", "no_reward", "unstable", "boundary")
SCORES: Mapping[str, Callable[[Measured], Reals]] = {
    FRONTIER: lambda run: run.frontier(),
    "frontier with success rates in place of `solved`": lambda run: run.frontier(rates=True),
    "solved, unlearnable and unstable, not weighted": lambda run: run.solved("unlearnable", "unstable"),
    "solved, all but easy": lambda run: run.solved(*HARD),
    "solved, unlearnable": lambda run: run.solved("unlearnable"),
    "conversion": lambda run: run.conversion(),
    "success rate, unlearnable": lambda run: run.passed(1),
    "pass@8, unlearnable": lambda run: run.passed(8),
}
"""Scores by run: each gives one number per run."""


@dataclass(frozen=True)
class Reliability:
    """Share of the variance between methods' means of SEEDS runs that is not noise, with a 95 % interval."""

    value: float
    low: float
    high: float


def reliability(groups: Sequence[Reals], seeds: int = SEEDS) -> Reliability:
    """By one-way analysis of variance over methods (Shrout & Fleiss 1979, ICC(1, k)), runs being nested in methods.

    With unequal numbers of runs the variance between methods is (MSB - MSW) / n0; the interval is from the F
    distribution, exact for equal numbers. Below 0 is 0; 0 where nothing varies.
    """
    sizes = np.array([len(group) for group in groups])
    mean = np.concatenate(groups).mean()
    between = sum(size * (group.mean() - mean) ** 2 for size, group in zip(sizes, groups, strict=True))
    within = sum(((group - group.mean()) ** 2).sum() for group in groups)
    free = len(groups) - 1, int(sizes.sum()) - len(groups)
    if not between and not within:
        return Reliability(0.0, 0.0, 0.0)
    ratio = np.inf if not within else float(between / free[0] / (within / free[1]))
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / free[0]
    ends = [float(stats.f.ppf(level, *free)) for level in (0.975, 0.025)]

    def share(f: float) -> float:
        """F as it would be with groups of `seeds` runs, then 1 - 1 / F."""
        signal = max(0.0, (f - 1) / size)  # variance between methods, in units of that within
        return signal / (signal + 1 / seeds) if np.isfinite(f) else 1.0

    return Reliability(share(ratio), share(ratio / ends[0]), share(ratio / ends[1]))


@dataclass(frozen=True)
class Scored:
    """One score on all editions."""

    reliabilities: tuple[Reliability, ...]
    """By edition, over the methods that train."""
    ranks: tuple[float, ...]
    """Spearman's correlation of the methods' means, by pair of editions; NaN where one of them is constant."""
    nothing: tuple[tuple[int, int], ...]
    """By edition: the place of the method that does nothing (1 is best, ties count against it), of how many."""
    means: tuple[Mapping[str, float], ...]


def score_editions(found: Sequence[Board], score: Callable[[Measured], Reals]) -> Scored:
    """Reliability, agreement and the place of no_training, of one score."""
    values = [
        {entry.method: score(Measured(board.split, entry.counts, entry.runs)) for entry in board.entries}
        for board in found
    ]
    means = tuple({name: float(group.mean()) for name, group in of.items()} for of in values)
    places = []
    for of in means:
        if NOTHING in of:
            places.append((1 + sum(value > of[NOTHING] + 1e-12 for value in of.values()), len(of)))
    return Scored(
        tuple(reliability([group for name, group in of.items() if name != NOTHING]) for of in values),
        tuple(agreement(one, other) for one, other in combinations(means, 2)),
        tuple(places),
        means,
    )


def agreement(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Spearman's correlation over the methods that both have."""
    names = sorted(one.keys() & other.keys())
    first, second = ([of[name] for name in names] for of in (one, other))
    if len(names) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.spearmanr(first, second).statistic)


def difference(mine: Scored, other: Scored, draws: int = DRAWS) -> tuple[float, float]:
    """95 % interval of the mean rank correlation of `other` less that of `mine`, methods resampled."""
    rng = np.random.Generator(np.random.Philox(key=0))
    found = []
    names = sorted(set.intersection(*(set(of) for of in mine.means)))
    for _ in range(draws):
        drawn = [names[place] for place in rng.integers(len(names), size=len(names))]
        pair = [
            np.nanmean([_correlation(a, b, drawn) for a, b in combinations(of.means, 2)])
            for of in (mine, other)
            if len(set(drawn)) > 2
        ]
        if len(pair) == 2 and np.isfinite(pair).all():
            found.append(pair[1] - pair[0])
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _correlation(one: Mapping[str, float], other: Mapping[str, float], names: Sequence[str]) -> float:
    first, second = (stats.rankdata([of[name] for name in names]) for of in (one, other))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0  # a score that does not tell these methods apart agrees by nothing
    return float(np.corrcoef(first, second)[0, 1])


def learning_rates(score: Callable[[Measured], Reals]) -> Reliability:
    """Reliability over the learning rates of the tuned nulls of `micro`."""
    split = load_split("micro")
    groups = [
        score(Measured(split, control.counts, [str(seed) for seed in control.seeds]))
        for _, control in sorted(split.tuned_nulls().items())
    ]
    return reliability(groups)


def learners(board: Board) -> Board:
    """The edition with those methods alone whose frontier score is at least LEARNS times that of GRPO itself."""
    scores = {
        entry.method: float(Measured(board.split, entry.counts, entry.runs).frontier().mean())
        for entry in board.entries
    }
    kept = tuple(entry for entry in board.entries if scores[entry.method] >= LEARNS * scores[REFERENCE])
    return replace(board, entries=kept)


def table(found: Sequence[Board], title: str) -> str:
    """The scores' figures on these editions as a table in markdown."""
    scored = {name: score_editions(found, score) for name, score in SCORES.items()}
    pairs = list(combinations([board.name for board in found], 2))
    head = [
        "score",
        *(f"reliability, {board.name} ({len(board.entries)})" for board in found),
        *(f"ranks, {one} and {other}" for one, other in pairs),
        "mean of ranks, less the frontier's (95 %)",
        "place of no_training",
    ]
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, of in scored.items():
        ranks = ["-" if np.isnan(value) else f"{value:.2f}" for value in of.ranks]
        places = ", ".join(f"{place} of {total}" for place, total in of.nothing) or "-"
        against = "-"
        if name != FRONTIER:
            low, high = difference(scored[FRONTIER], of)
            gap = float(np.nanmean(of.ranks) - np.nanmean(scored[FRONTIER].ranks))
            against = f"{gap:+.2f} ({low:+.2f} to {high:+.2f})"
        lines.append(f"| {' | '.join([name, *map(_cell, of.reliabilities), *ranks, against, places])} |")
    return "\n".join([*lines, ""])


def rates_table() -> str:
    """Reliability over the learning rates of GRPO on `micro`, as a table in markdown."""
    lines = [
        "### Reliability of three seeds over the learning rates of the tuned nulls of `micro`",
        "",
        "| score | reliability |",
        "|---|---|",
        *(f"| {name} | {_cell(learning_rates(score))} |" for name, score in SCORES.items()),
    ]
    return "\n".join([*lines, ""])


def _cell(of: Reliability) -> str:
    return f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f})"


def main() -> None:
    """Print the tables."""
    found = boards()
    print(table(found, "How well scores tell methods apart: all methods of track verifier at 1x"))
    print(table([learners(board) for board in found], "The same without methods that hardly learn"))
    print(rates_table(), end="")


if __name__ == "__main__":
    main()
