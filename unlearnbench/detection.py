"""What a run can show: chance as the split's null control shows it, and the smallest gain that stands out from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from unlearnbench.assumed import Pool
from unlearnbench.conversion import MIN_SEEDS
from unlearnbench.grid import read_phase
from unlearnbench.moments import world_of
from unlearnbench.power import EXPERIMENTS, Detectable, detectable
from unlearnbench.records import Record
from unlearnbench.rule import MIN_SAMPLES, Cells, conversion_arm
from unlearnbench.simulation import Design, Simulation, World
from unlearnbench.splits import Split

ASSUMED_NULL_SEEDS = 10  # where a split ships none


class Power(Record):
    """The smallest gain that can be told from 0; `detectable` is empty where `why_not` says why."""

    items: int
    families: int
    null_seeds: int
    null_shipped: bool
    null_conversion: float | None
    """Of the shipped null control with this number of seeds."""
    world: Mapping[str, float]
    world_source: str
    world_conversion: float | None
    """Of the null in the simulated world: near `null_conversion` where the world describes it."""
    why_not: str | None
    detectable: Sequence[Detectable]


def power_of(
    split: Split,
    pool: Pool,
    multiple: float,
    seeds: int,
    samples: int,
    experiments: int | None,
    progress: Callable[[float], None],
) -> Power:
    """Chance as the split's null control shows it, and what can be told from it with this design."""
    tau = split.config.protocol.tau
    families = list(pool.families)
    control = split.control("null_control", f"{multiple:g}x")
    shipped = control is not None
    null_seeds = max(ASSUMED_NULL_SEEDS, seeds) if control is None else len(control.seeds)
    world, told, rate, most = World(), "assumed: the split has no null control", None, samples
    stand_in = control or split.control("null_control", "1x")
    if stand_in is not None and families:
        runs = [str(seed) for seed in stand_in.seeds]
        ids = list(split.ids("unlearnable"))
        cells = Cells.of(read_phase(stand_in.counts, "eval", ids, runs=runs, source="the null control"))
        estimated = world_of(cells, families)
        of = "the split's null control" if shipped else "the null control at 1x, as there is none at this budget"
        if estimated is not None:
            world, told = estimated, f"estimated from {of}"
        else:
            told = f"assumed: {of} has too few successes or seeds to tell"
        if cells.runs >= seeds and cells.enough:
            rate = float(conversion_arm(cells, tau, seeds).values.mean())
        most = int(cells.n.max(initial=0))
    if pool.assumption is not None:
        told = f"{told}; {pool.assumption}"
    why = _no_power(split, len(families), seeds, samples, null_seeds, most)
    found: list[Detectable] = []
    simulated = None
    if why is None:
        design = Design.of(families, seeds, null_seeds, samples, tau)
        found = detectable(world, design, experiments=experiments or _experiments(design), progress=progress)
        simulated = Simulation(world, design).null_rate
    progress(1.0)
    parts = ("base", "family", "item", "run", "family_run", "item_run")
    return Power(
        items=len(families),
        families=len(set(families)),
        null_seeds=null_seeds,
        null_shipped=shipped,
        null_conversion=rate,
        world={name: value for name, value in asdict(world).items() if name in parts},
        world_source=told,
        world_conversion=simulated,
        why_not=why,
        detectable=found,
    )


def _experiments(design: Design) -> int:
    """As many as take seconds: fewer with many items, whose gains are told apart more easily."""
    return max(EXPERIMENTS // 5, min(EXPERIMENTS, 300 * EXPERIMENTS // design.items))


def _no_power(split: Split, items: int, seeds: int, samples: int, null_seeds: int, null_samples: int) -> str | None:
    """Why a run of this design would have no gain that counts; None if it would."""
    if not items:
        return f"split {split.name} has no unlearnable items, so there is nothing to convert"
    if samples < MIN_SAMPLES:
        return f"{samples} samples an item and seed are fewer than the {MIN_SAMPLES} that `converted` needs"
    if null_samples > samples:
        return f"the null control has {null_samples} samples an item; take {null_samples} here too"
    if seeds < MIN_SEEDS:
        return f"the protocol asks for at least {MIN_SEEDS} seeds"
    if null_seeds < seeds:
        return f"the null control has {null_seeds} seeds, fewer than {seeds}; use fewer seeds, or add null seeds"
    return None
