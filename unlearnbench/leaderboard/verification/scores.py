"""The one place of the board that scores: counts and what does not follow from them in, a result out."""

from __future__ import annotations

import pyarrow as pa

from unlearnbench.harness.null_speed import over_null, why_unmetered
from unlearnbench.harness.run_config import total_cost, why_unfair
from unlearnbench.leaderboard.bundles.bundle import Bundle
from unlearnbench.leaderboard.verification.claims import method_record
from unlearnbench.records import Fates, Result, SpentBudget
from unlearnbench.scoring.score import RunFacts, score
from unlearnbench.splits import Split


def facts_of_bundle(bundle: Bundle, split: Split, fates: Fates) -> RunFacts:
    """What the board believes of a bundle beside its counts: its costs and method, and why it is not comparable."""
    stated, config, seeds = bundle.result, bundle.first.config, list(bundle.result.seeds)
    costs = [bundle.seeds[seed].cost for seed in seeds]
    used = [cost.flops for cost in costs]
    limit = None if split.config.budget is None else round(split.config.budget.flops_1x * config.budget)
    speed = None if bundle.speed is None else bundle.speed.cpu_seconds_per_flop
    ratio = over_null(speed, costs, limit)
    return RunFacts(
        method=method_record(bundle),
        seeds=seeds,
        samples=stated.samples,
        sampling=split.config.protocol.sampling,
        budget=SpentBudget(multiple=config.budget, limit=limit, used=used),
        cost=total_cost(costs).model_copy(update={"cpu_seconds_per_flop_over_null": ratio}),
        fates=fates,
        steps=stated.steps,
        similarity=stated.similarity,
        code_version=stated.code_version,
        why_not_comparable=why_unfair(split, config.budget, len(seeds), used, quick=config.quick)
        or why_unmetered(ratio),
    )


def facts_of_result(result: Result) -> RunFacts:
    """The same of an entry's result. A reason that left the gain defined is the scorer's own, which finds it again."""
    own_reason = result.comparable or result.conversion.gain is not None
    return RunFacts(
        method=result.method,
        seeds=result.seeds,
        samples=result.samples,
        sampling=result.sampling,
        budget=result.budget,
        cost=result.cost,
        fates=result.fates,
        steps=result.steps,
        similarity=result.similarity,
        code_version=result.code_version,
        kind=result.kind,
        why_not_comparable=None if own_reason else result.why_not_comparable,
    )


def scored(counts: pa.Table, split: Split, run: RunFacts) -> Result:
    """The result of these counts by the package's own score, against the split's own controls."""
    multiple = 1.0 if run.budget.multiple is None else run.budget.multiple
    return score(split, counts, run, split.control("null_control", f"{multiple:g}x"))
