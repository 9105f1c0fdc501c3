"""The one place of the board that scores: counts and what does not follow from them in, a result out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from unlearnbench.harness.null_speed import over_null, why_unmetered
from unlearnbench.harness.run_config import total_cost, why_unfair
from unlearnbench.leaderboard.bundles.bundle import Bundle
from unlearnbench.leaderboard.verification.claims import method_record
from unlearnbench.records import Cost, Fates, MethodRecord, Result, Sampling, SpentBudget
from unlearnbench.scoring.score import score
from unlearnbench.splits import Split


@dataclass(frozen=True)
class Facts:
    """What of a result does not follow from its counts."""

    method: MethodRecord
    seeds: Sequence[int]
    samples: int
    sampling: Sampling
    budget: SpentBudget
    cost: Cost
    fates: Fates | None
    code_version: str
    kind: Literal["eval", "checkpoint", "score"]
    why_not_comparable: str | None
    null: bool
    """Whether it is scored against the split's null control of its budget."""
    strong_null: bool

    @classmethod
    def of_bundle(cls, bundle: Bundle, split: Split, fates: Fates) -> Facts:
        """As the board takes them: a bundle's costs and method, and its own reasons why it is not comparable."""
        stated, config, seeds = bundle.result, bundle.first.config, list(bundle.result.seeds)
        costs = [bundle.seeds[seed].cost for seed in seeds]
        used = [cost.flops for cost in costs]
        limit = None if split.config.budget is None else round(split.config.budget.flops_1x * config.budget)
        speed = None if bundle.speed is None else bundle.speed.cpu_seconds_per_flop
        ratio = over_null(speed, costs, limit)
        return cls(
            method=method_record(bundle),
            seeds=seeds,
            samples=stated.samples,
            sampling=split.config.protocol.sampling,
            budget=SpentBudget(multiple=config.budget, limit=limit, used=used),
            cost=total_cost(costs).model_copy(update={"cpu_seconds_per_flop_over_null": ratio}),
            fates=fates,
            code_version=stated.code_version,
            kind="eval",
            why_not_comparable=why_unfair(split, config.budget, len(seeds), used, quick=config.quick)
            or why_unmetered(ratio),
            null=not config.quick,
            strong_null=config.budget == 1 and not config.quick,
        )

    @classmethod
    def of_result(cls, result: Result) -> Facts:
        """As an entry's result has them."""
        return cls(
            method=result.method,
            seeds=result.seeds,
            samples=result.samples,
            sampling=result.sampling,
            budget=result.budget,
            cost=result.cost,
            fates=result.fates,
            code_version=result.code_version,
            kind=result.kind,
            why_not_comparable=None if result.comparable else result.why_not_comparable,
            null=result.conversion.null_hash is not None,
            strong_null=result.conversion.strong_null_seeds > 0,
        )


def scored(counts: pa.Table, split: Split, facts: Facts) -> Result:
    """The result of these counts by the package's own score, against the split's own controls."""
    return score(
        split,
        counts,
        method=facts.method,
        seeds=facts.seeds,
        samples=facts.samples,
        sampling=facts.sampling,
        budget=facts.budget,
        cost=facts.cost,
        code_version=facts.code_version,
        kind=facts.kind,
        fates=facts.fates,
        null=split.control("null_control", f"{facts.budget.multiple:g}x") if facts.null else None,
        strong_null=split.control("strong_null") if facts.strong_null else None,
        why_not_comparable=facts.why_not_comparable,
    )
