"""The smallest conversion gain that a design can detect: 80 % power that a 95 % interval lies above 0, by simulation.

The kind of effect matters more than anything else, so two extremes are given: one that raises every item's logit by the
same amount (`spread`), and one that learns some families whole and the others not at all (`families`). Chance is that
of a `simulation.World`, estimated from a null control if there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy import optimize
from scipy.special import expit, logit

from unlearnbench.records import Interval, Record
from unlearnbench.rng import stream
from unlearnbench.scoring.conversion_rule import share_arm
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.inference.simulation import Design, Simulation, World
from unlearnbench.scoring.rates import Flags, Reals

POWER = 0.8
LEARNED = 0.9
"""Share of a family's items that are converted once a method has learned it whole."""
EXPERIMENTS = 1000
"""Simulated experiments for each kind of effect: the detectable gain is then known to about 7 %."""
_UP = POWER / (1 - POWER)
_MOST_SHIFT = 40.0  # logits: every item is solved

Effect = Literal["spread", "families"]
Bound = Literal["interval", "interval_families"]
BOUNDS: tuple[Bound, ...] = ("interval", "interval_families")


class Detectable(Record):
    """The gain at which a design has 80 % power; None where no gain reaches it."""

    effect: Effect
    bound: Bound
    gain: float | None
    items: float | None
    """The gain times the number of items."""
    likely: Interval | None
    """Where the gain lies, with 95 % confidence: the simulation's own error."""
    experiments: int


def detectable(
    world: World,
    design: Design,
    *,
    probed: bool = True,
    experiments: int = EXPERIMENTS,
    progress: Callable[[float], None] | None = None,
) -> list[Detectable]:
    """Smallest detectable gain of conversion (without `probed`: of solved), for both effects and both intervals.

    The world's own effect (shift, jump, height) is replaced. `progress` is called with the share that is done.
    """
    found: list[Detectable] = []
    total, done = 2 * experiments, 0
    for effect in ("spread", "families"):
        strength = Strength(world, design, effect, probed)
        rng = np.random.Generator(np.random.Philox(key=stream("power", effect)))
        gains, hits = np.zeros(experiments), np.zeros((experiments, len(BOUNDS)), bool)
        # A staircase for each interval, by turns: down after a hit and up four times as far after a miss settles where
        # 80 % hit (Kaernbach 1991, Perception & Psychophysics 49:227). All experiments serve both estimates.
        level = np.full(len(BOUNDS), np.log(min(0.15, strength.most / 2)))
        for number in range(experiments):
            turn = number % len(BOUNDS)
            gains[number], hits[number] = strength.experiment(float(np.exp(level[turn])), rng)
            step = max(0.02, 0.15 / (1 + number / 40))
            level[turn] += -step if hits[number, turn] else _UP * step
            level[turn] = np.clip(level[turn], np.log(1e-4), np.log(strength.most))
            done += 1
            if progress:
                progress(done / total)
        for place, bound in enumerate(BOUNDS):
            gain, likely = _threshold(gains, hits[:, place], strength.most)
            found.append(
                Detectable(
                    effect=effect,
                    bound=bound,
                    gain=gain,
                    items=None if gain is None else gain * design.items,
                    likely=likely,
                    experiments=experiments,
                )
            )
    return found


class Strength:
    """How strong an effect must be for a gain, and one experiment at it."""

    def __init__(self, world: World, design: Design, effect: Effect, probed: bool) -> None:
        still = replace(world, shift=0.0, shift_family=0.0, shift_item=0.0, jump=0.0, unrest=1.0, failing=0.0)
        self.design, self.effect, self.probed = design, effect, probed
        self.base = still
        if effect == "families":
            self.base = replace(still, height=_solved(lambda height: self._rate(shift=height), LEARNED, _MOST_SHIFT))
        self.most = 0.98 * self._gain(_MOST_SHIFT if effect == "spread" else 1.0)

    def _rate(self, **changes: float) -> float:
        return Simulation(replace(self.base, **changes), self.design, self.probed).method_rate

    def _gain(self, strength: float) -> float:
        return Simulation(self._changed(strength), self.design, self.probed).gain

    def _changed(self, strength: float) -> World:
        if self.effect == "spread":
            return replace(self.base, shift=strength)
        return replace(self.base, jump=strength)

    def world(self, gain: float) -> World:
        return self._changed(_solved(self._gain, gain, _MOST_SHIFT if self.effect == "spread" else 1.0))

    def experiment(self, gain: float, rng: np.random.Generator) -> tuple[float, Flags]:
        """The gain, and whether each interval lies above 0."""
        drawn = Simulation(self.world(gain), self.design, self.probed).draw(rng)
        arms = [share_arm(arm.hits(self.design.tau, probed=self.probed)) for arm in (drawn.method, drawn.null)]
        intervals = gain_intervals(arms[0], arms[1], self.design.families)
        return gain, np.array([interval is not None and interval[0] > 0 for interval in intervals])


def _solved(function: Callable[[float], float], value: float, most: float) -> float:
    """Where a rising function reaches the value, from 0 to `most`."""
    if function(most) <= value:
        return most
    return (
        0.0 if function(0.0) >= value else float(optimize.brentq(lambda x: function(x) - value, 0.0, most, rtol=1e-6))
    )


def _threshold(gains: Reals, hits: Flags, most: float) -> tuple[float | None, Interval | None]:
    """Gain at which 80 % hit, by logistic regression on log gain, and its 95 % interval (delta method).

    None where it lies beyond what was tried.
    """
    if not hits.any():
        return None, None
    x = np.log(gains)
    centre = float(x.mean())
    design = np.stack([np.ones_like(x), x - centre], axis=1)

    def loss(beta: Reals) -> float:
        z = design @ beta
        # a weak prior on the slope (standard deviation 20) keeps it finite where hits and misses do not overlap
        return float(np.logaddexp(0, np.where(hits, -z, z)).sum() + (beta[1] / 20) ** 2 / 2)

    beta = optimize.minimize(loss, np.array([0.0, 4.0]), method="BFGS").x
    if beta[1] <= 0:
        return None, None
    p = expit(design @ beta)
    information = (design * (p * (1 - p))[:, None]).T @ design + np.diag([1e-9, 1 / 20**2])
    place = float((logit(POWER) - beta[0]) / beta[1])
    slope = np.array([-1 / beta[1], -place / beta[1]])
    error = float(np.sqrt(slope @ np.linalg.solve(information, slope)))
    if place + centre > np.log(most):
        return None, None
    low, high = (float(np.exp(min(place + centre + side * 1.96 * error, 0.0))) for side in (-1, 1))
    return float(np.exp(place + centre)), (low, high)
