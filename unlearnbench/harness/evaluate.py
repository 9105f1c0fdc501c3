"""The benchmark on one page: train a method for every seed, measure what it left, score it against the null control.

locate the method → seal the split → for every seed, in processes of their own: train before the judge, then measure
→ counts → fates → score → result.json and report.html
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from unlearnbench import __version__
from unlearnbench.errors import RunError
from unlearnbench.harness.evaluation_jobs import collect_counts, measure_policy, measure_start
from unlearnbench.harness.judge import track_of
from unlearnbench.harness.null_speed import null_speed, over_null, read_speed, why_unmetered
from unlearnbench.harness.policy_ref import find_checkpoint, whole_policy
from unlearnbench.harness.privileged import POLICY, asked
from unlearnbench.harness.progress_file import ProgressFile
from unlearnbench.harness.run_config import (
    MERGED,
    QUICK,
    RunConfig,
    claim_seed,
    null_of,
    purpose_of,
    sampler_of,
    seeds_of,
    total_cost,
    why_unfair,
)
from unlearnbench.harness.training_jobs import Run, keep_source, training_job
from unlearnbench.io import tables
from unlearnbench.io.files import write_json
from unlearnbench.io.folder_lock import locked
from unlearnbench.methods import locate
from unlearnbench.records import READS, TRACKS, Cost, MethodRecord, Result, SpentBudget, Steps, Track
from unlearnbench.scoring.curves import training_curves
from unlearnbench.scoring.fates import count_fates, fates_of
from unlearnbench.scoring.score import RunFacts, score
from unlearnbench.splits import Split, load_split, seal
from unlearnbench.training.ledger import read_visits
from unlearnbench.verifier import Verifier
from unlearnbench.workers.executor import executor_of, run_chains
from unlearnbench.workers.jobs import Compute, Job, Watch, weights_hash

Placed = Callable[[Path], None]
"""Called once with the run's folder, before any job starts."""


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
    compute: Compute | None = None,
    progress: Watch | None = None,
    placed: Placed | None = None,
) -> Result:
    """Train `method` on `split` for every seed, evaluate, score, and write the run's folder.

    A folder that holds part of the same run is resumed; one of another configuration is refused. `samples`: rollouts
    per item and seed. `out`: the run's folder, by default `RunConfig.default_folder`. `budget`: a multiple of the
    reference runs' mean cost. `settings` change the method's own. `quick`: one seed, few steps and samples, not
    comparable. `compute`: processes, sampler and device; results depend on it up to rounding and the sampler's draws.
    Raises MethodError, SplitError, RunError, PolicyError, VerifierError.
    """
    if samples < 1 or not budget > 0:
        raise RunError(f"samples {samples} and budget {budget} must both be above 0")
    compute = compute or Compute()
    chosen = split if isinstance(split, Split) else load_split(split)
    source = locate(method)
    folder = None if out is None else Path(out)
    config = RunConfig(
        split=chosen,
        method=source,
        seeds=(1,) if quick else seeds_of(seeds),
        samples=QUICK["samples"] if quick else samples,
        multiple=budget,
        settings=dict(settings or {}),
        purpose=purpose_of(chosen, source, folder),
        quick=quick,
        engine=compute.engine,
    )
    return evaluate_run(config, folder, compute, progress, placed)


def evaluate_run(
    config: RunConfig,
    folder: Path | None = None,
    compute: Compute | None = None,
    progress: Watch | None = None,
    placed: Placed | None = None,
) -> Result:
    """The same for a configuration built by the caller, such as that of a split's control."""
    compute = compute or Compute(engine=config.engine)
    compute.engine.require()
    folder = folder or config.default_folder
    executor = executor_of(compute)
    executor.require(folder, compute.processes)
    at_once = executor.at_once(len(config.seeds), compute)
    with locked(folder), Verifier(rule=config.split.config.protocol.verifier_rule, workers=at_once) as verifier:
        watch = ProgressFile(folder, f"{config.method.name} on {config.split.name}", config.seeds, progress)
        for seed in config.seeds:
            claim_seed(folder, seed, config.configuration())
            keep_source(config.method, folder / str(seed))
        if not config.quick:
            null_speed(config.split, compute, folder)
        run = _run(config, folder, compute)
        if placed is not None:
            placed(folder)
        chains = [_chain(config, run, folder, seed, verifier) for seed in config.seeds]
        run_chains(chains, at_once, watch, executor)
        run_chains([_start(config, folder, seed, compute) for seed in config.seeds], at_once, watch, executor)
        return score_run(config, folder)


def evaluate_checkpoints(
    checkpoints: Sequence[str | Path],
    split: str | Path | Split = "micro",
    *,
    samples: int = 32,
    out: str | Path | None = None,
    compute: Compute | None = None,
    progress: Watch | None = None,
    placed: Placed | None = None,
) -> Result:
    """Evaluate finished policies, one per seed, numbered from 1. Their track is `undeclared`: nothing was metered.

    A checkpoint is a policy's folder, a LoRA adapter of the split's base, or a name on the Hub. Raises PolicyError.
    """
    compute = compute or Compute()
    compute.engine.require()
    chosen = split if isinstance(split, Split) else load_split(split)
    policies = [find_checkpoint(path, chosen) for path in checkpoints]
    hashes = [weights_hash(path) for path in policies]
    name = hashlib.sha256("".join(hashes).encode()).hexdigest()
    folder = Path(out) if out else Path("runs") / chosen.name / f"checkpoint-{name[:8]}"
    configuration = sampler_of(compute.engine) | {
        "schema_version": 1,
        "split": chosen.name,
        "split_hash": chosen.hash,
        "checkpoints": hashes,
        "samples": samples,
    }
    seeds = tuple(range(1, len(policies) + 1))
    executor = executor_of(compute)
    executor.require(folder, compute.processes)
    with locked(folder):
        for seed in seeds:
            claim_seed(folder, seed, configuration)
        chains = []
        for seed, path in zip(seeds, policies, strict=True):
            whole = whole_policy(path, chosen, folder / str(seed) / MERGED)
            chains.append([measure_policy(chosen, folder, seed, whole, samples, "checkpoint", compute)])
        if placed is not None:
            placed(folder)
        watch = ProgressFile(folder, f"checkpoints on {chosen.name}", seeds, progress)
        run_chains(chains, executor.at_once(len(chains), compute), watch, executor)
        counts = collect_counts(folder, seeds)
        tables.write_parquet(folder / "counts.parquet", counts)
        facts = RunFacts(
            method=MethodRecord(name="checkpoint", source_hash=name, track="undeclared"),
            seeds=seeds,
            samples=samples,
            sampling=chosen.config.protocol.sampling,
            budget=SpentBudget(),
            cost=Cost(),
            kind="checkpoint",
            code_version=__version__,
        )
        return _publish(folder, chosen, score(chosen, counts, facts, null_of(chosen, 1.0)))


def score_run(config: RunConfig, folder: Path) -> Result:
    """Score a run from its files alone, and write counts, fates, result and report. Needs no torch."""
    split, seeds = config.split, config.seeds
    counts = collect_counts(folder, seeds)
    tables.write_parquet(folder / "counts.parquet", counts)
    visits = pa.concat_tables([read_visits(folder / str(seed), seed) for seed in seeds])
    table = fates_of(visits, [item.item_id for item in split.items], list(seeds))
    tables.write_parquet(folder / "fates.parquet", table)
    groups = {item.item_id: item.group for item in split.items}
    tables.write_parquet(folder / "curves.parquet", training_curves(visits, groups))
    records = [json.loads((folder / str(seed) / "method.json").read_text()) for seed in seeds]
    costs = [Cost.model_validate_json((folder / str(seed) / "cost.json").read_text()) for seed in seeds]
    reads = sorted({read for record in records for read in record["reads"]} | _asked(folder, seeds))
    used = [cost.flops for cost in costs]
    is_null = config.purpose == "null"  # the null control itself, which is compared with nothing
    null = None if config.quick or is_null else null_of(split, config.multiple)
    ratio = over_null(read_speed(folder), costs, config.limit)
    why_not = None if is_null else why_unfair(split, config.multiple, len(seeds), used, quick=config.quick)
    why_not = why_not or why_unmetered(ratio)
    facts = RunFacts(
        method=MethodRecord(
            name=config.method.name,
            source_hash=config.method.hash,
            track="base" if config.start is not None else _track(records, reads),
            reads=reads,
            settings=records[0]["settings"],
        ),
        seeds=seeds,
        samples=config.samples,
        sampling=split.config.protocol.sampling,
        budget=SpentBudget(multiple=config.multiple, limit=config.limit, used=used),
        cost=total_cost(costs).model_copy(update={"cpu_seconds_per_flop_over_null": ratio}),
        fates=count_fates(table, split.ids("unlearnable")),
        steps=_steps(config, folder),
        why_not_comparable=why_not,
        own_control=is_null,
        code_version=__version__,
    )
    return _publish(folder, split, score(split, counts, facts, null))


# --- the parts of it ------------------------------------------------------------------------------------------


def _run(config: RunConfig, folder: Path, compute: Compute) -> Run:
    return Run(
        split=config.split,
        sealed=seal(config.split, folder / ".sealed"),
        method=config.method,
        purpose=config.purpose,
        fingerprint=config.fingerprint,
        limits=config.limits,
        compute=compute,
        changes=config.settings,
        start=config.start,
        hidden=config.hidden,
    )


def _chain(config: RunConfig, run: Run, folder: Path, seed: int, verifier: Verifier) -> list[Job]:
    """Train one seed, then measure the weights that it left."""
    place = folder / str(seed)
    trained = training_job(run, seed, place, verifier)
    checkpoint = place / "checkpoint"
    measured = measure_policy(config.split, folder, seed, checkpoint, config.samples, config.purpose, run.compute)
    return [trained, measured]


def _start(config: RunConfig, folder: Path, seed: int, compute: Compute) -> list[Job]:
    """Measure the policy that a seed started from, where it is not the split's base."""
    place = folder / str(seed)
    elsewhere = json.loads((place / "method.json").read_text()).get("start", "base") != "base"
    start = config.start or (place / POLICY if elsewhere else None)
    if start is None:
        return []
    return [measure_start(config.split, folder, seed, start, config.samples, config.purpose, compute)]


def _asked(folder: Path, seeds: Sequence[int]) -> set[str]:
    """The privileged things that any seed asked the judge for."""
    return {name for seed in seeds for name in asked(folder / str(seed))}


def _track(records: Sequence[Mapping[str, Any]], reads: Sequence[str]) -> Track:
    """The highest track over the seeds, by what was declared and what was read (PROTOCOL 3.9)."""
    tracks = {record["track"] for record in records}
    return max((track_of(track, [read for read in reads if read in READS]) for track in tracks), key=TRACKS.index)


def _steps(config: RunConfig, folder: Path) -> Steps:
    """Steps made, on average over seeds, and planned by the recipe at this budget."""
    made = [json.loads((folder / str(seed) / "checkpoint/state.json").read_text())["step"] for seed in config.seeds]
    planned = QUICK["steps"] if config.quick else round(config.split.config.recipe.steps * config.multiple)
    return Steps(made=sum(made) / len(made), planned=planned)


def _publish(folder: Path, split: Split, result: Result) -> Result:
    """Write result.json and report.html."""
    from unlearnbench.reports.run_report import write_report

    write_json(folder / "result.json", result)
    write_report(folder, split, result)
    return result
