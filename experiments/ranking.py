"""Is a gain more than chance, and is it still so after all the methods that were tried?

p-values come from the intervals themselves (`standings.p_value`): p is 1 less the highest level at which the interval
over families still lies above 0, so that p < 0.05 says what the 95 % interval of a score says. A claim must beat the
null control and, at 1x, the strong null, so its p is the larger of both (intersection-union test; Berger 1982,
Technometrics 24:295). Over the methods of a track it is adjusted by Holm's rule, which holds however the tests depend
on one another: all methods are compared with the same null seeds. Ranks are the leaderboard's (`standings.standings`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.runs import Runs, of_group
from experiments.sweep import CONTROLS
from unlearnbench.errors import DataError
from unlearnbench.leaderboard.ranking import LEVEL, Contender, holm, p_value, standings
from unlearnbench.records import Item, Track
from unlearnbench.scoring.comparability import Finished
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.null_vs_null import null_gains
from unlearnbench.scoring.nulls import control_outcomes
from unlearnbench.scoring.outcomes import outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Reals
from unlearnbench.splits import Control, Split

NO_CLAIM = ("grpo", *CONTROLS)
"""What is no hypothesis of a gain: the null's own method, and the controls. They take no part in the adjustment."""


@dataclass(frozen=True)
class Ranked:
    """A method's run with its tests. `p` and `adjusted` are of the claim that it converts more than every null."""

    name: str
    run: Finished
    p_null: float | None
    p_strong: float | None
    p: float | None
    adjusted: float | None
    rank: int | None
    """1 + the methods of its track that convert significantly more."""
    nulls_as_large: int | None
    """Of `nulls` comparisons of GRPO with itself, those whose gain is at least this one."""
    nulls: int

    @property
    def gain(self) -> float:
        return self.run.result.conversion.gain or 0.0

    @property
    def claimed(self) -> bool:
        """More than every null, after the adjustment."""
        return self.adjusted is not None and self.adjusted < LEVEL


def rank(runs: Runs, found: Mapping[str, Finished], multiple: str) -> dict[Track, list[Ranked]]:
    """Runs of one budget by track, the highest gain first. Raises DataError where a result is not what counts say."""
    null = runs.split.control("null_control", multiple)
    strong = runs.split.control("strong_null") if multiple == "1x" else None
    items = of_group(runs.split, "unlearnable")
    gains = {len(run.result.seeds): np.empty(0) for run in found.values()}
    if multiple == "1x":
        gains = {seeds: np.array(null_gains(runs.split, seeds)) for seeds in gains}
    contenders = [Contender(name, run.result, run.counts) for name, run in found.items()]
    places = {standing.id: standing.rank for standing in standings(contenders, runs.split)}
    by_track: dict[Track, list[Ranked]] = {}
    for name, run in found.items():
        of_null = _p(run, null, items, runs.split, checked=True)
        of_strong = _p(run, strong, items, runs.split)
        p = of_null if of_null is None or strong is None else None if of_strong is None else max(of_null, of_strong)
        itself = gains[len(run.result.seeds)]
        row = Ranked(name, run, of_null, of_strong, p, None, places[name], _as_large(itself, run), len(itself))
        by_track.setdefault(run.result.method.track, []).append(row)
    return {track: _adjusted(rows) for track, rows in by_track.items()}


def _adjusted(rows: Sequence[Ranked]) -> list[Ranked]:
    tested = {row.name: row.p for row in rows if row.name not in NO_CLAIM and row.p is not None}
    values = dict(zip(tested, holm(list(tested.values())), strict=True))
    done = [replace(row, adjusted=values.get(row.name)) for row in rows]
    return sorted(done, key=lambda row: (row.rank or len(rows), -row.gain, row.name))


def _p(
    run: Finished, control: Control | None, items: Sequence[Item], split: Split, *, checked: bool = False
) -> float | None:
    """p of converting more than a control; None where there is none, or it has fewer seeds."""
    seeds = len(run.result.seeds)
    if control is None or len(control.seeds) < seeds:
        return None
    tau, families = split.config.protocol.tau, [item.family for item in items]
    probes, runs = probes_of(split), [str(seed) for seed in run.result.seeds]
    method = share_arm(outcomes_of(run.counts, items, probes, runs, tau, str(run.folder)).converted)
    null = share_arm(control_outcomes(control, items, probes, tau, "null control").converted)
    told = run.result.conversion.gain
    if checked and (told is None or abs(told - float(method.values.mean() - null.values.mean())) > 1e-9):
        raise DataError(
            f"{run.folder}: result.json tells another gain than counts.parquet and the null control that split "
            f"{split.name} has now; give the same `eval` command again, which scores its files anew"
        )
    return p_value(method, null, families)


def _as_large(gains: Reals, run: Finished) -> int | None:
    told = run.result.conversion.gain
    return None if not len(gains) or told is None else int((gains >= told - 1e-12).sum())
