"""The score: which unlearnable items a method converted, beyond what the null control converts by itself.

PROTOCOL 3, score version 2. Everything follows from integers (n, correct) of items, twins and canaries in each seed;
no text, no torch. `score` reads top to bottom like result.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.records import (
    Conversion,
    Cost,
    CountOf,
    FamilyConversion,
    Fates,
    Item,
    MethodRecord,
    NaiveConversion,
    Result,
    Sampling,
    SimilarityScore,
    SpentBudget,
    Steps,
)
from unlearnbench.scoring.canaries import solved_canaries
from unlearnbench.scoring.conversion_rule import rule_sentence, share_arm
from unlearnbench.scoring.counts import MIN_SAMPLES, Cells, read_phase
from unlearnbench.scoring.frontier import frontier
from unlearnbench.scoring.group_scores import Measured, group_scores, mean, retention
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.inference.permutation import p_gain
from unlearnbench.scoring.nulls import ceiling, control_outcomes, easy_cells, tuned_null
from unlearnbench.scoring.outcomes import Outcomes, outcomes_of
from unlearnbench.scoring.probes import probes_are_similar, probes_of
from unlearnbench.scoring.rates import Reals
from unlearnbench.scoring.twin_scores import twin_scores

if TYPE_CHECKING:
    from unlearnbench.splits import Control, Split

SCORER_VERSION = "2.0"
MIN_SEEDS = 3
MIN_FAMILIES = 3
"""A gain that lies in fewer families than this is called 'in FAMILY only'."""


@dataclass(frozen=True)
class RunFacts:
    """What is known about a run besides its counts."""

    method: MethodRecord
    seeds: Sequence[int]
    samples: int
    sampling: Sampling
    budget: SpentBudget
    cost: Cost
    code_version: str
    kind: Literal["eval", "checkpoint", "score"] = "eval"
    fates: Fates | None = None
    steps: Steps | None = None
    similarity: SimilarityScore | None = None
    why_not_comparable: str | None = None
    """The caller's reason (a quick or partial run); the gain is then null, and items without rows are left out."""
    own_control: bool = False
    """Whether the run is the null control itself, which is compared with nothing, and comparable."""


def score(split: Split, counts: pa.Table, run: RunFacts, null: Control | None = None) -> Result:
    """Score the counts of one method: phases start, eval, twin, canary; `run` is the seed, `item_id` of twins their id.

    `null` is the null control at the run's budget. A result that is not comparable says why, and has no gain. Raises
    DataError naming item, phase and run: a row that is missing, foreign, repeated or impossible, or a number of samples
    other than `run.samples`.
    """
    tau, runs, samples = split.config.protocol.tau, [str(seed) for seed in run.seeds], run.samples
    measured = _measured(split, counts, run, runs)
    unlearnable = [measured.items[row] for row in measured.rows("unlearnable")]
    probes = probes_of(split)
    partial = run.why_not_comparable is not None
    method = outcomes_of(counts, unlearnable, probes, runs, tau, "counts", gaps=partial) if measured.defined else None
    why_not = run.why_not_comparable or _why_not_comparable(split, run, null)
    if why_not is None and probes and method is not None and not method.has_probe.any():
        why_not = "the probes were not measured, so nothing is known to be converted; add rollouts of the twins"
    null_outcomes = None
    if not partial and method is not None and null is not None and len(null.seeds) >= len(run.seeds):
        null_outcomes = control_outcomes(null, unlearnable, probes, tau, "null control")
        if null_outcomes.samples > samples:
            # with fewer samples, items are solved by chance more often, and here that would favour the method
            why_not = (
                f"the null control has {null_outcomes.samples} samples per item and this run {samples}; take as many "
                "here"
            )
            null_outcomes = None
        elif method.has_probe.any() and not null_outcomes.has_probe.any():  # else all that is converted would be gain
            why_not = "the null control's probes were not measured, so what it converts is unknown; evaluate it again"
            null_outcomes = None
    compared = null if null_outcomes is not None else None  # below, a null that cannot be compared with is none
    retained = retention(measured, None if compared is None else easy_cells(split, compared))
    return Result(
        code_version=run.code_version,
        scorer_version=SCORER_VERSION,
        kind=run.kind,
        comparable=why_not is None,
        why_not_comparable=why_not,
        split=split.name,
        split_hash=split.hash,
        method=run.method,
        seeds=list(run.seeds),
        samples=samples,
        sampling=run.sampling,
        budget=run.budget,
        groups=group_scores(measured, method),
        conversion=_conversion(split, unlearnable, measured, method, null_outcomes, compared, retained.easy_lost),
        frontier=frontier(split, counts if measured.defined else None, runs, compared),
        twins=twin_scores(split, counts, unlearnable, method, compared, null_outcomes, runs),
        thin=_thin(unlearnable, method),
        canaries=solved_canaries(split, counts, runs, tau),
        fates=run.fates,
        retention=retained,
        steps=run.steps,
        cost=run.cost,
        similarity=run.similarity,
    )


def _measured(split: Split, counts: pa.Table, run: RunFacts, runs: Sequence[str]) -> Measured:
    """The items that were evaluated (all of them, unless the run is partial) and their counts."""
    items: Sequence[Item] = split.items
    ids = [item.item_id for item in items]
    after = Cells.of(read_phase(counts, "eval", ids, runs=runs, strict=True))
    if run.why_not_comparable is not None:  # the run may be partial: score the items that have rows in every seed
        kept = after.n.min(axis=1, initial=run.samples) > 0
        items, after = [item for item, there in zip(items, kept, strict=True) if there], after[kept]
        ids = [item.item_id for item in items]
    elif (wrong := np.argwhere(after.n != run.samples)).size:
        row, seed = wrong[0]
        raise DataError(
            f"counts: item {ids[row]!r}, phase eval, run {runs[seed]!r}: n is {after.n[row, seed]}, and every item "
            f"must have {run.samples} samples in every seed; evaluate what is missing"
        )
    fresh = Cells.of(read_phase(split.counts(), "base_fresh", ids, source=f"split {split.name}"))
    before = Cells(fresh.correct.sum(axis=1, keepdims=True), fresh.n.sum(axis=1, keepdims=True))
    start = Cells.of(read_phase(counts, "start", ids))
    return Measured(
        items=items,
        after=after,
        before=before,
        # what a checkpoint or foreign rollouts were trained from is unknown
        start=start if start.runs else before if run.kind == "eval" else None,
        tau=split.config.protocol.tau,
        samples=run.samples,
        defined=run.samples >= MIN_SAMPLES and (after.enough or not items),
    )


def _why_not_comparable(split: Split, run: RunFacts, null: Control | None) -> str | None:
    """Why a result of these seeds, samples and null has no gain, in one sentence; None if nothing prevents it."""
    seeds = len(run.seeds)
    if run.samples < MIN_SAMPLES:
        return f"{run.samples} samples per item and seed are fewer than the {MIN_SAMPLES} that `solved` needs"
    if run.own_control:
        return None
    if null is None:
        return f"split {split.name} has no null control to compare with; fill null_control/1x first"
    if len(null.seeds) < seeds:
        return (
            f"the null control has {len(null.seeds)} seeds, fewer than the {seeds} of this run; use fewer seeds, "
            "or add null seeds"
        )
    if seeds < MIN_SEEDS:
        return f"the protocol asks for at least {MIN_SEEDS} seeds, and this run has {seeds}"
    return None


def _conversion(
    split: Split,
    items: Sequence[Item],
    measured: Measured,
    method: Outcomes | None,
    null_outcomes: Outcomes | None,
    null: Control | None,
    easy_lost: float | None,
) -> Conversion:
    """The conversion of the unlearnable `items`, and the gain over the null where there is one to compare with.

    `easy_lost` is the number of easy items lost, the mean over seeds; it decides which tuned null is the opponent.
    """
    families, tau = [item.family for item in items], split.config.protocol.tau
    cells = measured.after[measured.rows("unlearnable")]
    above = (cells.correct > tau * cells.n).sum(axis=1)
    has_probes = method is not None and bool(method.has_probe.any())
    with_probe = int(method.has_probe.sum()) if method is not None else len(probes_of(split))
    conversion = Conversion(
        gain=None,
        interval=None,
        interval_families=None,
        method_rate=float(method.converted.mean()) if method is not None and has_probes else None,
        null_rate=None,
        null_hash=None if null is None else null.hash,
        null_seeds=0 if null is None else len(null.seeds),
        memorised_rate=float(method.memorised.mean()) if method is not None and has_probes else None,
        ceiling=ceiling(split, items, probes_of(split)) if has_probes else None,
        rule=rule_sentence(measured.samples, tau, len(items), with_probe, similar=probes_are_similar(split)),
        scope=None,
        naive=NaiveConversion(any_seed=mean(above >= 1), two_seeds=mean(above >= 2) if cells.runs > 1 else None),
        families=_families(families, method, has_probes),
    )
    if method is None or null_outcomes is None or not items:
        return conversion
    found: dict[str, object] = {
        "solved_gain": float(method.solved.mean() - null_outcomes.solved.mean()),
        "solved_interval": gain_intervals(share_arm(method.solved), share_arm(null_outcomes.solved), families)[1],
    }
    if has_probes:
        arm, other = share_arm(method.converted), share_arm(null_outcomes.converted)
        gain = float(method.converted.mean() - null_outcomes.converted.mean())
        interval, beyond = gain_intervals(arm, other, families)
        lost_share = 0.0 if easy_lost is None else easy_lost / max(1, len(measured.rows("easy")))
        found |= {
            "gain": gain,
            "interval": interval,
            "interval_families": beyond,
            "p": p_gain(method.converted.astype(float), null_outcomes.converted.astype(float), families),
            "null_rate": float(null_outcomes.converted.mean()),
            "scope": _scope(families, arm.values - other.values, gain),
            "tuned_null": tuned_null(split, items, probes_of(split), method, lost_share),
        }
    return conversion.model_copy(update=found)


def _families(families: Sequence[str], method: Outcomes | None, probes: bool) -> dict[str, FamilyConversion]:
    """Items solved and converted in each family, means over seeds."""
    found = {}
    for family in sorted(set(families)):
        rows = [place for place, name in enumerate(families) if name == family]
        runs = 1 if method is None else method.runs
        found[family] = FamilyConversion(
            items=len(rows),
            converted=float(method.converted[rows].sum() / runs) if method is not None and probes else None,
            solved=None if method is None else float(method.solved[rows].sum() / runs),
        )
    return found


def _scope(families: Sequence[str], beyond_null: Reals, gain: float) -> str:
    """Where the gain lies: 'families', or 'in FAMILY only' if one or two families make up all of a positive gain."""
    surplus: dict[str, float] = {}
    for family, value in zip(families, beyond_null.tolist(), strict=True):
        surplus[family] = surplus.get(family, 0.0) + value
    gained = sorted(family for family, value in surplus.items() if value > 0)
    if gain <= 0 or len(gained) >= MIN_FAMILIES:
        return "families"
    return f"in {' and '.join(gained)} only"


def _thin(items: Sequence[Item], method: Outcomes | None) -> CountOf:
    """The thin items among the unlearnable ones, and how many of them converted, the mean over seeds."""
    rows = [place for place, item in enumerate(items) if item.thin]
    hit = None if method is None else float(method.converted[rows].sum() / max(1, method.runs))
    return CountOf(items=len(rows), converted=hit)
