"""What a run will cost and what it can show, before any of it is paid for.

probe a few real steps → tokens and FLOPs → time, memory and disk; the split's null control → chance → smallest gain
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from unlearnbench.errors import RunError
from unlearnbench.harness import cost
from unlearnbench.harness.assumed import Pool, pool_of
from unlearnbench.harness.cost import UTILISATION, Precision, Space, Timing, Work
from unlearnbench.harness.trial_run import Tokens, affordable, probe
from unlearnbench.methods import locate
from unlearnbench.records import Record
from unlearnbench.scoring.counts import MIN_SAMPLES, Cells, read_phase
from unlearnbench.scoring.frontier import frontier_items
from unlearnbench.scoring.inference.power import EXPERIMENTS, Detectable, detectable
from unlearnbench.scoring.inference.simulation import Design, Simulation, World
from unlearnbench.scoring.inference.variance_components import world_of
from unlearnbench.scoring.nulls import control_outcomes
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.score import MIN_SEEDS
from unlearnbench.splits import Control, Split

PART_OF_PROBE = 0.3  # of the progress bar

ASSUMED_NULL_SEEDS = 10  # where a split ships none


class Planned(Record):
    split: str
    split_hash: str
    method: str
    parameters: int
    seeds: int
    samples: int
    multiple: float
    training: Work
    """Of one seed."""
    evaluation: Work
    """Of one seed."""
    total_tokens: Tokens
    total_flops: int
    timing: Timing
    space: Space
    power: Power


def plan(
    split: Split,
    method: str = "grpo",
    *,
    seeds: int = 3,
    samples: int = 32,
    multiple: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    precision: Precision = "float32",
    utilisation: float = UTILISATION,
    length: float | None = None,
    workers: int | None = None,
    experiments: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Planned:
    """What `eval` with the same arguments will cost, and the smallest conversion gain it can show.

    `length` is the mean number of tokens of a rollout, used if none were measured. Raises RunError for a device
    that is not in the table, or a policy of unknown size; MethodError as the method's own steps do; SplitError and
    DataError as reading the split does.
    """
    source = locate(method)
    published = None if device is None else cost.device(device)
    tell = progress or (lambda _: None)
    control = split.control("null_control", f"{multiple:g}x") or split.control("null_control", "1x")
    grpo = source.module == "unlearnbench.methods.grpo" and not settings
    reference = control if grpo and control is not None and control.result is not None else None
    tried = None
    pool = pool_of(split)
    if (published is None or reference is None) and pool.assumption is None and (prompts := affordable(split)):
        tried = probe(split, source, settings or {}, samples, prompts, lambda share: tell(PART_OF_PROBE * share))
    tell(PART_OF_PROBE)
    parameters = split.config.base_policy.parameters or (tried.parameters if tried else None)
    if parameters is None:
        raise RunError(
            f"{split.path / 'split.yaml'}, field base_policy.parameters: it is not stated, so no FLOPs follow; add it"
        )
    training = cost.training(split, reference, tried, parameters, multiple, length, pool.prompt)
    evaluation = cost.evaluation(split, pool, control, tried, parameters, samples, length)
    adapted = (settings or {}).get("lora", split.config.recipe.lora) is not None
    at_once = 1 if published else min(seeds, workers or os.cpu_count() or 1)
    timing = cost.timing(split, control, tried, published, precision, utilisation, training, evaluation, seeds, at_once)
    total = training.tokens.model_dump()
    for name, value in evaluation.tokens.model_dump().items():
        total[name] = seeds * (total[name] + value)
    return Planned(
        split=split.name,
        split_hash=split.hash,
        method=source.name,
        parameters=parameters,
        seeds=seeds,
        samples=samples,
        multiple=multiple,
        training=training,
        evaluation=evaluation,
        total_tokens=Tokens(**total),
        total_flops=seeds * (training.flops + evaluation.flops),
        timing=timing,
        space=cost.space(split, tried, published, training, evaluation, parameters, seeds, at_once, adapted=adapted),
        power=power_of(
            split,
            pool,
            multiple,
            seeds,
            samples,
            experiments,
            lambda share: tell(PART_OF_PROBE + (1 - PART_OF_PROBE) * share),
        ),
    )


class Power(Record):
    """The smallest gain that can be distinguished from 0; `detectable` is empty where `why_not` says why."""

    items: int
    families: int
    null_seeds: int
    null_shipped: bool
    null_conversion: float | None
    """Of the shipped null control."""
    world: Mapping[str, float]
    world_source: str
    world_conversion: float | None
    """Of the null in the simulated world: near `null_conversion` where the world describes it."""
    why_not: str | None
    detectable: Sequence[Detectable]
    """Of conversion."""
    detectable_frontier: Sequence[Detectable] = ()
    """Of the frontier score, were its items all unlearnable: of solved, on as many items as it weighs."""


def power_of(
    split: Split,
    pool: Pool,
    multiple: float,
    seeds: int,
    samples: int,
    experiments: int | None,
    progress: Callable[[float], None],
) -> Power:
    """Chance as measured by the split's null control, and which gains this design can distinguish from it."""
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
        probes = probes_of(split)
        if cells.enough and probes:
            items = [item for item in split.items if item.group == "unlearnable"]
            chance = control_outcomes(stand_in, items, probes, tau, "null control")
            rate = float(chance.converted.mean()) if chance.has_probe.any() else None  # without probes, unknown
        most = int(cells.n.max(initial=0))
    if pool.assumption is not None:
        told = f"{told}; {pool.assumption}"
    why = _no_power(split, len(families), seeds, samples, null_seeds, most)
    found: list[Detectable] = []
    frontier: list[Detectable] = []
    simulated = None
    if why is None:
        design = Design.of(families, seeds, null_seeds, samples, tau)
        half: Callable[[float], None] = lambda share: progress(share / 2)  # noqa: E731
        later: Callable[[float], None] = lambda share: progress(0.5 + share / 2)  # noqa: E731
        found = detectable(world, design, experiments=experiments or _experiments(design), progress=half)
        simulated = Simulation(world, design).null_rate
        if stand_in is not None and (around := _frontier_world(split, stand_in, design)):
            number = experiments or _experiments(around[1])
            frontier = detectable(*around, probed=False, experiments=number, progress=later)
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
        detectable_frontier=frontier,
    )


def _frontier_world(split: Split, control: Control, design: Design) -> tuple[World, Design] | None:
    """Chance among the frontier's items, as the null control shows it, and the same design on them."""
    items, weights = frontier_items(split)
    items = [item for item, weight in zip(items, weights, strict=True) if weight > 0]
    runs, families = [str(seed) for seed in control.seeds], [item.family for item in items]
    ids = [item.item_id for item in items]
    cells = Cells.of(read_phase(control.counts, "eval", ids, runs=runs, source="the null control"))
    world = world_of(cells, families) if items else None
    if world is None:
        return None
    return world, Design.of(families, design.seeds, design.null_seeds, design.samples, design.tau)


def _experiments(design: Design) -> int:
    """Experiments to simulate, a few seconds of work: fewer with many items, whose gains are easier to detect."""
    return max(EXPERIMENTS // 5, min(EXPERIMENTS, 300 * EXPERIMENTS // design.items))


def _no_power(split: Split, items: int, seeds: int, samples: int, null_seeds: int, null_samples: int) -> str | None:
    """Why a run of this design would have no gain that counts; None if it would."""
    if not items:
        return f"split {split.name} has no unlearnable items, so there is nothing to convert"
    if samples < MIN_SAMPLES:
        return f"{samples} samples per item and seed are fewer than the {MIN_SAMPLES} that `converted` needs"
    if null_samples > samples:
        return f"the null control has {null_samples} samples per item; take {null_samples} here too"
    if seeds < MIN_SEEDS:
        return f"the protocol asks for at least {MIN_SEEDS} seeds"
    if null_seeds < seeds:
        return f"the null control has {null_seeds} seeds, fewer than {seeds}; use fewer seeds, or add null seeds"
    return None
