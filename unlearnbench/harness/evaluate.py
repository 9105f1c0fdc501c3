"""The benchmark on one page: train a method for every seed, measure what it left, score it against the null control.

locate the method → seal the split → for every seed, in processes of their own: train, then measure
→ counts → fates → score → result.json and report.html
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench import __version__
from unlearnbench.errors import RunError
from unlearnbench.harness.evaluation_jobs import collect_counts, measure_policy, measure_start
from unlearnbench.harness.policy_ref import find_checkpoint, whole_policy
from unlearnbench.io import files, tables
from unlearnbench.methods import MethodSource, locate
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.records import READS, TRACKS, Cost, MethodRecord, Result, SpentBudget
from unlearnbench.scoring.fates import count_fates, fates
from unlearnbench.scoring.score import score
from unlearnbench.splits import Control, Split, load_split, seal
from unlearnbench.training.ledger import read_ledger
from unlearnbench.training.options import DEFAULT, TrainerOptions
from unlearnbench.workers.jobs import drawn_by, locked, run_chains, train_job, trained_with, weights_hash
from unlearnbench.workers.launcher_env import Launch
from unlearnbench.workers.multi_node import gathered
from unlearnbench.workers.privileged_data import POLICY, Privileges, asked
from unlearnbench.workers.worker_group import Event, Job

QUICK = {"steps": 24, "samples": 8, "seeds": 1}
SOURCE = "method.py"
"""The method's source as it was run, beside a seed's config.json."""
MERGED = "merged"
"""A checkpoint that was an adapter, merged into its base."""
BEGUN = ("checkpoint", "checkpoint.old", MERGED, "evaluation")
"""What only a run leaves in a seed's folder: with one of them it is this run's, or another's."""
PATIENCE = 1800.0
"""Seconds that a process may be silent: a step of a large policy takes minutes, one that hangs takes for ever."""
Progress = Callable[[Event], None]


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run's numbers; its fingerprint is what a folder may be resumed under."""

    split: Split
    method: MethodSource
    seeds: tuple[int, ...]
    samples: int
    multiple: float
    changes: Mapping[str, Any] = field(default_factory=dict)
    purpose: str = "eval"
    start: Path | None = None
    quick: bool = False
    patience: float | None = None
    processes: int = 1
    engine: Engine = TRANSFORMERS

    def configuration(self) -> dict[str, Any]:
        return _drawn(self.engine) | {
            "schema_version": 1,
            "split": self.split.name,
            "split_hash": self.split.hash,
            "split_seed": self.split.config.seed,
            "method": self.method.name,
            "source_hash": self.method.hash,
            "settings": dict(self.changes),
            "samples": self.samples,
            "budget": self.multiple,
            "purpose": self.purpose,
            "start": None if self.start is None else weights_hash(self.start),
            "quick": self.quick,
        }

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.configuration(), sort_keys=True).encode()).hexdigest()

    @property
    def limit(self) -> int | None:
        """FLOPs that a seed may spend; None for a split whose reference runs were not costed yet."""
        budget = self.split.config.budget
        return None if budget is None else round(budget.flops_1x * self.multiple)


def evaluate(
    method: str,
    split: str | Path | Split = "micro",
    seeds: int | Sequence[int] = 3,
    *,
    samples: int = 32,
    out: str | Path | None = None,
    budget: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
    workers: int | None = None,
    start: str | Path | None = None,
    purpose: str | None = None,
    patience: float | None = PATIENCE,
    processes: int = 1,
    launch: Launch | None = None,
    engine: Engine = TRANSFORMERS,
    trainer: TrainerOptions = DEFAULT,
    progress: Progress | None = None,
    placed: Callable[[Path], None] | None = None,
) -> Result:
    """Train `method` on `split` for every seed, evaluate, score, and write the run's folder.

    A folder that holds part of the same run is resumed; one of another configuration is refused with RunError.
    `start` names another policy to start from than the split's base (the positive control does). A process that says
    nothing for `patience` seconds is taken to hang. `processes` train each seed together, data-parallel, and share out
    its evaluation; with `launch`, those of all machines do, and on all but the first this ends in SystemExit.
    `engine` draws all rollouts, in training and evaluation; `trainer` says how this machine computes the training.
    `placed` is told the run's folder before anything starts. Raises MethodError, SplitError, RunError, VerifierError.
    """
    if samples < 1 or not budget > 0:
        raise RunError(f"samples {samples} and budget {budget} must both be above 0")
    if launch is not None:
        workers, processes = 1, launch.world
    engine.require()
    chosen = split if isinstance(split, Split) else load_split(split)
    source = locate(method)
    folder = None if out is None else Path(out)
    plan = Plan(
        split=chosen,
        method=source,
        seeds=(1,) if quick else _seeds(seeds),
        samples=QUICK["samples"] if quick else samples,
        multiple=budget,
        changes=dict(settings or {}),
        purpose=purpose or _purpose(chosen, source, folder),
        start=None if start is None else Path(start).resolve(),
        quick=quick,
        patience=patience,
        processes=processes,
        engine=engine,
    )
    folder = folder or default_folder(plan)
    if placed is not None:
        placed(folder)
    with gathered(folder, launch) as machines, locked(folder):
        _claim(plan, folder)
        sealed = seal(chosen, folder / ".sealed")
        chains = [_chain(plan, folder, sealed, seed) for seed in plan.seeds]
        at_once = workers or _at_once(len(chains), processes)
        run_chains(trained_with(trainer, drawn_by(engine, chains)), at_once, progress, machines)
        starts = [_start(plan, folder, seed) for seed in plan.seeds]
        run_chains(drawn_by(engine, starts), at_once, progress, machines)
        return score_run(plan, folder)


def evaluate_checkpoints(
    checkpoints: Sequence[str | Path],
    split: str | Path | Split = "micro",
    *,
    samples: int = 32,
    out: str | Path | None = None,
    workers: int | None = None,
    processes: int = 1,
    launch: Launch | None = None,
    engine: Engine = TRANSFORMERS,
    progress: Progress | None = None,
    placed: Callable[[Path], None] | None = None,
) -> Result:
    """Evaluate finished policies, one a seed, numbered from 1. Their track is `undeclared`: nothing was metered.

    A checkpoint is a policy's folder, a LoRA adapter of the split's base, or a name on the Hub. `processes`,
    `launch` and `placed` as for `evaluate`. Raises PolicyError.
    """
    engine.require()
    chosen = split if isinstance(split, Split) else load_split(split)
    policies = [find_checkpoint(path, chosen) for path in checkpoints]
    hashes = [weights_hash(path) for path in policies]
    name = hashlib.sha256("".join(hashes).encode()).hexdigest()
    folder = Path(out) if out else Path("runs") / chosen.name / f"checkpoint-{name[:8]}"
    if placed is not None:
        placed(folder)
    configuration = _drawn(engine) | {
        "schema_version": 1,
        "split": chosen.name,
        "split_hash": chosen.hash,
        "checkpoints": hashes,
        "samples": samples,
    }
    seeds = tuple(range(1, len(policies) + 1))
    if launch is not None:
        workers, processes = 1, launch.world
    with gathered(folder, launch) as machines, locked(folder):
        for seed in seeds:
            _claim_seed(folder, seed, configuration)
        chains = []
        for seed, path in zip(seeds, policies, strict=True):
            whole = whole_policy(path, chosen, folder / str(seed) / MERGED)
            chains.append([measure_policy(chosen, folder, seed, whole, samples, "checkpoint", processes)])
        run_chains(drawn_by(engine, chains), workers or _at_once(len(chains), processes), progress, machines)
        counts = collect_counts(folder, seeds)
        tables.write_parquet(folder / "counts.parquet", counts)
        result = score(
            chosen,
            counts,
            method=MethodRecord(name="checkpoint", source_hash=name, track="undeclared"),
            seeds=seeds,
            samples=samples,
            sampling=chosen.config.protocol.sampling,
            budget=SpentBudget(),
            cost=Cost(),
            kind="checkpoint",
            fates=None,
            null=chosen.control("null_control", "1x"),
            strong_null=chosen.control("strong_null"),
            code_version=__version__,
        )
        return _publish(folder, chosen, result)


def score_run(plan: Plan, folder: Path) -> Result:
    """Score a run from its files alone, and write counts, fates, result and report. Needs no torch."""
    split, seeds = plan.split, plan.seeds
    counts = collect_counts(folder, seeds)
    tables.write_parquet(folder / "counts.parquet", counts)
    visits = pa.concat_tables([_visits(folder / str(seed), seed) for seed in seeds])
    table = fates(visits, [item.item_id for item in split.items], list(seeds))
    tables.write_parquet(folder / "fates.parquet", table)
    records = [json.loads((folder / str(seed) / "method.json").read_text()) for seed in seeds]
    costs = [json.loads((folder / str(seed) / "cost.json").read_text()) for seed in seeds]
    reads = sorted({read for record in records for read in record["reads"]} | _asked(folder, seeds))
    track = max([*(record["track"] for record in records), *(READS[read] for read in reads)], key=_privilege)
    null, why = _null(plan)
    why = why or _overspent(plan, [cost["flops"] for cost in costs])
    result = score(
        split,
        counts,
        method=MethodRecord(
            name=plan.method.name,
            source_hash=plan.method.hash,
            track=track if plan.start is None else "base",
            reads=reads,
            settings=records[0]["settings"],
        ),
        seeds=seeds,
        samples=plan.samples,
        sampling=split.config.protocol.sampling,
        budget=SpentBudget(multiple=plan.multiple, limit=plan.limit, used=[cost["flops"] for cost in costs]),
        cost=_total(costs),
        fates=count_fates(table, split.ids("unlearnable")),
        null=null,
        strong_null=_strong_null(plan),
        why_not_comparable=why,
        code_version=__version__,
    )
    return _publish(folder, split, result)


# --- the parts of it ------------------------------------------------------------------------------------------


def _chain(plan: Plan, folder: Path, sealed: Path, seed: int) -> list[Job]:
    """Train one seed, then measure what it saved, each in a process of its own."""
    place, recipe = folder / str(seed), plan.split.config.recipe
    steps = QUICK["steps"] if plan.quick else (recipe.steps if plan.limit is None else None)
    train = train_job(
        plan.split,
        sealed,
        plan.method,
        seed,
        plan.purpose,
        place,
        fingerprint=plan.fingerprint,
        flops=None if plan.quick else plan.limit,
        steps=steps,
        changes=plan.changes,
        start=plan.start,
        answer=Privileges(plan.split, place).answer,
        patience=plan.patience,
        processes=plan.processes,
    )
    checkpoint = place / "checkpoint"
    measured = measure_policy(plan.split, folder, seed, checkpoint, plan.samples, plan.purpose, plan.processes)
    return [train, measured]


def _start(plan: Plan, folder: Path, seed: int) -> list[Job]:
    """Measure the policy that a seed started from, where it is not the split's base."""
    place = folder / str(seed)
    elsewhere = json.loads((place / "method.json").read_text()).get("start", "base") != "base"
    start = plan.start or (place / POLICY if elsewhere else None)
    if start is None:
        return []
    return [measure_start(plan.split, folder, seed, start, plan.samples, plan.purpose, plan.processes)]


def _at_once(chains: int, processes: int) -> int:
    """Seeds side by side, unless somebody says otherwise: as many as the cores allow for."""
    return min(chains, max(1, (os.cpu_count() or 1) // processes))


def _asked(folder: Path, seeds: Sequence[int]) -> set[str]:
    """What any seed asked its parent process for, as noted on this side."""
    return {name for seed in seeds for name in asked(folder / str(seed))}


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(range(1, seeds + 1)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise RunError(f"seeds {chosen} are no set of different numbers from 0; give --seeds 3, or a list of them")
    return chosen


def _purpose(split: Split, method: MethodSource, folder: Path | None) -> str:
    """`eval`, or `null` where GRPO fills the split's own null control (streams are disjoint by purpose)."""
    control = folder is not None and folder.resolve().is_relative_to(split.path / "null_control")
    return "null" if control and method.name == "grpo" else "eval"


def _drawn(engine: Engine) -> dict[str, Any]:
    """What a configuration says of the sampler: nothing of the usual one, as before there was another."""
    return {} if engine == TRANSFORMERS else {"sampler": asdict(engine)}


def default_folder(plan: Plan) -> Path:
    """runs/<split>/<method>-<hash>-<budget>, where the hash covers source and settings."""
    key = hashlib.sha256(f"{plan.method.hash}/{json.dumps(dict(plan.changes), sort_keys=True)}".encode()).hexdigest()
    name = f"{plan.method.name}-{key[:8]}-" + ("quick" if plan.quick else f"{plan.multiple:g}x")
    return Path("runs") / plan.split.name / name


def _claim(plan: Plan, folder: Path) -> None:
    for seed in plan.seeds:
        _claim_seed(folder, seed, plan.configuration())
        kept = folder / str(seed) / SOURCE  # what `submit` bundles, wherever the file is by then
        source = Path(plan.method.file).read_bytes()
        if not kept.is_file() or kept.read_bytes() != source:  # an attempt that came to nothing may have left another
            files.write_bytes(kept, source)


def _claim_seed(folder: Path, seed: int, configuration: Mapping[str, Any]) -> None:
    """Write the seed's config.json, or check that the one there is the same. Raises RunError naming what differs."""
    path = folder / str(seed) / "config.json"
    wanted = {**configuration, "seed": seed}
    begun = any((folder / str(seed) / name).exists() for name in BEGUN)
    if path.is_file() and begun:
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = {}
        different = [key for key in (*wanted, "sampler") if found.get(key) != wanted.get(key)]
        if different:
            key = different[0]
            raise RunError(
                f"{folder} holds another run ({key}: {found.get(key)!r} there, {wanted.get(key)!r} here); name "
                "another folder with --out, or remove it"
            )
        return
    files.write_json(path, wanted)


def _visits(place: Path, seed: int) -> pa.Table:
    """The training ledger of one seed, as `fates` reads it: what the policy drew in the items' own prompts."""
    table = read_ledger(place, ("step", "round", "item_id", "rollout", "correct", "valid_trace", "source"))
    table = table.filter(pc.equal(table["source"], "policy")).drop_columns(["source"])
    return table.append_column("seed", pa.array([seed] * table.num_rows, pa.int64()))


def _overspent(plan: Plan, used: Sequence[int]) -> str | None:
    """A run ends with the step that reaches its limit: more than a few reference steps above it is no fair run."""
    if plan.limit is None or plan.quick or plan.split.config.budget is None:
        return None
    step = plan.split.config.budget.flops_1x / plan.split.config.recipe.steps
    worst = max(used)
    if worst <= plan.limit + 5 * step:
        return None
    return (
        f"a seed spent {worst:.3g} FLOPs, {worst / plan.limit:.2f} times the limit of {plan.limit:.3g}; let the "
        "method spend less in one step, or give it a larger --budget"
    )


def _null(plan: Plan) -> tuple[Control | None, str | None]:
    """The null control to score against, and why the result is not comparable (None if it is)."""
    split = plan.split
    if plan.quick:
        return None, "--quick: fewer steps, one seed and 8 samples; run without --quick for a result that counts"
    if plan.purpose == "null":
        return None, None
    multiple = f"{plan.multiple:g}x"
    control = split.control("null_control", multiple)
    if control is None:
        return None, (
            f"split {split.name} has no null control at {multiple}; fill it with `unlearnbench eval --method grpo "
            f"--seeds 10 --split {split.path} --budget {multiple} --out {split.path / 'null_control' / multiple}`"
        )
    if len(control.seeds) < len(plan.seeds):
        return control, (
            f"the null control at {multiple} has {len(control.seeds)} seeds, fewer than the {len(plan.seeds)} of "
            "this run; use fewer seeds, or add null seeds"
        )
    return control, None


def _strong_null(plan: Plan) -> Control | None:
    """The strong null to score against: measured at 1x, and no control is compared with itself."""
    if plan.quick or plan.multiple != 1 or plan.purpose.startswith(("null", "strong")):
        return None
    return plan.split.control("strong_null")


def _total(costs: Sequence[Mapping[str, Any]]) -> Cost:
    """Costs summed over seeds."""
    names = ("generated_tokens", "trained_tokens", "forward_tokens", "flops", "verifier_calls", "ungradable")
    sums = {name: sum(int(cost[name]) for cost in costs) for name in names}
    return Cost(**sums, seconds=round(sum(cost["seconds"] for cost in costs), 3), device=costs[0]["device"])


def _privilege(track: str) -> int:
    return TRACKS.index(track)


def _publish(folder: Path, split: Split, result: Result) -> Result:
    from unlearnbench.reports.run_report import write_report

    files.write_json(folder / "result.json", result)
    write_report(folder, split, result)
    return result
