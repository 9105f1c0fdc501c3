"""Did the held-out relatives of solved items rise with them, beyond what they do under the null? (PROTOCOL 3.8)"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from unlearnbench.records import TWIN_KINDS, Item, Twin, TwinKind, TwinScore
from unlearnbench.scoring.conversion_rule import rate_arm
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.scoring.inference.intervals import Arm, mean_interval, twin_verdict
from unlearnbench.scoring.outcomes import Outcomes
from unlearnbench.scoring.rates import Reals
from unlearnbench.splits import Control, Split


def twin_scores(
    split: Split,
    counts: pa.Table,
    items: Sequence[Item],
    method: Outcomes | None,
    null: Control | None,
    null_items: Outcomes | None,
    runs: Sequence[str],
) -> dict[TwinKind, TwinScore]:
    """One score per kind of twin, over all pairs of a run and an eligible twin whose item that run solved.

    A twin is eligible if the base and every labelling run failed it. Items and twins are compared within a run, so a
    method that solves other items in each run is not taken for one that memorises.
    """
    names = [twin.twin_id for twin in split.twins]
    measured = Cells.of(read_phase(counts, "twin", names, runs=runs, strict=True))
    eligible, row = eligible_twins(split), {name: place for place, name in enumerate(names)}
    place = {item.item_id: index for index, item in enumerate(items)}
    scores: dict[TwinKind, TwinScore] = {}
    for kind in TWIN_KINDS:
        of_kind = [twin for twin in split.twins if twin.kind == kind]
        if not of_kind:
            continue
        chosen = [
            twin
            for twin in of_kind
            if method is not None
            and twin.twin_id in eligible
            and twin.item_id in place
            and method.solved[place[twin.item_id]].any()
            and measured.n[row[twin.twin_id]].all()
        ]
        scores[kind] = _score(
            chosen, items, place, measured[[row[t.twin_id] for t in chosen]], method, null, null_items
        )
    return scores


def _score(
    twins: Sequence[Twin],
    items: Sequence[Item],
    place: dict[str, int],
    cells: Cells,
    method: Outcomes | None,
    null: Control | None,
    null_items: Outcomes | None,
) -> TwinScore:
    owners = {twin.item_id for twin in twins}
    score = TwinScore(
        items=len(owners), eligible=len(twins), rate=None, null_rate=None, gain=None, interval=None, verdict="undecided"
    )
    if not twins or method is None:
        return score
    rows = [place[twin.item_id] for twin in twins]
    hits = method.solved[rows].astype(float)
    weights = hits.sum(axis=1)
    rates = cells.correct / cells.n
    score = score.model_copy(update={"rate": float((hits * rates).sum() / weights.sum())})
    compared = None if null is None or null_items is None else null_twins(null, [twin.twin_id for twin in twins])
    if compared is None or null_items is None:
        return score
    units, families = [twin.item_id for twin in twins], [items[k].family for k in rows]
    gain, interval = twin_gain(hits, cells, compared, units, families)
    item_rates = method.cells.correct[rows] / method.cells.n[rows]
    above = item_rates - null_items.cells.rates[rows][:, None]
    own = float((hits * above).sum() / weights.sum())
    return score.model_copy(
        update={
            "null_rate": float((weights * compared.rates).sum() / weights.sum()),
            "gain": gain,
            "interval": interval,
            "own_gain": own,
            "verdict": twin_verdict(interval, own),
        }
    )


def twin_gain(
    hits: Reals, twins: Cells, null: Cells, owners: Sequence[str], families: Sequence[str]
) -> tuple[float, tuple[float, float] | None]:
    """Mean over solved (twin, run) pairs of the twin's rate less its rate under the null, with its 95 % interval.

    `hits` (twins, runs) is 1 where the run solved the twin's item, `owners` names that item. A ratio of sums over
    twins, so its interval is that of the mean of the linearised terms (Cochran 1977, 6.3).
    """
    rates, weights = twins.correct / twins.n, hits.sum(axis=1)
    scale = len(weights) / weights.sum()
    gain = float((hits * (rates - null.rates[:, None])).sum() / weights.sum())
    terms = hits * (rates - null.rates[:, None] - gain) * scale  # (twins, runs), summing to 0
    values = gain + terms.sum(axis=1)
    runs = hits.shape[1]
    spread = (terms - terms.mean(axis=1, keepdims=True)).T * math.sqrt(runs / max(runs - 1, 1))
    own = rate_arm(null)
    arms = [
        Arm(values, spread, runs - 1),
        Arm(own.values, own.deviations * (weights * scale), own.freedom),
    ]
    rollouts = float(twins.n.sum()) / len(set(owners))
    interval = mean_interval(values, owners, families, arms, beyond=False, rollouts=rollouts)
    return gain, interval


def eligible_twins(split: Split) -> set[str]:
    """Ids of the twins that the base and every labelling run failed, by the split's own counts."""
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


def null_twins(null: Control, ids: Sequence[str]) -> Cells | None:
    """The null's counts of these twins in all its seeds; None if it lacks any."""
    runs = [str(seed) for seed in null.seeds]
    cells = Cells.of(read_phase(null.counts, "twin", ids, runs=runs, source="the null control"))
    return cells if bool((cells.n > 0).all()) else None
