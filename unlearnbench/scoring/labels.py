"""From counts to groups: the labelling rule of this benchmark, and the released rule of the paper beside it.

PROTOCOL 2; the paper is arXiv 2605.16787, its rule that of github.com/yulinchen99/unlearnability-rlvr
(commit 1dce7fe). Labels rest on integers alone, so they can be computed again from a split's counts in a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.records import GROUPS, GroupName, Protocol
from unlearnbench.scoring.counts import Grid, read_phase
from unlearnbench.scoring.rates import Counts, Flags, is_above, is_below

LabelRule = Literal["protocol", "paper"]
PAPER_ORDER: tuple[GroupName, ...] = ("unlearnable", "learnable", "no_reward", "easy")
"""The paper's sets overlap; an item's group is the first of these that holds it."""
THIN_AT_MOST = 5
"""Unlearnable items with this many pooled successes or fewer are marked thin."""


@dataclass(frozen=True)
class Labels:
    """Groups of items, one entry per item in every array, with the counts that they rest on."""

    rule: LabelRule
    tau: float
    item_ids: Sequence[str]
    group: Sequence[GroupName]
    certified: Sequence[bool | None]
    thin: Flags
    base: tuple[Counts, Counts]
    train: tuple[Counts, Counts]
    certify: tuple[Counts, Counts]
    """(correct, n) of each phase, pooled over runs."""
    sets: dict[GroupName, Flags]
    """The paper's overlapping sets; empty under the rule `protocol`."""
    runs: int
    n_after: int
    n_certify: int
    """Samples of an item in one run; 0 where no certification was sampled."""


def label_items(
    counts: pa.Table,
    protocol: Protocol,
    *,
    rule: LabelRule = "protocol",
    item_ids: Sequence[str] | None = None,
    source: str = "counts",
) -> Labels:
    """Label every item (default: all that occur in a phase used here, in order of appearance).

    Uses the phases base and train (pooled over runs), after and certify; other phases are ignored. An absent
    train row is 0 of 0. `source` names the file in errors. Raises DataError naming item, phase and run: a repeated
    row, correct > n, n < 0, an item without an `after` row in a run that others have, an item without base rows,
    a train row without `best` under the rule `paper`.
    """
    if item_ids is None:
        used = counts.filter(pc.is_in(counts["phase"], value_set=pa.array(["base", "train", "after", "certify"])))
        item_ids = pc.unique(used["item_id"].cast(pa.string())).drop_null().to_pylist()
    if not item_ids:
        raise DataError(f"{source}: there is no row of phase base; give each item's base counts")
    base, train, after, certify = (
        read_phase(counts, phase, item_ids, source=source) for phase in ("base", "train", "after", "certify")
    )
    _require_rows(base, after, source)
    tau = protocol.tau
    base_correct, base_n = base.pooled
    after_correct, after_n = after.table
    above: Flags = after_correct / after_n > tau
    hard: Flags = base_correct / base_n <= tau
    every, none = np.all(above, axis=1), ~np.any(above, axis=1)
    successes = base_correct + train.pooled[0]

    certified: list[bool | None] = [None] * len(item_ids)
    sets: dict[GroupName, Flags] = {}
    if rule == "paper":
        sets = _paper_sets(hard, every, none, train, source)
        group = _first_that_holds([(name, sets[name]) for name in PAPER_ORDER], len(item_ids))
    else:
        group, certified = _protocol_groups(hard, every, none, successes >= protocol.min_successes, certify, tau)
    unlearnable = np.array([name == "unlearnable" for name in group], bool)
    return Labels(
        rule=rule,
        tau=tau,
        item_ids=item_ids,
        group=group,
        certified=certified,
        thin=unlearnable & (successes >= protocol.min_successes) & (successes <= THIN_AT_MOST),
        base=(base_correct, base_n),
        train=train.pooled,
        certify=certify.pooled,
        sets=sets,
        runs=len(after.runs),
        n_after=int(after_n.min()),
        n_certify=int(certify.n.min()) if certify.n.size else 0,
    )


def candidates(counts: pa.Table, protocol: Protocol, *, item_ids: Sequence[str] | None = None) -> list[str]:
    """Items that certification must sample: failed before and after every run, with enough successes."""
    labels = label_items(counts, protocol, item_ids=item_ids)
    found = zip(labels.item_ids, labels.group, strict=True)
    return [item for item, group in found if group in ("unlearnable", "boundary")]


def labels_table(labels: Labels) -> pa.Table:
    """The rows of labels.parquet, one per item."""
    columns: dict[str, Any] = {
        "item_id": pa.array(labels.item_ids, pa.string()),
        "group": pa.array(labels.group, pa.string()),
        "certified": pa.array(labels.certified, pa.bool_()),
        "thin": pa.array(labels.thin, pa.bool_()),
    }
    for name, (correct, n) in (("p0", labels.base), ("train", labels.train), ("certify", labels.certify)):
        columns |= {f"{name}_correct": pa.array(correct, pa.int64()), f"{name}_n": pa.array(n, pa.int64())}
    columns |= {f"paper_{name}": pa.array(held, pa.bool_()) for name, held in labels.sets.items()}
    return pa.table(columns)


def summary(labels: Labels) -> dict[str, Any]:
    """The content of labels.json.

    `n` is the fewest samples of an item: for base over all runs, for after and certify in one run.
    """
    if labels.rule == "paper":
        counts = {name: int(held.sum()) for name, held in labels.sets.items()}
    else:
        counts = {name: labels.group.count(name) for name in GROUPS}
    base_n, train_n = labels.base[1], labels.train[1]
    return {
        "rule": labels.rule,
        "tau": labels.tau,
        "S": labels.runs,
        "n": {"base": int(base_n.min()), "after": labels.n_after, "certify": labels.n_certify},
        "counts": counts,
        "exposure": {
            "base": float(np.median(base_n)),
            "train_median": float(np.median(train_n)),
            "train_min": int(train_n.min()),
        },
    }


def _protocol_groups(
    hard: Flags, every: Flags, none: Flags, enough: Flags, certify: Grid, tau: float
) -> tuple[list[GroupName], list[bool | None]]:
    """The group of each item, and whether it is certified; None if it is no candidate, or nothing was sampled for it.

    `every`, `none`: above tau after every reference run, after none; `enough`: at least `min_successes` successes.
    """
    candidate = hard & none & enough
    certified: list[bool | None] = [None] * len(hard)
    core = np.ones(len(hard), bool)
    if certify.n.any():
        core = _certify(certify, candidate, tau)
        certified = [bool(c) if asked else None for c, asked in zip(core, candidate, strict=True)]
    rules: list[tuple[GroupName, Flags]] = [
        ("easy", ~hard),
        ("learnable", every),
        ("no_reward", none & ~enough),
        ("unlearnable", candidate & core),
        ("boundary", candidate),
    ]
    return _first_that_holds(rules, len(hard)), certified


def _certify(certify: Grid, candidate: Flags, tau: float) -> Flags:
    """Which items are certified (PROTOCOL 2).

    The upper limit of the rate pooled over runs is below tau, no single run's lower limit is above tau, and the item
    has samples in every run in which any candidate has some.
    """
    correct, n = certify.table
    sampled = n[candidate].any(axis=0)
    below = is_below(correct.sum(axis=1), n.sum(axis=1), tau)
    return below & ~is_above(correct, n, tau).any(axis=1) & (n[:, sampled] > 0).all(axis=1)


def _paper_sets(hard: Flags, every: Flags, none: Flags, train: Grid, source: str) -> dict[GroupName, Flags]:
    """The paper's overlapping sets of items. Raises DataError for a train row without `best`."""
    best = np.full(len(train.n), np.nan) if train.best is None else train.best
    if (missing := np.isnan(best)).any():
        at = int(np.flatnonzero(missing)[0])
        item, run = train.ids[train.item[at]], train.runs[train.run[at]]
        raise DataError(
            f"{source}: item {item!r}, phase train, run {run!r}: best is missing; rule paper needs the "
            "largest logged mean reward of each training run in the column best"
        )
    no_reward = np.zeros(len(train.ids), bool)
    no_reward[train.item[best == 0]] = True
    return {
        "easy": ~hard,
        "learnable": hard & every,
        "unlearnable": none & ~no_reward,
        "no_reward": no_reward,
    }


def _first_that_holds(rules: Sequence[tuple[GroupName, Flags]], items: int) -> list[GroupName]:
    """The first group whose rule each item satisfies; `unstable` if none."""
    names: list[GroupName] = [name for name, _ in rules] + ["unstable"]
    holds = np.stack([flags for _, flags in rules] + [np.ones(items, bool)])
    return [names[index] for index in holds.argmax(axis=0)]


def _require_rows(base: Grid, after: Grid, source: str) -> None:
    lacking = np.flatnonzero(base.pooled[1] == 0)
    if lacking.size:
        raise DataError(
            f"{source}: item {base.ids[lacking[0]]!r}, phase base, run {(base.runs or ('0',))[0]!r}: there is no "
            "sample; give each item at least one row of phase base with n above 0"
        )
    if not after.runs:
        raise DataError(
            f"{source}: item {after.ids[0]!r}, phase after, run '1': there is no row of phase after at all; give "
            "each item one for every reference run"
        )
    cells = np.argwhere(after.table[1] == 0)
    if cells.size:
        item, run = cells[0]
        raise DataError(
            f"{source}: item {after.ids[item]!r}, phase after, run {after.runs[run]!r}: there is no sample, though "
            "other items have some in this run; give every item a row for every reference run"
        )
