"""The smallest conversion gain that a run's design could have detected: said beside a gain that was not found."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from unlearnbench.reports.headline import Detectable
from unlearnbench.reports.run_files import Run
from unlearnbench.scoring.counts import MIN_SAMPLES, Cells, read_phase

if TYPE_CHECKING:  # the simulation loads scipy.optimize, for which a run without a gain does not wait
    from unlearnbench.scoring.inference.simulation import Design, World

EXPERIMENTS = 150
"""Simulated experiments: enough for one digit, in a second or two. `unlearnbench plan` makes more."""


def smallest_gain(run: Run) -> Detectable | None:
    """By the run's own numbers of items, seeds and samples and chance as its null control shows it.

    None for a run that has no gain, or no null control to say what chance does.
    """
    result = run.result
    if run.null is None or result.conversion.gain is None or result.samples < MIN_SAMPLES or not run.items:
        return None
    from unlearnbench.scoring.inference.simulation import Design, World
    from unlearnbench.scoring.inference.variance_components import world_of

    families = tuple(item.family for item in run.items)
    seeds = [str(seed) for seed in run.null.seeds]
    cells = Cells.of(read_phase(run.null.counts, "eval", run.ids, runs=seeds, source="the null control"))
    world = world_of(cells, families) or World()
    tau = run.split.config.protocol.tau
    return _smallest(world, Design.of(families, len(run.seeds), len(seeds), result.samples, tau))


@lru_cache(maxsize=64)  # all entries of a board's split and budget share it
def _smallest(world: World, design: Design) -> Detectable:
    from unlearnbench.scoring.inference.power import detectable

    found = detectable(world, design, experiments=EXPERIMENTS)
    gains = {row.effect: row.gain for row in found if row.bound == "interval_families"}
    return Detectable(spread=gains.get("spread"), families=gains.get("families"))
