"""Error rates of what a probe says: item by item (learned or memorised), and over a run's items, with known truth.

    python -m experiments.calibration.run --only twins

In simulated experiments a known share of an item's rise reaches its probe: 0 is pure memory, 1 is learning. An item in
one run is called converted if its probe is solved, too, and memorised if it is not; over all of a run's solved items
PROTOCOL 3.8 gives one of four verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.calibration.settings import Setting
from unlearnbench.scoring.conversion_rule import solved
from unlearnbench.scoring.inference.intervals import twin_verdict
from unlearnbench.scoring.inference.simulation import Drawn, Simulation
from unlearnbench.scoring.twin_scores import twin_gain

CARRIED = (0.0, 0.25, 0.5, 0.75, 1.0)
KINDS = ("generalised", "partly", "undecided", "memorised")


class ProbeVerdicts(NamedTuple):
    """What probes said in the experiments of one world; shares."""

    solved: float
    """Solved items per run, on average."""
    probe_solved: float
    """Of solved (item, run) pairs: those whose probe is solved, so called converted."""
    null_probe: float
    """The same share among what the null control solved by chance; NaN where it solved nothing."""
    verdicts: tuple[float, ...]
    """Experiments with each verdict of KINDS, of those where something was solved."""


def probe_verdicts(job: tuple[Setting, float], repeats: int) -> ProbeVerdicts:
    """Verdicts with a given share of the items' rise reaching the probes; the setting's key follows from its names."""
    setting, carried = job
    simulation, tau = Simulation(setting.world, setting.design), setting.design.tau
    rng, found = setting.generator(), []
    hits, both, null_hits, null_both = 0, 0, 0, 0
    for _ in range(repeats):
        drawn = simulation.draw(rng, carried)
        item, probe = solved(drawn.method.items, tau), solved(drawn.method.probes, tau)
        hits, both = hits + int(item.sum()), both + int((item & probe).sum())
        item, probe = solved(drawn.null.items, tau), solved(drawn.null.probes, tau)
        null_hits, null_both = null_hits + int(item.sum()), null_both + int((item & probe).sum())
        if (verdict := _verdict(drawn, tau, setting.design.families)) is not None:
            found.append(verdict)
    shares = tuple(found.count(kind) / max(len(found), 1) for kind in KINDS)
    runs = repeats * setting.design.seeds
    return ProbeVerdicts(hits / runs, both / max(hits, 1), null_both / null_hits if null_hits else float("nan"), shares)


def _verdict(drawn: Drawn, tau: float, families: Sequence[str]) -> str | None:
    """The verdict of PROTOCOL 3.8 on one experiment; None where no item is solved."""
    hit = solved(drawn.method.items, tau)
    rows = np.flatnonzero(hit.any(axis=1))
    if not rows.size:
        return None
    weights, method, null = hit[rows].astype(float), drawn.method.items[rows], drawn.null.items[rows]
    own = float((weights * (method.correct / method.n - null.rates[:, None])).sum() / weights.sum())
    places = [families[row] for row in rows.tolist()]
    twins, others = drawn.method.probes[rows], drawn.null.probes[rows]
    interval = twin_gain(weights, twins, others, [str(row) for row in rows], places)[1]
    return twin_verdict(interval, own)


def table(jobs: Sequence[tuple[Setting, float]], found: Sequence[ProbeVerdicts], repeats: int) -> str:
    """As a table in markdown."""
    lines = [
        f"### What probes say: {repeats} experiments each, one probe per item, design {jobs[0][0].design_name}",
        "",
        "| world | rise that reaches probes | solved per run | probe solved too, of solved items "
        f"| the same under the null | {' | '.join(KINDS)} |",
        "|---" * (5 + len(KINDS)) + "|",
    ]
    for (setting, carried), row in zip(jobs, found, strict=True):
        null = "-" if np.isnan(row.null_probe) else f"{100 * row.null_probe:.1f} %"
        verdicts = " | ".join(f"{100 * share:.1f} %" for share in row.verdicts)
        lines.append(
            f"| {setting.world_name} | {100 * carried:.0f} % | {row.solved:.1f} | {100 * row.probe_solved:.1f} % "
            f"| {null} | {verdicts} |"
        )
    return "\n".join([*lines, ""])
