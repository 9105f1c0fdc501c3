"""The score: which unlearnable items a method converted, beyond what the null control converts by itself.

PROTOCOL 3. Everything rests on integers (n, correct) of items, twins and canaries in each seed; no text, no
torch. `score` reads top to bottom like result.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.records import (
    GROUPS,
    TWIN_KINDS,
    Conversion,
    Cost,
    CountOf,
    FamilyConversion,
    Fates,
    GroupName,
    GroupScore,
    Item,
    MethodRecord,
    NaiveConversion,
    Result,
    Retention,
    Sampling,
    SpentBudget,
    TwinKind,
    TwinScore,
)
from unlearnbench.scoring.conversion_rule import conversion_arm, converted, lost, rate_arm, rule_sentence
from unlearnbench.scoring.counts import MIN_SAMPLES, Cells, read_phase
from unlearnbench.scoring.intervals import Arm, gain_intervals, mean_interval, rate_interval, twin_verdict
from unlearnbench.scoring.rates import Flags, Reals, pass_at_k

if TYPE_CHECKING:
    from unlearnbench.splits import Control, Split

SCORER_VERSION = "1.1"
MIN_SEEDS = 3
MIN_FAMILIES = 3
"""A gain in fewer families than this is called 'in FAMILY only'."""


def score(
    split: Split,
    counts: pa.Table,
    *,
    method: MethodRecord,
    seeds: Sequence[int],
    samples: int,
    sampling: Sampling,
    budget: SpentBudget,
    cost: Cost,
    code_version: str,
    kind: Literal["eval", "checkpoint", "score"] = "eval",
    fates: Fates | None = None,
    null: Control | None = None,
    strong_null: Control | None = None,
    why_not_comparable: str | None = None,
) -> Result:
    """Score one method's counts (phases start, eval, twin, canary; run = seed; item_id holds the twin's id).

    `why_not_comparable` is the caller's reason (a quick or partial run); the gain is then null, and items without
    rows are left out. The null control's own result has kind eval, no `null` and no reason: it is comparable, and
    its gain null. Raises DataError naming item, phase and run: a row that is missing, foreign, repeated or
    impossible, or another number of samples than `samples`.
    The strong null has no say in `comparable`: without it there is a gain, but no claim (PROTOCOL 3.5).
    """
    tau, runs = split.config.protocol.tau, [str(seed) for seed in seeds]
    items, after = _measured(split, counts, runs, samples, partial=why_not_comparable is not None)
    ids = [item.item_id for item in items]
    fresh = Cells.of(read_phase(split.counts(), "base_fresh", ids, source=f"split {split.name}"))
    before = Cells(fresh.correct.sum(axis=1, keepdims=True), fresh.n.sum(axis=1, keepdims=True))
    start = _start(counts, ids, before, kind)
    defined = samples >= MIN_SAMPLES and (after.enough or not items)

    reason = why_not_comparable or _reason(split, kind, len(seeds), samples, null)
    usable = why_not_comparable is None and defined and null is not None and len(null.seeds) >= len(seeds)
    core = _part(items, "unlearnable")
    unlearnable = [items[i] for i in core]
    hit = converted(after[core], tau) if defined else None
    null_cells = _control_cells(null, unlearnable, "null control") if usable and null is not None else None
    if null_cells is not None and (most := int(null_cells.n.max(initial=0))) > samples:
        # fewer samples make a chance conversion likelier in this arm alone
        reason = f"the null control has {most} samples an item and this run {samples}; take {most} here too"
        null_cells = None
    return Result(
        code_version=code_version,
        scorer_version=SCORER_VERSION,
        kind=kind,
        comparable=reason is None,
        why_not_comparable=reason,
        split=split.name,
        split_hash=split.hash,
        method=method,
        seeds=list(seeds),
        samples=samples,
        sampling=sampling,
        budget=budget,
        groups=_groups(items, after, before, start, tau, defined, samples),
        conversion=_conversion(split, unlearnable, after[core], hit, null, null_cells, strong_null, samples),
        twins=_twins(split, counts, unlearnable, after[core], hit, null, null_cells, runs),
        thin=CountOf(
            items=sum(item.thin for item in unlearnable),
            converted=None if hit is None else sum(bool(h) for h, i in zip(hit, unlearnable, strict=True) if i.thin),
        ),
        canaries=_canaries(split, counts, runs, tau),
        fates=fates,
        retention=_retention(items, after, before, tau, defined),
        cost=cost,
    )


def _measured(
    split: Split, counts: pa.Table, runs: Sequence[str], samples: int, *, partial: bool
) -> tuple[Sequence[Item], Cells]:
    """The items that were evaluated (all of them, unless `partial`) and their counts."""
    items: Sequence[Item] = split.items
    after = _evaluated(counts, [item.item_id for item in items], runs, samples, partial=partial)
    if not partial:
        return items, after
    kept = after.n.min(axis=1, initial=samples) > 0
    return [item for item, there in zip(items, kept, strict=True) if there], after[kept]


def _start(counts: pa.Table, ids: Sequence[str], before: Cells, kind: str) -> Cells | None:
    """Counts of the policy that training began from: the base where nothing else is said; unknown of a checkpoint."""
    start = Cells.of(read_phase(counts, "start", ids))
    if start.runs:
        return start
    return before if kind == "eval" else None


def _reason(split: Split, kind: str, seeds: int, samples: int, null: Control | None) -> str | None:
    """Why the result cannot be compared with others, one sentence; None if it can."""
    if samples < MIN_SAMPLES:
        return f"{samples} samples an item and seed are fewer than the {MIN_SAMPLES} that `converted` needs"
    if null is None:
        own = kind == "eval"  # the null control itself
        return None if own else f"split {split.name} has no null control to compare with; fill null_control/1x first"
    if len(null.seeds) < seeds:
        return (
            f"the null control has {len(null.seeds)} seeds, fewer than the {seeds} of this run; use fewer seeds, "
            "or add null seeds"
        )
    if seeds < MIN_SEEDS:
        return f"the protocol asks for at least {MIN_SEEDS} seeds, and this run has {seeds}"
    return None


def _groups(
    items: Sequence[Item], after: Cells, before: Cells, start: Cells | None, tau: float, defined: bool, samples: int
) -> dict[GroupName, GroupScore]:
    parts = {group: _part(items, group) for group in GROUPS}
    return {
        group: _group_score(
            [items[i] for i in part],
            after[part],
            before[part],
            None if start is None else start[part],
            tau,
            defined,
            samples,
        )
        for group, part in parts.items()
    }


def _group_score(
    items: Sequence[Item], after: Cells, before: Cells, start: Cells | None, tau: float, defined: bool, samples: int
) -> GroupScore:
    families = [item.family for item in items]
    hit = converted(after, tau) if defined else None
    total = int(after.n.sum())
    powers = [2**i for i in range(samples.bit_length()) if 2**i <= samples]
    return GroupScore(
        items=len(items),
        rate_before=_mean(before.rates),
        rate_start=None if start is None else _mean(start.rates),
        rate_after=_mean(after.rates),
        rate_after_interval=rate_interval(rate_arm(after), families, total) if items else None,
        converted_at_start=_at_start(start, tau) if defined else None,
        converted=None if hit is None else int(hit.sum()),
        conversion=None if hit is None else _mean(hit),
        conversion_interval=(
            rate_interval(conversion_arm(after, tau, after.runs), families, len(items))
            if items and hit is not None
            else None
        ),
        pass_at_k={str(k): _mean(pass_at_k(after.correct, after.n, k).mean(axis=1)) for k in powers},
    )


def _at_start(start: Cells | None, tau: float) -> int | None:
    return int(converted(start, tau).sum()) if start is not None and (start.enough or not len(start.n)) else None


def _conversion(
    split: Split,
    items: Sequence[Item],
    after: Cells,
    hit: Flags | None,
    null: Control | None,
    null_cells: Cells | None,
    strong_null: Control | None,
    samples: int,
) -> Conversion:
    families = [item.family for item in items]
    seeds, tau = after.runs, split.config.protocol.tau
    above = (after.correct / np.maximum(after.n, 1) > tau).sum(axis=1)
    null_rate = gain = scope = None
    interval = beyond = None
    strong_rate = strong_gain = strong_beyond = None
    if hit is not None and items:
        arm, strong_arm = conversion_arm(after, tau, seeds), _strong_arm(strong_null, items, tau, seeds, samples)
        if null_cells is not None:
            null_arm = conversion_arm(null_cells, tau, seeds)
            null_rate = float(null_arm.values.mean())
            gain = float(hit.mean()) - null_rate
            interval, beyond = gain_intervals(arm, null_arm, families)
            scope = _scope(families, arm.values - null_arm.values, gain)
        if strong_arm is not None:
            strong_rate = float(strong_arm.values.mean())
            if gain is not None:
                strong_gain = float(hit.mean()) - strong_rate
                _, strong_beyond = gain_intervals(arm, strong_arm, families)
    return Conversion(
        gain=gain,
        interval=interval,
        interval_families=beyond,
        method_rate=None if hit is None else _mean(hit),
        null_rate=null_rate,
        null_hash=None if null is None else null.hash,
        null_seeds=0 if null is None else len(null.seeds),
        strong_null_rate=strong_rate,
        strong_null_gain=strong_gain,
        strong_null_interval=strong_beyond,
        strong_null_seeds=0 if strong_null is None else len(strong_null.seeds),
        strong_null_factor=None if strong_null is None else _learning_rate_factor(split, strong_null),
        rule=rule_sentence(samples, seeds, tau),
        scope=scope,
        naive=NaiveConversion(any_seed=_mean(above >= 1), two_seeds=_mean(above >= 2) if seeds > 1 else None),
        families={
            family: FamilyConversion(
                items=families.count(family),
                converted=None
                if hit is None
                else sum(bool(h) for h, f in zip(hit, families, strict=True) if f == family),
            )
            for family in sorted(set(families))
        },
    )


def _strong_arm(control: Control | None, items: Sequence[Item], tau: float, seeds: int, samples: int) -> Arm | None:
    """The strong null's conversion with as many seeds; None if it has fewer, or more samples an item."""
    if control is None or len(control.seeds) < seeds:
        return None
    cells = _control_cells(control, items, "strong null")
    return None if int(cells.n.max(initial=0)) > samples else conversion_arm(cells, tau, seeds)


def _learning_rate_factor(split: Split, control: Control) -> float | None:
    """A control's learning rate as a multiple of the recipe's; None if its result does not state one."""
    used = None if control.result is None else control.result.method.settings.get("learning_rate")
    return float(used) / split.config.recipe.learning_rate if isinstance(used, int | float) else None


def _scope(families: Sequence[str], beyond_null: Reals, gain: float) -> str:
    """Where the gain lies: 'families', or the one or two families that hold all of a positive one."""
    surplus: dict[str, float] = {}
    for family, value in zip(families, beyond_null.tolist(), strict=True):
        surplus[family] = surplus.get(family, 0.0) + value
    gained = sorted(family for family, value in surplus.items() if value > 0)
    if gain <= 0 or len(gained) >= MIN_FAMILIES:
        return "families"
    return f"in {' and '.join(gained)} only"


def _twins(
    split: Split,
    counts: pa.Table,
    items: Sequence[Item],
    after: Cells,
    hit: Flags | None,
    null: Control | None,
    null_items: Cells | None,
    runs: Sequence[str],
) -> dict[TwinKind, TwinScore]:
    """PROTOCOL 3.8: did the converted items' held-out relatives rise with them?"""
    names = [twin.twin_id for twin in split.twins]
    measured = Cells.of(read_phase(counts, "twin", names, runs=runs, strict=True))
    eligible, row = _eligible_twins(split), {name: index for index, name in enumerate(names)}
    place = {item.item_id: index for index, item in enumerate(items)}
    scores: dict[TwinKind, TwinScore] = {}
    for kind in TWIN_KINDS:
        of_kind = [twin for twin in split.twins if twin.kind == kind]
        if not of_kind:
            continue
        chosen = [
            twin
            for twin in of_kind
            if hit is not None and twin.twin_id in eligible and twin.item_id in place and hit[place[twin.item_id]]
        ]
        ids = [twin.twin_id for twin in chosen]
        owners = sorted({twin.item_id for twin in chosen})
        cells = measured[[row[name] for name in ids]]
        rate = null_rate = gain = interval = None
        own = None
        if ids and bool((cells.n > 0).all()):
            rate = _mean(cells.rates)
            compared = None if null is None or null_items is None else _null_twins(null, ids)
            if compared is not None and null_items is not None:
                null_rate = _mean(compared.rates)
                gain = float((cells.rates - compared.rates).mean())
                interval = mean_interval(
                    cells.rates - compared.rates,
                    [twin.item_id for twin in chosen],
                    [items[place[twin.item_id]].family for twin in chosen],
                    [rate_arm(cells), rate_arm(compared)],
                    beyond=False,
                    rollouts=float(cells.n.sum()) / len(owners),
                )
                rows = [place[owner] for owner in owners]
                own = float((after[rows].rates - null_items[rows].rates).mean())
        scores[kind] = TwinScore(
            items=len(owners),
            eligible=len(ids),
            rate=rate,
            null_rate=null_rate,
            gain=gain,
            interval=interval,
            verdict=twin_verdict(interval, own),
        )
    return scores


def _eligible_twins(split: Split) -> set[str]:
    """Twins that the base and every labelling run failed, by the split's own counts."""
    table = split.twin_counts()
    if table is None or not split.twins:
        return set()
    ids, tau = [twin.twin_id for twin in split.twins], split.config.protocol.tau
    base, after = (
        Cells.of(read_phase(table, phase, ids, key="twin_id", source=f"split {split.name}"))
        for phase in ("base", "after")
    )
    measured = (base.n.sum(axis=1) > 0) & (after.n > 0).all(axis=1) & bool(after.runs)
    failed = (base.rates <= tau) & (after.correct / np.maximum(after.n, 1) <= tau).all(axis=1)
    return {name for name, good in zip(ids, measured & failed, strict=True) if good}


def _canaries(split: Split, counts: pa.Table, runs: Sequence[str], tau: float) -> CountOf:
    """Whoever converts a problem whose stored answer is wrong has read the answer."""
    ids = [canary.item_id for canary in split.canaries]
    cells = Cells.of(read_phase(counts, "canary", ids, runs=runs, strict=True))
    hit = int(converted(cells, tau).sum()) if cells.enough else None if ids else 0
    return CountOf(items=len(ids), converted=hit)


def _retention(items: Sequence[Item], after: Cells, before: Cells, tau: float, defined: bool) -> Retention:
    """What became of the items that the base could do."""
    easy = _part(items, "easy")
    cells = after[easy]
    change = cells.rates - before[easy].rates
    known = bool(easy) and not np.isnan(change).any()
    names, families = [items[i].item_id for i in easy], [items[i].family for i in easy]
    return Retention(
        easy_items=len(easy),
        easy_lost=int(lost(cells, tau).sum()) if defined else None,
        easy_rate_change=float(change.mean()) if known else None,
        interval=mean_interval(
            change, names, families, [rate_arm(cells)], beyond=True, rollouts=float(cells.n.sum()) / len(easy)
        )
        if known
        else None,
    )


# --- reading --------------------------------------------------------------------------------------------------


def _evaluated(counts: pa.Table, ids: Sequence[str], runs: Sequence[str], samples: int, *, partial: bool) -> Cells:
    """A method's counts of all items: every cell there with `samples`, unless partial."""
    cells = Cells.of(read_phase(counts, "eval", ids, runs=runs, strict=True))
    if not partial and (wrong := np.argwhere(cells.n != samples)).size:
        row, run = wrong[0]
        raise DataError(
            f"counts: item {ids[row]!r}, phase eval, run {runs[run]!r}: n is {cells.n[row, run]}, and every item "
            f"must have {samples} samples in every seed; evaluate what is missing"
        )
    return cells


def _control_cells(control: Control, items: Sequence[Item], name: str) -> Cells:
    """A control's counts of these items in all its seeds. Raises DataError for an item it lacks."""
    ids, runs = [item.item_id for item in items], [str(seed) for seed in control.seeds]
    cells = Cells.of(read_phase(control.counts, "eval", ids, runs=runs, source=f"the {name}"))
    if (short := np.argwhere(cells.n < MIN_SAMPLES)).size:
        row, run = short[0]
        raise DataError(
            f"the {name}: item {ids[row]!r}, phase eval, run {runs[run]!r}: n is {cells.n[row, run]}, fewer than "
            f"{MIN_SAMPLES}; run this control again"
        )
    return cells


def _null_twins(null: Control, ids: Sequence[str]) -> Cells | None:
    """The null's counts of these twins in all its seeds; None if it lacks any."""
    runs = [str(seed) for seed in null.seeds]
    cells = Cells.of(read_phase(null.counts, "twin", ids, runs=runs, source="the null control"))
    return cells if bool((cells.n > 0).all()) else None


def _part(items: Sequence[Item], group: str) -> list[int]:
    return [index for index, item in enumerate(items) if item.group == group]


def _mean(values: Reals | Flags) -> float | None:
    """Mean over problems; None if there is none, or one has no sample."""
    return None if not len(values) or bool(np.isnan(values).any()) else float(np.mean(values))
