"""Each group before and after training: rates, items solved, pass@k; and how many easy items were lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlearnbench.records import GROUPS, GroupName, GroupScore, Item, Retention
from unlearnbench.scoring.conversion_rule import lost, rate_arm, share_arm, solved
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.inference.intervals import mean_interval, rate_interval
from unlearnbench.scoring.outcomes import Outcomes
from unlearnbench.scoring.rates import Flags, Reals, pass_at_k


@dataclass(frozen=True)
class Measured:
    """The items that were evaluated, with counts after training, at the base (fresh samples), and at the run's start.

    `defined` is False if there are too few rollouts for anything to count as solved.
    """

    items: Sequence[Item]
    after: Cells
    before: Cells
    start: Cells | None
    tau: float
    samples: int
    defined: bool

    def rows(self, group: str) -> list[int]:
        """Indices of a group's items."""
        return [place for place, item in enumerate(self.items) if item.group == group]


def group_scores(measured: Measured, unlearnable: Outcomes | None) -> dict[GroupName, GroupScore]:
    """One score per group; `unlearnable` has the outcomes from which the conversions of that group follow."""
    return {group: _group(measured, group, unlearnable if group == "unlearnable" else None) for group in GROUPS}


def _group(measured: Measured, group: str, outcomes: Outcomes | None) -> GroupScore:
    rows, tau, samples = measured.rows(group), measured.tau, measured.samples
    items, after, before = [measured.items[row] for row in rows], measured.after[rows], measured.before[rows]
    start = None if measured.start is None else measured.start[rows]
    families = [item.family for item in items]
    hit = solved(after, tau) if measured.defined else None
    powers_of_two = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    with_probe = 0 if outcomes is None else int(outcomes.has_probe.sum())
    score = GroupScore(
        items=len(items),
        rate_before=mean(before.rates),
        rate_start=None if start is None else mean(start.rates),
        rate_after=mean(after.rates),
        rate_after_interval=rate_interval(rate_arm(after), families, int(after.n.sum())) if items else None,
        converted_at_start=at_start(start, tau) if measured.defined else None,
        solved=None if hit is None else number(hit),
        converted=None,
        with_probe=with_probe,
        conversion=None,
        conversion_interval=None,
        pass_at_k={str(k): mean(pass_at_k(after.correct, after.n, k).mean(axis=1)) for k in powers_of_two},
    )
    if outcomes is None or not with_probe:
        return score
    return score.model_copy(
        update={
            "converted": number(outcomes.converted),
            "memorised": number(outcomes.memorised),
            "conversion": float(outcomes.converted.mean()),
            "conversion_interval": rate_interval(share_arm(outcomes.converted), families, len(items)),
        }
    )


def retention(measured: Measured, null: Cells | None) -> Retention:
    """What became of the easy items: how many were lost, and the change of their rate; beside the null control's."""
    rows = measured.rows("easy")
    items, cells, before = [measured.items[row] for row in rows], measured.after[rows], measured.before[rows]
    change = cells.rates - before.rates
    known = bool(rows) and not np.isnan(change).any()
    interval = None
    if known:
        interval = mean_interval(
            change,
            [item.item_id for item in items],
            [item.family for item in items],
            [rate_arm(cells)],
            beyond=True,
            rollouts=float(cells.n.sum()) / len(rows),
        )
    return Retention(
        easy_items=len(rows),
        easy_lost=number(lost(cells, measured.tau)) if measured.defined else None,
        easy_rate_change=float(change.mean()) if known else None,
        interval=interval,
        null_easy_lost=None if null is None else number(lost(null, measured.tau)),
        null_easy_rate_change=None if null is None or not known else float((null.rates - before.rates).mean()),
    )


def at_start(start: Cells | None, tau: float) -> float | None:
    """Number of items that the policy at the start of training solves; None if measured with too few rollouts."""
    return number(solved(start, tau)) if start is not None and (start.enough or not len(start.n)) else None


def number(hits: Flags) -> float:
    """Number of items for which `hits` (items, runs) is true, the mean over runs."""
    return float(hits.sum() / max(1, hits.shape[1]))


def mean(values: Reals | Flags) -> float | None:
    """Mean over problems; None if there is none, or one has no sample."""
    return None if not len(values) or bool(np.isnan(values).any()) else float(np.mean(values))
