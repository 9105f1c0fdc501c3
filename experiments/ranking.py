"""Is a gain more than chance, and is it still so after all the methods that were tried?

p is the score's (PROTOCOL 3.4), adjusted by Holm's rule over the methods of a track, which holds however the tests
depend on one another: all methods are compared with the same null seeds. Ranks are the leaderboard's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.runs import Runs, of_group
from experiments.sweep import CONTROLS
from unlearnbench.errors import DataError
from unlearnbench.leaderboard.ranking import Contender, holm, standings
from unlearnbench.records import Track
from unlearnbench.reports.headline import beats_tuned, converts_more
from unlearnbench.scoring.comparability import Finished
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
    """A method's run with its test."""

    name: str
    run: Finished
    p: float | None
    """That it converts no more than the null control."""
    adjusted: float | None
    rank: tuple[int, int] | None
    """Best and worst rank in its track that the tests of pairs allow."""
    nulls_as_large: int | None
    """Of `nulls` comparisons of GRPO with itself, those whose gain is at least this one."""
    nulls: int

    @property
    def gain(self) -> float:
        return self.run.result.conversion.gain or 0.0

    @property
    def claimed(self) -> bool:
        """More than the null, after the adjustment, and than the tuned null where one is shipped."""
        score = self.run.result.conversion.model_copy(update={"p": self.adjusted})
        return self.adjusted is not None and converts_more(score) and beats_tuned(score) is not False


def rank(runs: Runs, found: Mapping[str, Finished], multiple: str) -> dict[Track, list[Ranked]]:
    """Runs of one budget by track, the highest gain first. Raises DataError where a result is not what counts say."""
    null = runs.split.control("null_control", multiple)
    gains = {len(run.result.seeds): np.empty(0) for run in found.values()}
    if multiple == "1x":
        gains = {seeds: np.array(null_gains(runs.split, seeds)) for seeds in gains}
    pools = [(name, [Contender(name, run.result, run.counts, runs.split)]) for name, run in found.items()]
    places = {standing.id: standing.rank for standing in standings(pools, [[multiple]] * len(pools))}
    by_track: dict[Track, list[Ranked]] = {}
    for name, run in found.items():
        if null is not None:
            _require_own_gain(run, null, runs.split)
        itself, p = gains[len(run.result.seeds)], run.result.conversion.p
        row = Ranked(name, run, p, None, places[name], _as_large(itself, run), len(itself))
        by_track.setdefault(run.result.method.track, []).append(row)
    return {track: _adjusted(rows) for track, rows in by_track.items()}


def _adjusted(rows: Sequence[Ranked]) -> list[Ranked]:
    tested = {row.name: row.p for row in rows if row.name not in NO_CLAIM and row.p is not None}
    values = dict(zip(tested, holm(list(tested.values())), strict=True))
    done = [replace(row, adjusted=values.get(row.name)) for row in rows]
    return sorted(done, key=lambda row: (row.rank or (len(rows), 0), -row.gain, row.name))


def _require_own_gain(run: Finished, null: Control, split: Split) -> None:
    """Raise DataError where counts.parquet and the null control do not give the gain in result.json."""
    tau, items = split.config.protocol.tau, of_group(split, "unlearnable")
    probes, seeds = probes_of(split), [str(seed) for seed in run.result.seeds]
    method = outcomes_of(run.counts, items, probes, seeds, tau, str(run.folder)).converted.mean()
    gain = float(method - control_outcomes(null, items, probes, tau, "null control").converted.mean())
    told = run.result.conversion.gain
    if told is not None and abs(told - gain) > 1e-9:
        raise DataError(
            f"{run.folder}: result.json states another gain than counts.parquet and the null control that split "
            f"{split.name} has now; run the same `eval` command again, which scores its files anew"
        )


def _as_large(gains: Reals, run: Finished) -> int | None:
    told = run.result.conversion.gain
    return None if not len(gains) or told is None else int((gains >= told - 1e-12).sum())
