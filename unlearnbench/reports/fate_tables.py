"""What became of a run's items in training, and what the evaluation says of them: the tables of the report.

A pair is an item in one seed. Fates are what training saw (`fates`); converted is what fresh samples after training
say of an item over all seeds (PROTOCOL 3.3). The two need not agree: a visit is 8 rollouts or so, at the temperature
of training, and its item has often been trained on a moment ago.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from unlearnbench.records import FATES, Item
from unlearnbench.reports.run_files import Run
from unlearnbench.scoring import rates
from unlearnbench.scoring.conversion_rule import solved
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.fates import UNKNOWN, Summary, summary
from unlearnbench.scoring.rates import Flags

MAX_DATA = 20_000  # items x seeds in a page's data; a larger run has them in its parquet files only


@dataclass(frozen=True)
class Outcome:
    """What the evaluation says of unlearnable items that met the same fate in training. Undefined is None.

    `pairs` counts items once a seed; of them `above` were above tau with confidence in the evaluation of that seed,
    at a mean rate of `rate`, and `converted` belong to items that the rule calls converted.
    """

    name: str
    pairs: int
    rate: float | None
    above: int | None
    converted: int | None


@dataclass(frozen=True)
class ItemFate:
    """One unlearnable item's way through training and evaluation, by seed. Unknown is None."""

    item: Item
    fates: str
    first: Sequence[int | None]
    rewarded: Sequence[int | None]
    valid: Sequence[int | None]
    before: float | None
    after: Sequence[float | None]
    converted: bool | None


def by_group(run: Run) -> dict[str, Summary]:
    """Fates of each group's items; of the unlearnable alone, as counts, where only the result is left."""
    if run.watched is not None:
        return {name: summary(run.watched[rows]) for name, rows in run.places.items()}
    if (stated := run.result.fates) is None:
        return {}
    met = {fate: int(getattr(stated, fate)) for fate in FATES}
    return {"unlearnable": Summary(sum(met.values()), met, None, None, 0, None)}


def by_seed(run: Run) -> list[Summary]:
    """Fates of the unlearnable items in each seed."""
    if run.fates is None:
        return []
    return [summary(run.fates.seed(place)) for place in range(len(run.seeds))]


def by_fate(run: Run) -> list[Outcome]:
    """What the evaluation says of the unlearnable items, by their fate in each seed; none where it lacks an item."""
    if run.fates is None or (cells := _evaluated(run)) is None:
        return []
    rate, above = cells.correct / cells.n, _above(run, cells)
    hit: Flags | None = None if run.outcomes is None else run.outcomes.converted
    found = []
    for fate in FATES:
        met = run.fates.met(fate)
        found.append(
            Outcome(
                name=fate,
                pairs=int(met.sum()),
                rate=float(rate[met].mean()) if met.any() else None,
                above=None if above is None else int(above[met].sum()),
                converted=None if hit is None else int((met & hit).sum()),
            )
        )
    return found


def item_fates(run: Run) -> list[ItemFate]:
    """Every unlearnable item's row: the converted first, then by rate after training and by rewarded rollouts."""
    if run.fates is None:
        return []
    cells = _evaluated(run)
    hit: Flags | None = None if run.outcomes is None else np.asarray(run.outcomes.converted.any(axis=1))
    after = np.full(run.fates.fate.shape, np.nan) if cells is None else cells.correct / cells.n
    first = np.zeros(len(after), bool) if hit is None else hit
    order = np.lexsort((-run.fates.rewarded.sum(axis=1), -np.nan_to_num(after.mean(axis=1)), ~first))
    return [
        ItemFate(
            item=run.items[place],
            fates=_letters(run.fates.fate[place]),
            first=_stated(run.fates.first[place]),
            rewarded=_stated(run.fates.rewarded[place]),
            valid=_stated(run.fates.valid[place]),
            before=None if run.before is None else float(run.before[0][place]),
            after=[None if math.isnan(rate) else float(rate) for rate in after[place]],
            converted=None if hit is None else bool(hit[place]),
        )
        for place in order.tolist()
    ]


def data_url(run: Run) -> str | None:
    """fates.parquet joined with the counts of all items, as a data: URL of JSON; None where there is too much.

    `items` holds columns with one entry an item, so that pandas.DataFrame(loaded["items"]) is the table: item_id,
    group, thin, family, fate (its letter in each seed), rate_before, converted; and, as lists with one entry a seed,
    first_correct_step, rewarded, rewarded_valid_trace, and correct of n after training. Percent-encoded, so that no
    character of foreign text is left in it.
    """
    if run.watched is None or run.watched.fate.size > MAX_DATA:
        return None
    items, cells, tau = run.split.items, run.everything, run.split.config.protocol.tau
    before = run.rates_before([item.item_id for item in items])
    columns: dict[str, Any] = {
        "item_id": [item.item_id for item in items],
        "group": [item.group for item in items],
        "thin": [int(item.thin) for item in items],
        "family": [item.family for item in items],
        "fate": [_letters(row) for row in run.watched.fate],
        "first_correct_step": [_stated(row) for row in run.watched.first],
        "rewarded": [_stated(row) for row in run.watched.rewarded],
        "rewarded_valid_trace": [_stated(row) for row in run.watched.valid],
        "rate_before": [None] * len(items) if before is None else [round(rate, 6) for rate in before[0].tolist()],
    }
    if cells is not None:
        columns |= {"correct": cells.correct.tolist(), "n": cells.n.tolist()}
        columns["solved"] = solved(cells, tau).astype(int).tolist() if cells.enough else [None] * len(items)
    about = {
        "split": run.result.split,
        "split_hash": run.result.split_hash,
        "method": run.result.method.name,
        "source_hash": run.result.method.source_hash,
        "seeds": list(run.result.seeds),
        "fates": {name[0]: name for name in FATES},
        "before": None if before is None else before[1],
    }
    text = json.dumps(about | {"items": columns}, separators=(",", ":"))
    return "data:application/json," + quote(text, safe="[]{},")


def _evaluated(run: Run) -> Cells | None:
    """Counts of the unlearnable items after training; None where a seed lacks one."""
    if run.after is None:
        return None
    cells = Cells.of(run.after)
    return cells if cells.n.size and cells.n.all() else None


def _above(run: Run, cells: Cells) -> Flags | None:
    """Whether an item is above tau with confidence in a seed, by the samples of that seed; None with too few."""
    if not cells.enough:
        return None
    return rates.is_above(cells.correct, cells.n, run.split.config.protocol.tau)


def _letters(fates: NDArray[np.int64]) -> str:
    """First letters of an item's fates, by seed; ? where there is none."""
    return "".join("?" if fate == UNKNOWN else FATES[fate][0] for fate in fates.tolist())


def _stated(values: NDArray[np.int64]) -> list[int | None]:
    return [None if value == UNKNOWN else value for value in values.tolist()]
