"""Runs compared item by item, paired: which items changed, and whether that is more than chance.

may they be compared? (comparability.py) → the labels that they were scored on, each run with its counts (counted.py)
→ every pair, first minus second
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from unlearnbench.errors import RunError
from unlearnbench.records import Interval, Item, Record
from unlearnbench.scoring.comparisons.comparability import Difference, Finished, read_run, require_fair
from unlearnbench.scoring.conversion_rule import lost, rate_arm, share_arm
from unlearnbench.scoring.counted import Counted, counted, labels_of
from unlearnbench.scoring.counts import Cells
from unlearnbench.scoring.group_scores import number
from unlearnbench.scoring.inference.intervals import Arm, gain_intervals, mean_interval, rate_interval
from unlearnbench.scoring.inference.permutation import MOST_P, p_two_sided
from unlearnbench.splits import Split


class ComparedRun(Record):
    """One run of the comparison. Numbers of items are means over its own seeds."""

    label: str
    folder: str
    method: str
    source_hash: str
    track: str
    seeds: Sequence[int]
    items: int
    with_probe: int
    solved: float
    """Mean number of items over seeds, as `converted` and `easy_lost` are."""
    converted: float
    conversion: float
    conversion_interval: Interval | None
    rates: Sequence[float]
    """Of each of the comparison's `item_ids`: correct of all rollouts, over all seeds."""
    easy_items: int
    easy_lost: float
    flops_per_seed: float | None
    generated_tokens_per_seed: float | None
    trained_tokens_per_seed: float | None
    seconds_per_seed: float | None
    device: str


class Count(Record):
    """Correct of n rollouts of an item, over all seeds."""

    correct: int
    n: int
    rate: float


class Moved(Record):
    """An item that one run solved in most seeds and the other did not. A share is of its seeds."""

    item_id: str
    family: str
    first_share: float
    second_share: float
    first: Count
    second: Count


class FamilyPair(Record):
    items: int
    first: float
    second: float


class RetentionPair(Record):
    """Rate of the easy items, first minus second."""

    items: int
    difference: float | None
    interval: Interval | None


class CostRatio(Record):
    """First over second, per seed; None where one of them is unknown, seconds also where the devices differ."""

    flops: float | None
    generated_tokens: float | None
    trained_tokens: float | None
    seconds: float | None


class Pair(Record):
    """Two runs on the same unlearnable items."""

    first: str
    second: str
    a_a: bool
    """Same source, settings and start: nothing but chance differs."""
    shared_draws: Sequence[int]
    """Seeds whose counts are equal in both, cell by cell: the same runs, and no evidence of chance."""
    seeds: tuple[int, int]
    items: int
    first_conversion: float
    second_conversion: float
    gain: float
    interval: Interval | None
    interval_families: Interval | None
    p: float
    """Two-sided: that neither converts more (permutation of runs and family bootstrap, the larger)."""
    solved_gain: float
    solved_interval: Interval | None
    claim: Literal["first", "second", "none"]
    """Which converted more, beyond these families: `none` unless interval_families excludes 0 and p is at most 0.05."""
    families: dict[str, FamilyPair]
    only_first: Sequence[Moved]
    only_second: Sequence[Moved]
    both: Sequence[str]
    """Items that both solved in most seeds, in the order of the comparison's `item_ids`."""
    retention: RetentionPair
    cost: CostRatio


class Comparison(Record):
    split: str
    split_hash: str
    runs: Sequence[ComparedRun]
    differences: Sequence[Difference]
    comparisons: int
    item_ids: Sequence[str]
    """The unlearnable items."""
    pairs: Sequence[Pair]

    def _repr_html_(self) -> str:
        from unlearnbench.reports.notebook import comparison_html

        return comparison_html(self)


def compare(runs: Sequence[Finished | Path | str], split: Split | None = None) -> Comparison:
    """Every pair of runs (or their folders), first minus second in the order given.

    `split` defaults to the split whose folder holds a run, else the shipped one of the results' name. Raises RunError
    for runs that cannot be compared fairly, SplitError if the labels that they were scored on are not found,
    DataError for counts that are not what result.json says.
    """
    if len(runs) < 2:
        raise RunError("a comparison needs at least two runs; name another folder")
    finished = [run if isinstance(run, Finished) else read_run(Path(run)) for run in runs]
    found = require_fair(finished)
    split = labels_of(finished, split)
    tau = split.config.protocol.tau
    core = [item for item in split.items if item.group == "unlearnable"]
    easy = [item for item in split.items if item.group == "easy"]
    if not core:
        raise RunError(f"split {split.name} has no unlearnable items, so there is nothing to convert")
    sides = [
        counted(label, run, split, core, easy) for label, run in zip(_letters(len(finished)), finished, strict=True)
    ]
    pairs = [_pair(first, second, core, easy, tau) for first, second in combinations(sides, 2)]
    return Comparison(
        split=split.name,
        split_hash=split.hash,
        runs=[_run(side, core, tau) for side in sides],
        differences=found,
        comparisons=len(pairs),
        item_ids=[item.item_id for item in core],
        pairs=pairs,
    )


def _letters(number: int) -> list[str]:
    letters = string.ascii_uppercase
    return [letters[i] if number <= len(letters) else f"R{i + 1}" for i in range(number)]


def _run(side: Counted, core: Sequence[Item], tau: float) -> ComparedRun:
    result, families = side.run.result, [item.family for item in core]
    return ComparedRun(
        label=side.label,
        folder=str(side.run.folder),
        method=result.method.name,
        source_hash=result.method.source_hash,
        track=result.method.track,
        seeds=result.seeds,
        items=len(core),
        with_probe=int(side.core.has_probe.sum()),
        solved=number(side.core.solved),
        converted=number(side.core.converted),
        conversion=float(side.core.converted.mean()),
        conversion_interval=rate_interval(share_arm(side.core.converted), families, len(core)),
        rates=side.core.cells.rates.tolist(),
        easy_items=len(side.easy.n),
        easy_lost=number(lost(side.easy, tau)),
        **{f"{name}_per_seed": _per_seed(side.run, name) for name in _COSTS},
        device=result.cost.device,
    )


_COSTS = ("flops", "generated_tokens", "trained_tokens", "seconds")


def _per_seed(run: Finished, name: str) -> float | None:
    """A cost per seed; None where nothing was metered."""
    total = getattr(run.result.cost, name)
    return total / len(run.result.seeds) if run.result.cost.flops else None


def _pair(first: Counted, second: Counted, core: Sequence[Item], easy: Sequence[Item], tau: float) -> Pair:
    arms = [share_arm(side.core.converted) for side in (first, second)]
    solved = [share_arm(side.core.solved) for side in (first, second)]
    families = [item.family for item in core]
    interval, beyond = paired_intervals(arms[0], arms[1], families)
    p = p_two_sided(first.core.converted.astype(float), second.core.converted.astype(float), families)
    means = [float(arm.values.mean()) for arm in arms]
    by_family = {
        name: [float(arm.values[np.array(families) == name].sum()) for arm in arms] for name in sorted(set(families))
    }
    return Pair(
        first=first.label,
        second=second.label,
        a_a=_same_method(first.run, second.run),
        shared_draws=_shared_draws(first, second),
        seeds=(first.core.runs, second.core.runs),
        items=len(core),
        first_conversion=means[0],
        second_conversion=means[1],
        gain=means[0] - means[1],
        interval=interval,
        interval_families=beyond,
        p=p,
        solved_gain=float(solved[0].values.mean() - solved[1].values.mean()),
        solved_interval=paired_intervals(solved[0], solved[1], families)[1],
        claim=claimed(beyond, p),
        families={
            name: FamilyPair(items=families.count(name), first=sums[0], second=sums[1])
            for name, sums in by_family.items()
        },
        only_first=_moved(first, second, solved, core, up=0),
        only_second=_moved(first, second, solved, core, up=1),
        both=[core[i].item_id for i in np.flatnonzero((solved[0].values > 0.5) & (solved[1].values > 0.5)).tolist()],
        retention=_retention(first, second, easy),
        cost=_cost(first.run, second.run),
    )


def claimed(beyond: Interval | None, p: float) -> Literal["first", "second", "none"]:
    """Which run converted more, by the interval beyond these families and p together, as for a score (PROTOCOL 3.4)."""
    if beyond is None or beyond[0] <= 0 <= beyond[1] or p > MOST_P:
        return "none"
    return "first" if beyond[0] > 0 else "second"


def paired_intervals(first: Arm, second: Arm, families: Sequence[str]) -> tuple[Interval | None, Interval | None]:
    """Intervals of mean(first) - mean(second), for these families and beyond, the same whichever comes first.

    `gain_intervals` takes its first arm for a method, which may have learned a few whole families, and its second for
    a null control, which has not. Here the arm that converted more is the method where a difference is claimed, as it
    is in a score; every limit that claims nothing is the wider one of both orders.
    """
    as_given, swapped = gain_intervals(first, second, families), gain_intervals(second, first, families)
    ahead = float(first.values.mean() - second.values.mean())
    found: list[Interval | None] = []
    for one, other in zip(as_given, swapped, strict=True):
        if one is None or other is None:
            found.append(None)
            continue
        negated = (-other[1], -other[0])  # of first - second again, with the second as the method
        low, high = min(one[0], negated[0]), max(one[1], negated[1])
        if ahead > 0 and one[0] > 0:
            low = one[0]
        elif ahead < 0 and negated[1] < 0:
            high = negated[1]
        found.append((low, high))
    return found[0], found[1]


def _same_method(first: Finished, second: Finished) -> bool:
    """Whether source, settings and start are known to be the same, so that only chance differs."""
    one, other = first.result.method, second.result.method
    same = one.source_hash == other.source_hash and dict(one.settings) == dict(other.settings)
    return same and first.start is not None and first.start == second.start


def _shared_draws(first: Counted, second: Counted) -> list[int]:
    """Seeds of both runs whose counts of unlearnable and easy items are equal, cell by cell."""
    places = {seed: place for place, seed in enumerate(second.run.result.seeds)}
    same = []
    for place, seed in enumerate(first.run.result.seeds):
        if seed in places and all(
            np.array_equal(one.correct[:, place], other.correct[:, places[seed]])
            for one, other in ((first.core.cells, second.core.cells), (first.easy, second.easy))
        ):
            same.append(seed)
    return same


def _moved(first: Counted, second: Counted, arms: Sequence[Arm], core: Sequence[Item], *, up: int) -> list[Moved]:
    """Items that one run solves in most of its seeds and the other does not, the largest change first."""
    shares = [arm.values for arm in arms]
    high, low = shares[up], shares[1 - up]
    places = np.flatnonzero((high > 0.5) & (low <= 0.5))
    rates = [side.core.cells.rates for side in (first, second)]
    order = sorted(places.tolist(), key=lambda i: (low[i] - high[i], rates[1 - up][i] - rates[up][i], core[i].item_id))
    return [
        Moved(
            item_id=core[i].item_id,
            family=core[i].family,
            first_share=float(shares[0][i]),
            second_share=float(shares[1][i]),
            first=_count(first.core.cells, i),
            second=_count(second.core.cells, i),
        )
        for i in order
    ]


def _count(cells: Cells, item: int) -> Count:
    correct, n = int(cells.correct[item].sum()), int(cells.n[item].sum())
    return Count(correct=correct, n=n, rate=correct / n)


def _retention(first: Counted, second: Counted, easy: Sequence[Item]) -> RetentionPair:
    if not easy:
        return RetentionPair(items=0, difference=None, interval=None)
    difference = first.easy.rates - second.easy.rates
    interval = mean_interval(
        difference,
        [item.item_id for item in easy],
        [item.family for item in easy],
        [rate_arm(first.easy), rate_arm(second.easy)],
        beyond=True,
        rollouts=float(min(first.easy.n.sum(), second.easy.n.sum())) / len(easy),
    )
    return RetentionPair(items=len(easy), difference=float(difference.mean()), interval=interval)


def _cost(first: Finished, second: Finished) -> CostRatio:
    def ratio(name: str) -> float | None:
        one, other = _per_seed(first, name), _per_seed(second, name)
        return one / other if one is not None and other else None

    devices = {run.result.cost.device for run in (first, second)}
    same_device = len(devices) == 1 and bool(first.environment and second.environment)
    return CostRatio(
        flops=ratio("flops"),
        generated_tokens=ratio("generated_tokens"),
        trained_tokens=ratio("trained_tokens"),
        seconds=ratio("seconds") if same_device else None,
    )
