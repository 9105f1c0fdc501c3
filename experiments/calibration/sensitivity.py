"""How labels and gains move with tau and with the 0.25 of `solved` (PROTOCOL 4).

    python -m experiments.calibration.sensitivity

From counts alone: the labels of `micro` with its null, tuned and positive controls, and the board's entries.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from scipy import stats

from experiments.calibration.board_runs import Board, boards
from unlearnbench.records import GROUPS
from unlearnbench.scoring.conversion_rule import LEAST_RATE, share_arm, solved
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.frontier import frontier_items
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.inference.permutation import MOST_P, p_gain
from unlearnbench.scoring.labels import label_items
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Flags, least_above
from unlearnbench.splits import Control, Split, load_split

TAUS = (0.05, 0.1, 0.2)
LEAST = (0.15, 0.25, 0.5)
"""Success rates from which an item counts as solved."""
USUAL = (0.1, LEAST_RATE)
SAMPLES = 32
"""Rollouts of an item in the runs at hand."""


def relabelled(split: Split, tau: float) -> dict[str, str]:
    """The group of each item by the same counts with another tau."""
    protocol = split.config.protocol.model_copy(update={"tau": tau})
    labels = label_items(split.counts(), protocol, item_ids=[item.item_id for item in split.items])
    return dict(zip(labels.item_ids, labels.group, strict=True))


def control_solved(control: Control, ids: Sequence[str], tau: float, least: float) -> Flags:
    """Items x runs: solved under a control."""
    runs = [str(seed) for seed in control.seeds]
    return solved(Cells.of(read_phase(control.counts, "eval", ids, runs=runs)), tau, least)


@dataclass(frozen=True)
class Labels:
    """Labels with one tau, and what the controls solve of the items that are then unlearnable, as shares."""

    tau: float
    sizes: Counter[str]
    kept: int
    """Unlearnable items of the shipped labels that are unlearnable still."""
    null: float
    positive: float
    tuned: float
    """The tuned null that solves most."""


def labels_by_tau(split: Split) -> list[Labels]:
    """Labels and solved shares with each tau, for the rule's 0.25."""
    shipped = set(split.ids("unlearnable"))
    null, positive = split.control("null_control", "1x"), split.control("positive_control")
    if null is None or positive is None:
        raise ValueError(f"split {split.name} ships no null or no positive control")
    found = []
    for tau in TAUS:
        groups = relabelled(split, tau)
        ids = [name for name, group in groups.items() if group == "unlearnable"]
        alone, ceiling, *tuned = (
            float(control_solved(control, ids, tau, LEAST_RATE).mean())
            for control in (null, positive, *split.tuned_nulls().values())
        )
        found.append(Labels(tau, Counter(groups.values()), len(shipped & set(ids)), alone, ceiling, max(tuned)))
    return found


class Hits:
    """What counts by one pair of tau and least rate, on one split with its labels and probes as shipped."""

    def __init__(self, split: Split, tau: float, least: float) -> None:
        self.split, self.tau, self.least = split, tau, least
        self.probes = probes_of(split)
        self.ids = split.ids("unlearnable")
        self.families = [split.families()[name] for name in self.ids]
        self.weighed, self.weights = frontier_items(split)

    def converted(self, counts: pa.Table, runs: Sequence[str]) -> Flags:
        """Items x runs."""
        probes = [self.probes.get(name, "") for name in self.ids]  # no row has this id: such an item never converts
        both: Flags = self._solved(counts, "eval", self.ids, runs) & self._solved(counts, "twin", probes, runs)
        return both

    def frontier(self, counts: pa.Table, runs: Sequence[str]) -> float:
        hit = self._solved(counts, "eval", [item.item_id for item in self.weighed], runs)
        return float((hit.mean(axis=1) * self.weights).mean())

    def _solved(self, counts: pa.Table, phase: str, ids: Sequence[str], runs: Sequence[str]) -> Flags:
        cells = Cells.of(read_phase(counts, phase, ids, runs=runs))
        hit: Flags = solved(cells, self.tau, self.least) & (cells.n > 0)
        return hit


@dataclass(frozen=True)
class OnBoard:
    """The entries of one edition by one rule."""

    frontier: Mapping[str, float]
    claims: Mapping[str, bool]
    """Whether an entry converts more than the null control, by interval and p."""


def on_board(board: Board, tau: float, least: float) -> OnBoard:
    """Frontier scores and claims of an edition's entries."""
    hits = Hits(board.split, tau, least)
    null = hits.converted(board.null.counts, [str(seed) for seed in board.null.seeds])
    claims, scores = {}, {}
    for entry in board.entries:
        mine = hits.converted(entry.counts, entry.runs)
        beyond = gain_intervals(share_arm(mine), share_arm(null), hits.families)[1]
        more = beyond is not None and beyond[0] > 0
        claims[entry.method] = more and p_gain(mine.astype(float), null.astype(float), hits.families) <= MOST_P
        scores[entry.method] = hits.frontier(entry.counts, entry.runs)
    return OnBoard(scores, claims)


def label_table(split: Split) -> str:
    """Labels and solved shares by tau, as a table in markdown."""
    lines = [
        f"### Labels of `{split.name}` with another tau",
        "",
        f"| tau | {' | '.join(GROUPS)} | still unlearnable | solved: null | tuned null that solves most "
        "| positive control |",
        "|---" * (len(GROUPS) + 5) + "|",
    ]
    shipped = len(split.ids("unlearnable"))
    for row in labels_by_tau(split):
        sizes = " | ".join(f"{row.sizes[name]:,}" for name in GROUPS)
        shares = " | ".join(f"{100 * share:.1f} %" for share in (row.null, row.tuned, row.positive))
        lines.append(f"| {row.tau:g} | {sizes} | {row.kept} of {shipped} | {shares} |")
    return "\n".join([*lines, ""])


def rule_table(split: Split, found: Sequence[Board]) -> str:
    """Gains, ranks and claims by tau and least rate of `solved`, labels as shipped, as a table in markdown."""
    usual = [on_board(board, *USUAL) for board in found]
    claimed = " | ".join(f"claims, {board.name}" for board in found)
    ranks = " | ".join(f"ranks, {board.name}" for board in found)
    lines = [
        "### Gains with another tau or another least rate in `solved`",
        "",
        "| tau | least rate | correct of 32 | null converts | best tuned null, gain | positive control, gain "
        f"| {claimed} | {ranks} |",
        "|---" * (6 + 2 * len(found)) + "|",
    ]
    for tau in TAUS:
        for least in LEAST:
            hits = Hits(split, tau, least)
            controls = [split.control("null_control", "1x"), *split.tuned_nulls().values()]
            controls.append(split.control("positive_control"))
            null, *tuned, positive = [
                float(hits.converted(control.counts, [str(seed) for seed in control.seeds]).mean())
                for control in controls
                if control is not None
            ]
            boards_now = [on_board(board, tau, least) for board in found]
            decided = " | ".join(_claims(now, then) for now, then in zip(boards_now, usual, strict=True))
            order = " | ".join(
                f"{stats.spearmanr(list(now.frontier.values()), list(then.frontier.values())).statistic:.2f}"
                for now, then in zip(boards_now, usual, strict=True)
            )
            fewest = max(least_above(SAMPLES, tau), math.ceil(least * SAMPLES))
            rule = "**" if (tau, least) == USUAL else ""
            lines.append(
                f"| {rule}{tau:g}{rule} | {rule}{least:g}{rule} | {fewest} | {100 * null:.2f} % "
                f"| {100 * (max(tuned) - null):+.1f} | {100 * (positive - null):+.1f} | {decided} | {order} |"
            )
    return "\n".join([*lines, ""])


def _claims(now: OnBoard, then: OnBoard) -> str:
    changed = sum(now.claims[name] != then.claims[name] for name in now.claims)
    return f"{sum(now.claims.values())} of {len(now.claims)}" + (f", {changed} differ" if changed else "")


def main() -> None:
    """Print both tables."""
    micro = load_split("micro")
    print(label_table(micro))
    print(rule_table(micro, boards(track=None)), end="")


if __name__ == "__main__":
    main()
