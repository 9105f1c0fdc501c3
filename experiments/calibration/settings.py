"""The settings that the intervals were tuned on, others that they were not, and some that they do not claim.

Two lists were each fixed, and committed, before any interval was tried on them. The first ("looked at once") led to
one change, a floor under what runs have in common (`intervals.COMMON_FLOOR`), and is no longer held out; the second
("held out") led to none.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlearnbench.scoring.inference.simulation import Design, World
from unlearnbench.splits import load_split


@dataclass(frozen=True)
class Setting:
    """A world and a design, with their names for the table."""

    world_name: str
    world: World
    design_name: str
    design: Design

    def generator(self) -> np.random.Generator:
        """The setting's own random stream, keyed by its names."""
        return np.random.Generator(np.random.Philox(key=zlib.crc32(f"{self.design_name}: {self.world_name}".encode())))


def micro_families() -> list[str]:
    """Family of each unlearnable item of the split `micro`: few large ones and many small."""
    return [item.family for item in load_split("micro").items if item.group == "unlearnable"]


def _sized(items: int, families: int, seed: int, evenness: float = 6.0) -> tuple[int, ...]:
    return _uneven(items, families, np.random.Generator(np.random.Philox(key=[seed, families])), evenness)


def _settings(worlds: dict[str, World], designs: dict[str, Design]) -> list[Setting]:
    return [Setting(world, worlds[world], design, designs[design]) for design in designs for world in worlds]


TUNING_WORLDS = {
    "same as null": World(),
    "tiny": World(shift=0.2, shift_family=0.3),
    "small": World(shift=0.7, shift_family=0.7),
    "middle": World(shift=1.0, shift_family=0.8),
    "large": World(shift=1.5, shift_family=1.0),
    "nearly all": World(shift=5.0, shift_family=1.0),
    "items differ": World(family=0.5, shift=1.2, shift_family=0.3, shift_item=1.5),
    "runs differ, in step": World(shift=1.5, shift_family=1.0, run=0.8, family_run=0.2),
    "runs differ by family": World(shift=1.5, shift_family=1.0, run=0.0, family_run=1.5),
    "runs alike": World(shift=1.5, shift_family=1.0, run=0.0, family_run=0.0, item_run=0.0),
    "whole families": World(jump=0.2, shift_family=0.2),
    "a whole family, perhaps": World(jump=0.06, shift_family=0.2),
    "families alike": World(family=0.3, shift=1.5, shift_family=0.1, run=0.1, family_run=0.1),
    "families alike, many": World(family=0.3, shift=2.5, shift_family=0.1, run=0.1, family_run=0.1),
}


def tuning() -> list[Setting]:
    """The settings that choices were made on: every world in every design."""
    return _settings(
        TUNING_WORLDS,
        {
            "250 in 16": Design(_sized(250, 16, 1)),
            "250 in 30": Design(_sized(250, 30, 1)),
            "micro": Design.of(micro_families()),
            "500 in 7, 3 null seeds": Design(_sized(500, 7, 1, 3.0), null_seeds=3),
            "250 in 16, 5 seeds": Design(_sized(250, 16, 2), seeds=5),
        },
    )


ONCE_WORLDS = {
    "nothing": World(base=-3.6, family=0.8, item=1.0, run=0.2, family_run=0.3, item_run=0.6),
    "weak, items differ": World(
        base=-4.5,
        family=1.4,
        item=0.9,
        run=0.25,
        family_run=0.4,
        item_run=0.5,
        shift=1.0,
        shift_family=0.5,
        shift_item=0.8,
    ),
    "moderate": World(
        base=-3.8, family=0.7, item=0.5, run=0.4, family_run=0.8, item_run=0.3, shift=1.3, shift_family=0.6
    ),
    "item by item": World(
        family=0.5, item=0.6, run=0.1, family_run=0.2, item_run=0.8, shift=1.5, shift_family=0.4, shift_item=1.5
    ),
    "family by family": World(
        base=-4.2, family=0.6, item=0.4, run=0.2, family_run=0.3, item_run=0.3, jump=0.3, height=4.0
    ),
    "restless method": World(base=-4.0, run=0.2, family_run=0.3, item_run=0.3, shift=1.8, shift_family=0.6, unrest=2.5),
    "runs in step": World(base=-4.2, family=0.9, run=0.6, family_run=0.0, item_run=0.2, shift=1.7, shift_family=0.8),
    "runs by family": World(base=-4.0, family=0.8, run=0.05, family_run=1.1, item_run=0.3, shift=1.5, shift_family=0.7),
    "about half": World(base=-4.0, family=1.2, shift=3.3, shift_family=1.2),
    "quiet": World(
        base=-4.2, family=0.8, item=0.9, run=0.05, family_run=0.1, item_run=0.1, shift=1.6, shift_family=0.9
    ),
}


def looked_at_once() -> list[Setting]:
    """The settings that one choice was made on."""
    return _settings(
        ONCE_WORLDS,
        {
            "micro": Design.of(micro_families()),
            "micro, 5 seeds": Design.of(micro_families(), seeds=5),
            "100 in 12": Design(_sized(100, 12, 3, 2.0)),
            "500 in 20, 5 null seeds": Design(_sized(500, 20, 3, 2.0), null_seeds=5),
            "300 in 24, 128 samples": Design(_sized(300, 24, 3, 10.0), samples=128),
            "900 in 7, 3 null seeds": Design(_sized(900, 7, 3, 2.0), null_seeds=3),
            "250 in 7, 3 null seeds": Design(_sized(250, 7, 4, 2.0), null_seeds=3),
        },
    )


HELD_OUT_WORLDS = {
    "no effect": World(base=-4.2, family=1.2, item=0.5, run=0.15, family_run=0.6, item_run=0.3),
    "faint": World(base=-4.6, family=1.1, item=1.1, run=0.3, family_run=0.3, item_run=0.3, shift=0.9, shift_family=0.6),
    "mixed": World(
        base=-4.0,
        family=0.9,
        item=0.6,
        run=0.35,
        family_run=0.6,
        item_run=0.5,
        shift=1.6,
        shift_family=0.9,
        shift_item=0.5,
    ),
    "private": World(
        base=-4.4,
        family=0.4,
        item=0.5,
        run=0.2,
        family_run=0.1,
        item_run=1.0,
        shift=1.4,
        shift_family=0.3,
        shift_item=2.0,
    ),
    "lifted families": World(
        base=-4.3, family=0.7, item=0.6, run=0.25, family_run=0.4, item_run=0.4, jump=0.15, height=4.5
    ),
    "unsteady": World(
        base=-4.1, family=0.8, run=0.25, family_run=0.4, item_run=0.3, shift=2.0, shift_family=0.7, unrest=2.0
    ),
    "whole runs": World(base=-4.0, family=0.7, run=0.7, family_run=0.1, item_run=0.4, shift=2.0, shift_family=0.5),
    "most": World(base=-4.0, family=1.0, run=0.3, family_run=0.5, item_run=0.4, shift=4.2, shift_family=1.0),
}


def held_out() -> list[Setting]:
    """The settings that no choice was made on."""
    return _settings(
        HELD_OUT_WORLDS,
        {
            "micro": Design.of(micro_families()),
            "micro, 4 seeds, 64 samples": Design.of(micro_families(), seeds=4, samples=64),
            "400 in 40": Design(_sized(400, 40, 5, 4.0)),
            "200 in 10, 5 null seeds": Design(_sized(200, 10, 5, 6.0), null_seeds=5),
            "600 in 7, 3 null seeds": Design(_sized(600, 7, 5, 3.0), null_seeds=3),
        },
    )


def unclaimed() -> list[Setting]:
    """Settings with an effect that three runs, or few families, cannot show: measured, but not claimed."""
    return _settings(
        {
            "1 run in 5 fails": World(shift=1.8, shift_family=0.6, failing=0.2),
            "1 run in 2 fails": World(shift=1.8, shift_family=0.6, failing=0.5),
            "1 family in 30 lifted": World(base=-4.5, family=0.5, jump=0.033),
        },
        {
            "micro": Design.of(micro_families()),
            "500 in 7, 3 null seeds": Design(_sized(500, 7, 1, 3.0), null_seeds=3),
            "250 in 3": Design(_sized(250, 3, 1)),
        },
    )


def all_sets() -> dict[str, Sequence[Setting]]:
    """The lists by name, in the order of the document."""
    return {
        "held out": held_out(),
        "looked at once": looked_at_once(),
        "tuning": tuning(),
        "not claimed": unclaimed(),
    }


def twin_settings() -> list[Setting]:
    """Worlds for the verdicts on twins, those in which methods differ most."""
    named = {**TUNING_WORLDS, **ONCE_WORLDS}
    names = (
        "same as null",
        "small",
        "large",
        "items differ",
        "runs differ, in step",
        "runs differ by family",
        "whole families",
        "moderate",
        "restless method",
    )
    return _settings({name: named[name] for name in names}, {"micro": Design.of(micro_families())})


def _uneven(items: int, families: int, rng: np.random.Generator, evenness: float) -> tuple[int, ...]:
    """Sizes of families that differ (Dirichlet with this concentration), at least one each, `items` in all."""
    shares = np.cumsum(rng.dirichlet(np.full(families, evenness)))
    edges = np.concatenate([[0], np.round(shares * (items - families)).astype(int)])
    return tuple((np.diff(edges) + 1).tolist())
