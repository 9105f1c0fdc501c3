"""How often the test of experiment 3 finds a gain where there is none, by simulation.

The worlds are those of `calibration` in which a method is no better than its null control; the design is micro's:
its families, three seeds a method, the null control's seeds.
"""

from __future__ import annotations

import numpy as np

from calibration.settings import HELD_OUT_WORLDS, ONCE_WORLDS, TUNING_WORLDS, Setting, micro_families
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.intervals import gain_intervals
from unlearnbench.scoring.rates import Reals
from unlearnbench.scoring.simulation import Design, Simulation

LEVELS = (0.05, 0.01, 0.05 / 14)
"""Values of p, the last the first step of Holm's rule over 14 methods."""
WORLDS = {
    "same as null": TUNING_WORLDS["same as null"],
    "nothing": ONCE_WORLDS["nothing"],
    "no effect": HELD_OUT_WORLDS["no effect"],
}


def false_gains(experiments: int) -> Reals:
    """Share of simulated experiments in which p is below each of LEVELS, over all worlds; shape (levels,)."""
    design = Design.of(micro_families())
    found = np.zeros(len(LEVELS))
    for name, world in WORLDS.items():
        simulation, rng = Simulation(world, design), Setting(name, world, "micro", design).generator()
        for _ in range(experiments):
            drawn = simulation.draw(rng)
            arms = [share_arm(arm.hits(design.tau, probed=True)) for arm in (drawn.method, drawn.null)]
            for place, p in enumerate(LEVELS):
                beyond = gain_intervals(arms[0], arms[1], design.families, 1 - p)[1]
                found[place] += beyond is not None and beyond[0] > 0
    return found / (experiments * len(WORLDS))
