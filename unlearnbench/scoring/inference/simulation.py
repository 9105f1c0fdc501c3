"""Simulated counts with known truth: items in families that move together, seeds that differ, a method that helps.

The logit of an item's success rate in one run is a sum of normal parts: its family's, its own, the run's, the run's
in that family and the run's in that item. Its probe has the same skill, so all parts but the last are the same; the
last one is drawn for each. `Simulation` knows the expected gain exactly (by quadrature, no sampling), for given
families and beyond them, so that an interval's coverage and a design's power can be counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import betainc, expit

from unlearnbench.scoring.conversion_rule import LEAST_RATE, solved
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.rates import Counts, Flags, Reals, least_above

_LOGITS = np.linspace(-16, 14, 601)
"""Grid on which the chance of conversion is tabulated; linear in between."""
_NODES = np.linspace(-6, 6, 97)
_WEIGHTS = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()
"""The standard normal on an even grid: the trapezium rule, exact to far beyond what is drawn."""


@dataclass(frozen=True)
class World:
    """How items behave. Every number is in logits; those not called mean or share are standard deviations.

    `base` is the mean logit under the null control. `family`, `item`: differences between families, and between a
    family's items, the same in both arms. `run`, `family_run`, `item_run`: what one training run does to all items,
    to a family, to an item. A method adds `shift` on average, differently by family (`shift_family`) and by item
    (`shift_item`), lifts a share `jump` of the families, all their items together, by `height`, and has runs that
    differ `unrest` times as much as the null's. A share `failing` of its runs ends lower, by `drop` on every item.
    """

    base: float = -4.0
    family: float = 1.0
    item: float = 0.7
    run: float = 0.3
    family_run: float = 0.5
    item_run: float = 0.4
    shift: float = 0.0
    shift_family: float = 0.0
    shift_item: float = 0.0
    jump: float = 0.0
    height: float = 5.0
    unrest: float = 1.0
    failing: float = 0.0
    drop: float = 3.0


@dataclass(frozen=True)
class Design:
    """What is measured: items per family, seeds of the method and of the null control, samples per item and seed."""

    sizes: tuple[int, ...]
    seeds: int = 3
    null_seeds: int = 10
    samples: int = 32
    tau: float = 0.1

    @classmethod
    def of(
        cls, families: Sequence[str], seeds: int = 3, null_seeds: int = 10, samples: int = 32, tau: float = 0.1
    ) -> Design:
        """The design of a split, from the family of each of its items (in the order of the families' names)."""
        counted = Counter(families)
        return cls(tuple(counted[name] for name in sorted(counted)), seeds, null_seeds, samples, tau)

    @property
    def items(self) -> int:
        return sum(self.sizes)

    @property
    def families(self) -> list[str]:
        """Family of each item; items stand family by family."""
        return [f"{index:04d}" for index, size in enumerate(self.sizes) for _ in range(size)]


@dataclass(frozen=True)
class DrawnArm:
    """One arm of an experiment: counts of items and of their probes, each items x seeds."""

    items: Cells
    probes: Cells

    def hits(self, tau: float, *, probed: bool = True) -> Flags:
        """Items x seeds: converted, or without `probed` solved."""
        hit = solved(self.items, tau)
        return hit & solved(self.probes, tau) if probed else hit


@dataclass(frozen=True)
class Drawn:
    """One simulated experiment, and the expected gain for these families."""

    method: DrawnArm
    null: DrawnArm
    gain: float


@dataclass(frozen=True)
class Simulation:
    """Experiments of one design in one world."""

    world: World
    design: Design
    probed: bool = True
    """Whether an item counts only with its probe (conversion), or by itself (solved)."""

    @cached_property
    def _family(self) -> Counts:
        return np.repeat(np.arange(len(self.design.sizes)), self.design.sizes)

    @cached_property
    def gain(self) -> float:
        """Expected gain over items, seeds and families."""
        return self.method_rate - self.null_rate

    @cached_property
    def null_rate(self) -> float:
        """Expected conversion of the null control, over families."""
        return self._over_families(self._null_chance, self.world.base, self.world.family)

    @cached_property
    def method_rate(self) -> float:
        """Expected conversion of the method, over families."""
        world = self.world
        mean, deviation = world.base + world.shift, float(np.hypot(world.family, world.shift_family))
        still = self._over_families(self._method_chance, mean, deviation)
        lifted = self._over_families(self._method_chance, mean + world.height, deviation) if world.jump else 0.0
        return (1 - world.jump) * still + world.jump * lifted

    def draw(self, rng: np.random.Generator, carried: float = 1.0) -> Drawn:
        """Fresh families, items and runs. `carried` is the share of an item's rise that reaches its probe.

        The gain that comes with it is that of a method whose probes rise as the items do (1).
        """
        null, method, gain = self._logits(rng)
        world, design = self.world, self.design
        probes = null + carried * (method - null)
        return Drawn(
            self._arm(rng, (method, probes), self._moves(rng, design.seeds), world.unrest),
            self._arm(rng, (null, null), self._moves(rng, design.null_seeds), 1.0),
            gain,
        )

    def _arm(self, rng: np.random.Generator, logits: tuple[Reals, Reals], moves: Reals, unrest: float) -> DrawnArm:
        """Counts of items and of probes, which differ at least in what a run does to each alone."""
        items, probes = (self._drawn(rng, expit(of + unrest * self._moved(rng, moves))) for of in logits)
        return DrawnArm(items, probes)

    def _logits(self, rng: np.random.Generator) -> tuple[Reals, Reals, float]:
        """Logits of fresh items under the null (items x 1) and in each of the method's runs, and the expected gain."""
        world, design, sizes = self.world, self.design, np.array(self.design.sizes)
        null = world.base + world.family * rng.standard_normal(len(sizes))
        jumps = world.height * (rng.random(len(sizes)) < world.jump)
        method = null + world.shift + world.shift_family * rng.standard_normal(len(sizes)) + jumps
        own = world.item * rng.standard_normal(design.items)
        reached = own + world.shift_item * rng.standard_normal(design.items)
        gains = np.interp(method, _LOGITS, self._method_chance) - np.interp(null, _LOGITS, self._null_chance)
        fallen = -world.drop * (rng.random(design.seeds) < world.failing)
        return (
            (null[self._family] + own)[:, None],
            (method[self._family] + reached)[:, None] + fallen,
            float(sizes @ gains / design.items),
        )

    def _moves(self, rng: np.random.Generator, runs: int) -> Reals:
        """What each of the runs does to an item together with others, items x runs."""
        world = self.world
        common = world.run * rng.standard_normal((1, runs))
        return common + world.family_run * rng.standard_normal((len(self.design.sizes), runs))[self._family]

    def _moved(self, rng: np.random.Generator, moves: Reals) -> Reals:
        """The same and what each run does to the item alone."""
        return moves + self.world.item_run * rng.standard_normal(moves.shape)

    def _drawn(self, rng: np.random.Generator, rates: Reals) -> Cells:
        correct = rng.binomial(self.design.samples, rates)
        return Cells(correct, np.full_like(correct, self.design.samples))

    @cached_property
    def _null_chance(self) -> Reals:
        return self._chance(self.world.item, 1.0, 0.0)

    @cached_property
    def _method_chance(self) -> Reals:
        world = self.world
        return self._chance(float(np.hypot(world.item, world.shift_item)), world.unrest, world.failing)

    def _chance(self, item: float, unrest: float, failing: float) -> Reals:
        """Chance that an item counts in one run, at each logit of its family (`_LOGITS`)."""
        world, design = self.world, self.design
        shared, alone = unrest * float(np.hypot(world.run, world.family_run)), unrest * world.item_run
        return _chances(design.samples, design.tau, item, shared, alone, failing, world.drop, self.probed)

    @staticmethod
    def _over_families(chance: Reals, mean: float, deviation: float) -> float:
        return float(np.interp(mean + deviation * _NODES, _LOGITS, chance) @ _WEIGHTS)


@lru_cache(maxsize=32)  # worlds that differ in what the method adds share it
def _chances(
    samples: int, tau: float, item: float, shared: float, alone: float, failing: float, drop: float, probed: bool
) -> Reals:
    """P(solved) or, if `probed`, P(item and probe solved) in one run, by the logit of the family.

    An item and its probe share everything but what a run does to each alone, given which they are independent.
    """
    least = max(least_above(samples, tau), int(np.ceil(LEAST_RATE * samples)))

    def mixed(values: Reals, spread: float, fallen: float = 0.0) -> Reals:
        found: Reals = np.interp(_LOGITS[:, None] + spread * _NODES - fallen, _LOGITS, values) @ _WEIGHTS
        return found

    at_least = betainc(least, samples - least + 1, expit(_LOGITS))  # P(X >= least) of a binomial; 0 for samples + 1
    one = mixed(at_least, alone)
    both = one**2 if probed else one
    hit = (1 - failing) * mixed(both, shared) + (failing * mixed(both, shared, drop) if failing else 0.0)
    return np.clip(mixed(hit, item), 0.0, 1.0)
