"""What a run will cost and what it can show, before any of it is paid for.

probe a few real steps → tokens and FLOPs → time, memory and disk; the split's null control → chance → smallest gain
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc

from unlearnbench import tables
from unlearnbench.conversion import MIN_SEEDS
from unlearnbench.devices import DEVICES, UTILISATION, Device
from unlearnbench.errors import RunError
from unlearnbench.grid import read_phase
from unlearnbench.jobs import Event, measure_job, measure_task, run_chains, train_job
from unlearnbench.methods import MethodSource, locate
from unlearnbench.moments import world_of
from unlearnbench.power import EXPERIMENTS, Detectable, detectable
from unlearnbench.records import Cost, Record
from unlearnbench.rule import MIN_SAMPLES, Cells, conversion_arm
from unlearnbench.simulation import Design, Simulation, World
from unlearnbench.splits import Control, Split, seal

PROBE_FLOPS = 1e11
"""What the steps of a probe may cost on CPU: seconds on a core. On an accelerator ACCELERATED times as much."""
ACCELERATED = 300
PROBE_STEPS = 10
PROBE_ROLLOUTS = 2048  # of an evaluation
ASSUMED_NULL_SEEDS = 10  # where a split ships none
BYTES_A_TOKEN = 4.0  # of a rollout on disk, compressed, where none was written to look at
CHARACTERS_A_TOKEN = 3.0  # of a prompt, where no run tells
BUSY = 0.8
"""With a smaller share of a core than this the probe says so."""
PART_OF_PROBE = 0.3  # of the progress bar


class Tokens(Record):
    generated: int
    prefilled: int
    forward: int
    trained: int

    def flops(self, parameters: int) -> int:
        """PROTOCOL 3.9."""
        return 2 * parameters * (self.generated + self.prefilled + self.forward) + 6 * parameters * self.trained

    def times(self, factor: float) -> Tokens:
        return Tokens(**{name: round(value * factor) for name, value in self.model_dump().items()})


class Work(Record):
    """One seed's training, or its evaluation."""

    tokens: Tokens
    flops: int
    rollouts: int
    source: str
    """Where these numbers come from, in words."""


class Timing(Record):
    """Seconds of one seed, and hours of all; None where nothing tells."""

    source: Literal["probe", "control", "published", "unknown"]
    device: str
    how: str
    training_seconds: float | None
    evaluation_seconds: float | None
    at_once: int
    """Seeds that run side by side."""
    hours: float | None
    reference_seconds: float | None
    """What a seed of the shipped null control took to train, on `reference_device`."""
    reference_device: str | None


class Space(Record):
    """Bytes: memory of one seed's process, disk of all seeds while they run."""

    memory: int
    memory_source: str
    fits: bool | None
    """Whether `memory` times the seeds at once fits in this machine's, or in the named device's; None if unknown."""
    available: int | None
    disk: int
    disk_source: str


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


@dataclass(frozen=True)
class Probe:
    """A few real steps of the method and a small evaluation, in worker processes as `eval` starts them."""

    steps: int
    prompts: int
    tokens: Tokens
    flops: int
    rollouts: int
    parameters: int | None
    step_seconds: float | None
    start_seconds: float
    rollouts_a_second: float
    evaluated_tokens: float  # generated, a rollout
    bytes_a_rollout: float  # of the training ledger
    bytes_an_evaluated: float
    memory: int
    core_share: float
    """CPU seconds a second of the workers: well below 1 where other work keeps the cores busy."""


def plan(
    split: Split,
    method: str = "grpo",
    *,
    seeds: int = 3,
    samples: int = 32,
    multiple: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    utilisation: float = UTILISATION,
    workers: int | None = None,
    experiments: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Planned:
    """What `eval` with the same arguments will cost, and the smallest conversion gain it can show.

    Raises RunError for a device that is not in the table, or where nothing tells what a seed costs; MethodError as
    the method's own steps do; SplitError and DataError as reading the split does.
    """
    source = locate(method)
    published = None if device is None else _device(device)
    tell = progress or (lambda _: None)
    control = split.control("null_control", f"{multiple:g}x") or split.control("null_control", "1x")
    grpo = source.module == "unlearnbench.methods.grpo" and not settings
    reference = control if grpo and control is not None and control.result is not None else None
    probe = None
    if (published is None or reference is None) and (prompts := _affordable(split)):
        probe = _probe(split, source, settings or {}, samples, prompts, lambda share: tell(PART_OF_PROBE * share))
    tell(PART_OF_PROBE)
    parameters = split.config.base_policy.parameters or (probe.parameters if probe else None)
    if parameters is None:
        raise RunError(
            f"{split.path / 'split.yaml'}, field base_policy.parameters: it is not stated, so no FLOPs follow; add it"
        )
    training = _training(split, reference, probe, parameters, multiple)
    evaluation = _evaluation(split, control, probe, parameters, samples)
    at_once = 1 if published else min(seeds, workers or os.cpu_count() or 1)
    timing = _timing(split, control, probe, published, utilisation, training, evaluation, seeds, at_once)
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
        space=_space(split, probe, published, training, evaluation, parameters, seeds, at_once),
        power=_power(
            split,
            multiple,
            seeds,
            samples,
            experiments,
            lambda share: tell(PART_OF_PROBE + (1 - PART_OF_PROBE) * share),
        ),
    )


# --- the probe ------------------------------------------------------------------------------------------------


def _affordable(split: Split) -> int:
    """Prompts of a step that can be tried here in seconds; 0 if not even one, or if the policy is not on this disk."""
    if not isinstance(split.policy_path, Path):
        return 0
    recipe, size = split.config.recipe, split.config.base_policy.parameters
    if split.config.budget is not None:
        step = split.config.budget.flops_1x / recipe.steps
    elif size is not None:
        # every token is generated, and at most read once more and trained on
        step = 10.0 * size * recipe.prompts_per_step * recipe.group_size * recipe.max_tokens
    else:
        return 0
    most = PROBE_FLOPS * (ACCELERATED if _accelerated() else 1)
    return min(recipe.prompts_per_step, int(recipe.prompts_per_step * most / (PROBE_STEPS * max(step, 1.0))))


def _probe(
    split: Split,
    source: MethodSource,
    changes: Mapping[str, Any],
    samples: int,
    prompts: int,
    progress: Callable[[float], None],
) -> Probe:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = train_job(
            split,
            seal(split, folder / "sealed"),
            source,
            1,
            "plan",
            folder / "run",
            fingerprint="plan",
            flops=None,
            steps=PROBE_STEPS,
            changes=changes,
            kind="check",
            recipe={"prompts_per_step": prompts, "checkpoint_every": PROBE_STEPS},
        )
        began, spent, times, last = time.monotonic(), _seconds_of_children(), [], dict[str, Any]()

        def heard(event: Event) -> None:
            if "progress" in event:
                times.append(time.monotonic())
                progress(min(1.0, len(times) / (PROBE_STEPS + 1)))
            last.update(event)

        run_chains([[job]], 1, heard)
        found = last["checked"]
        cost = found["cost"]
        out = folder / "evaluation.parquet"
        items = split.items[:: max(1, len(split.items) * samples // PROBE_ROLLOUTS)]
        problems = [(item.item_id, item.prompt, item.answer) for item in items]
        task = measure_task(out, "plan/measure", problems, "item_id", samples)
        run_chains(
            [[measure_job(split, split.policy_path, [task], folder / "log.txt", seed=1, stage="measure")]], 1, heard
        )
        rows = tables.read_parquet(out)
        drawn = cost["verifier_calls"]
        tokens = Tokens(**{name: cost[name] for name in ("generated", "prefilled", "forward", "trained")})
        paid = tokens.flops(1)
        return Probe(
            steps=found["steps"],
            prompts=prompts,
            tokens=tokens,
            flops=cost["flops"],
            rollouts=drawn,
            parameters=round(cost["flops"] / paid) if paid else None,
            step_seconds=(times[found["steps"] - 1] - times[0]) / (found["steps"] - 1) if found["steps"] > 1 else None,
            start_seconds=times[0] - began,
            rollouts_a_second=float(last["progress"]["rate"]),
            evaluated_tokens=float(pc.mean(pc.list_value_length(rows["token_ids"])).as_py()),
            bytes_a_rollout=_size(folder / "run" / "rollouts") / drawn if drawn else 0.0,
            bytes_an_evaluated=out.stat().st_size / rows.num_rows,
            memory=_peak_of_children(),
            core_share=min(1.0, (_seconds_of_children() - spent) / (time.monotonic() - began)),
        )


def _accelerated() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _seconds_of_children() -> float:
    """CPU seconds of all workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_of_children() -> int:
    """Bytes that the largest worker so far held at its peak."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


# --- cost -----------------------------------------------------------------------------------------------------


def _device(name: str) -> Device:
    for known, device in DEVICES.items():
        if known.lower() == name.lower():
            return device
    raise RunError(f"there are no published figures here for a device {name!r}; give one of {', '.join(DEVICES)}")


def _of_cost(split: Split, cost: Cost) -> Tokens:
    """GRPO's tokens by kind: besides prompts, the reference policy reads what is trained, where there is a KL term."""
    forward = min(cost.trained_tokens, cost.forward_tokens) if split.config.recipe.kl else 0
    return Tokens(
        generated=cost.generated_tokens,
        prefilled=cost.forward_tokens - forward,
        forward=forward,
        trained=cost.trained_tokens,
    )


def _training(split: Split, reference: Control | None, probe: Probe | None, parameters: int, multiple: float) -> Work:
    """One seed: the tokens that were measured, scaled to the budget."""
    recipe, budget = split.config.recipe, split.config.budget
    limit = None if budget is None else budget.flops_1x * multiple
    if reference is not None and reference.result is not None and reference.result.cost.flops:
        cost, runs = reference.result.cost, len(reference.result.seeds)
        whole = _of_cost(split, cost)
        flops = cost.flops / runs
        factor = (limit or flops) / flops
        tokens = whole.times(factor / runs)
        return Work(
            tokens=tokens,
            flops=tokens.flops(parameters),
            rollouts=round(cost.verifier_calls * factor / runs),
            source=f"the shipped null control ({runs} seeds of GRPO), scaled to the budget",
        )
    if probe is not None:
        if not probe.flops:
            return Work(tokens=probe.tokens, flops=0, rollouts=0, source="the method spent nothing in its first steps")
        one = probe.flops / probe.steps * recipe.prompts_per_step / probe.prompts
        factor = (limit or one * recipe.steps) / probe.flops
        tokens = probe.tokens.times(factor)
        where = "the budget" if limit else f"the recipe's {recipe.steps} steps, as the split has no budget yet"
        return Work(
            tokens=tokens,
            flops=tokens.flops(parameters),
            rollouts=round(probe.rollouts * factor),
            source=f"{probe.steps} first steps of the method, scaled to {where}",
        )
    if limit is not None:
        # A rollout of the greatest length costs most: its tokens, and as many read and trained on.
        length = round(limit / (10.0 * parameters))
        return Work(
            tokens=Tokens(generated=length, prefilled=0, forward=length, trained=length),
            flops=round(limit),
            rollouts=-(-length // recipe.max_tokens),
            source="the budget alone, as if every token were generated, read once more and trained on",
        )
    raise RunError(
        f"nothing tells what a seed costs on split {split.name}: it has no budget and no null control, and its policy "
        "cannot be tried here in seconds; label it with `unlearnbench curate`, which measures the budget"
    )


def _evaluation(split: Split, control: Control | None, probe: Probe | None, parameters: int, samples: int) -> Work:
    """One seed: items, the unlearnable items' twins, and canaries, `samples` times each."""
    unlearnable = set(split.ids("unlearnable"))
    twins = sum(twin.item_id in unlearnable for twin in split.twins)
    problems = len(split.items) + twins + len(split.canaries)
    rollouts = problems * samples
    cost = None if control is None or control.result is None else control.result.cost
    if probe is not None:
        length, source = probe.evaluated_tokens, "rollouts of the base policy, measured now"
    elif cost is not None and cost.verifier_calls:
        length = cost.generated_tokens / cost.verifier_calls
        source = "the null control's mean length in training"
    else:
        length, source = float(split.config.protocol.sampling.max_tokens), "every rollout as long as it may be"
    if probe is not None and probe.rollouts:
        prompt = probe.tokens.prefilled / probe.rollouts * split.config.recipe.group_size
    elif cost is not None and cost.verifier_calls:
        prompt = _of_cost(split, cost).prefilled / cost.verifier_calls * split.config.recipe.group_size
    else:
        prompt = sum(len(item.prompt) for item in split.items) / max(1, len(split.items)) / CHARACTERS_A_TOKEN
    tokens = Tokens(generated=round(rollouts * length), prefilled=round(problems * prompt), forward=0, trained=0)
    return Work(
        tokens=tokens,
        flops=tokens.flops(parameters),
        rollouts=rollouts,
        source=f"{len(split.items)} items, {twins} twins and {len(split.canaries)} canaries x {samples}; {source}",
    )


def _timing(
    split: Split,
    control: Control | None,
    probe: Probe | None,
    published: Device | None,
    utilisation: float,
    training: Work,
    evaluation: Work,
    seeds: int,
    at_once: int,
) -> Timing:
    result = None if control is None else control.result
    reference = None if result is None or not result.cost.flops else result.cost
    source: Literal["probe", "control", "published", "unknown"]
    train: float | None
    evaluate: float | None
    if published is not None:
        speed = published.flops * utilisation
        source, device = "published", published.name
        train, evaluate = training.flops / speed, evaluation.flops / speed
        how = (
            f"{published.source}; at {100 * utilisation:g} % of that peak, which is an assumption (a small policy "
            "waits for its kernels instead)"
        )
    elif probe is not None:
        source, device = "probe", "this machine"
        seconds = probe.step_seconds
        train = 0.0 if not training.flops else None
        if seconds is not None and probe.flops:
            train = probe.start_seconds + training.flops * seconds * probe.steps / probe.flops
        evaluate = probe.start_seconds + evaluation.rollouts / probe.rollouts_a_second
        how = f"{probe.steps} real steps and some {PROBE_ROLLOUTS} rollouts, with the machine as busy as now"
        if probe.core_share < BUSY and not _accelerated():
            how += f" (the probe had {100 * probe.core_share:.0f} % of a core: on a free one it takes that share of it)"
        if probe.prompts < split.config.recipe.prompts_per_step:
            how += f", with {probe.prompts} of {split.config.recipe.prompts_per_step} prompts a step"
    elif reference is not None:
        source, device = "control", reference.device
        speed = reference.flops / reference.seconds
        train, evaluate = training.flops / speed, evaluation.flops / speed
        how = "the shipped null control's seconds of training; evaluation as if it ran at the same FLOP/s"
    else:
        source, device, train, evaluate = "unknown", "this machine", None, None
        how = "a step takes too long to try here; name a device with --device"
    rounds = -(-seeds // at_once)
    whole = None if train is None or evaluate is None else (train + evaluate) * rounds / 3600
    return Timing(
        source=source,
        device=device,
        how=how,
        training_seconds=train,
        evaluation_seconds=evaluate,
        at_once=at_once,
        hours=whole,
        reference_seconds=None if reference is None or result is None else reference.seconds / len(result.seeds),
        reference_device=None if reference is None else reference.device,
    )


def _space(
    split: Split,
    probe: Probe | None,
    published: Device | None,
    training: Work,
    evaluation: Work,
    parameters: int,
    seeds: int,
    at_once: int,
) -> Space:
    if probe is not None and published is None and probe.prompts == split.config.recipe.prompts_per_step:
        memory, told = probe.memory, "the largest worker of the probe at its peak"
    else:
        # float32 weights, gradients, two moments of Adam, and the reference policy
        memory, told = 20 * parameters, "weights, gradients, Adam's moments, reference policy (20 bytes a parameter)"
        told += "; activations and the cache of keys and values come on top"
    available = published.memory if published is not None else _memory_of_machine()
    length = training.tokens.generated / max(1, training.rollouts)
    a_rollout = probe.bytes_a_rollout if probe else BYTES_A_TOKEN * length
    evaluated = probe.bytes_an_evaluated if probe else BYTES_A_TOKEN * length
    # Of a checkpoint: weights and two moments, and the one before until the new one is in place.
    a_seed = training.rollouts * a_rollout + evaluation.rollouts * evaluated + 2 * 12 * parameters
    return Space(
        memory=memory,
        memory_source=told,
        fits=None if available is None else memory * at_once <= available,
        available=available,
        disk=round(seeds * a_seed),
        disk_source="rollouts "
        + ("as the probe wrote them" if probe else f"at {BYTES_A_TOKEN:g} bytes a token")
        + " and two checkpoints (24 bytes a parameter) a seed",
    )


def _memory_of_machine() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


# --- power ----------------------------------------------------------------------------------------------------


def _power(
    split: Split,
    multiple: float,
    seeds: int,
    samples: int,
    experiments: int | None,
    progress: Callable[[float], None],
) -> Power:
    """Chance as the split's null control shows it, and what can be told from it with this design."""
    tau = split.config.protocol.tau
    items = [item for item in split.items if item.group == "unlearnable"]
    families = [item.family for item in items]
    control = split.control("null_control", f"{multiple:g}x")
    shipped = control is not None
    null_seeds = max(ASSUMED_NULL_SEEDS, seeds) if control is None else len(control.seeds)
    world, told, rate, most = World(), "assumed: the split has no null control", None, samples
    stand_in = control or split.control("null_control", "1x")
    if stand_in is not None and items:
        runs = [str(seed) for seed in stand_in.seeds]
        ids = [item.item_id for item in items]
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
    why = _no_power(split, items, seeds, samples, null_seeds, most)
    found: list[Detectable] = []
    simulated = None
    if why is None:
        design = Design.of(families, seeds, null_seeds, samples, tau)
        found = detectable(world, design, experiments=experiments or _experiments(design), progress=progress)
        simulated = Simulation(world, design).null_rate
    progress(1.0)
    parts = ("base", "family", "item", "run", "family_run", "item_run")
    return Power(
        items=len(items),
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


def _no_power(
    split: Split, items: Sequence[Any], seeds: int, samples: int, null_seeds: int, null_samples: int
) -> str | None:
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
