"""Runs against one another: the same items, paired; which of them moved, and whether that is more than chance.

`compare` takes runs that fairness.py lets pass. `null_against_null` compares the null control with itself: GRPO
with other seeds is no better method, so its intervals should hold 0.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np

from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.fairness import Difference, Finished, require_fair
from unlearnbench.grid import read_phase
from unlearnbench.intervals import Arm, gain_intervals, mean_interval, rate_interval
from unlearnbench.records import Interval, Item, Record
from unlearnbench.rule import Cells, conversion_arm, converted, lost, rate_arm
from unlearnbench.splits import Split, find_split, load_split

MOST_SUBSETS = 20_000
"""Subsets of seeds that are all scored; 10 of 16 seeds give 8,008."""
MOST_PAIRS = 5_000
"""Disjoint pairs of seed sets that are compared; of more, every so-manieth."""


class ComparedRun(Record):
    """One run as the comparison sees it, by its own number of seeds."""

    label: str
    folder: str
    method: str
    source_hash: str
    track: str
    seeds: Sequence[int]
    items: int
    converted: int
    conversion: float
    conversion_interval: Interval | None
    easy_items: int
    easy_lost: int
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
    """An item that one run converted and the other did not. A share is of the subsets of seeds: 0 or 1 without any."""

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
    """First over second, a seed; None where one of them is unknown, seconds also where the devices differ."""

    flops: float | None
    generated_tokens: float | None
    trained_tokens: float | None
    seconds: float | None


class Pair(Record):
    """Two runs on the same unlearnable items, scored with `seeds` seeds each."""

    first: str
    second: str
    a_a: bool
    """Same source, settings and start: nothing but chance differs."""
    shared_draws: Sequence[int]
    """Seeds whose counts are equal in both, cell by cell: the same runs, and no evidence of chance."""
    seeds: int
    items: int
    first_conversion: float
    second_conversion: float
    gain: float
    interval: Interval | None
    interval_families: Interval | None
    claim: Literal["first", "second", "none"]
    """Which converted more, beyond these families; `none` unless interval_families excludes 0."""
    families: dict[str, FamilyPair]
    only_first: Sequence[Moved]
    only_second: Sequence[Moved]
    retention: RetentionPair
    cost: CostRatio


class Comparison(Record):
    split: str
    split_hash: str
    runs: Sequence[ComparedRun]
    differences: Sequence[Difference]
    comparisons: int
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class _Side:
    """A run with its counts on the unlearnable and the easy items."""

    label: str
    run: Finished
    core: Cells
    easy: Cells


def compare(runs: Sequence[Finished], split: Split | None = None) -> Comparison:
    """Every pair of runs, first minus second in the order given.

    `split` defaults to the split whose folder holds a run, else the shipped one of the results' name. Raises RunError
    for runs that cannot be compared fairly, SplitError if the labels that they were scored on are not found,
    DataError for counts that are not what result.json says.
    """
    if len(runs) < 2:
        raise RunError("a comparison needs at least two runs; name another folder")
    found = require_fair(runs)
    split = _labels(runs, split)
    tau = split.config.protocol.tau
    core = [item for item in split.items if item.group == "unlearnable"]
    easy = [item for item in split.items if item.group == "easy"]
    if not core:
        raise RunError(f"split {split.name} has no unlearnable items, so there is nothing to convert")
    sides = [_side(label, run, core, easy, tau) for label, run in zip(_labels_of(len(runs)), runs, strict=True)]
    pairs = [_pair(first, second, core, easy, tau) for first, second in combinations(sides, 2)]
    return Comparison(
        split=split.name,
        split_hash=split.hash,
        runs=[_run(side, core, tau) for side in sides],
        differences=found,
        comparisons=len(pairs),
        pairs=pairs,
    )


def _labels_of(number: int) -> list[str]:
    letters = string.ascii_uppercase
    return [letters[i] if number <= len(letters) else f"R{i + 1}" for i in range(number)]


def _labels(runs: Sequence[Finished], split: Split | None) -> Split:
    """The split with the labels that the runs were scored on."""
    name, wanted = runs[0].result.split, runs[0].result.split_hash
    if split is not None:
        if split.hash != wanted:
            raise SplitError(
                f"{runs[0].folder} was scored on other labels than those in {split.path} (field split_hash of its "
                "result.json); name the split that it was scored on with --split"
            )
        return split
    holding = [parent for run in runs for parent in run.folder.resolve().parents if (parent / "split.yaml").is_file()]
    tried = list(dict.fromkeys(holding))
    with suppress(SplitError):
        tried.append(find_split(name))
    for path in tried:
        if (there := load_split(path)).hash == wanted:
            return there
    raise SplitError(
        f"the split {name!r} with the labels that {runs[0].folder} was scored on is not among the shipped ones; "
        "name its folder with --split"
    )


def _side(label: str, run: Finished, core: Sequence[Item], easy: Sequence[Item], tau: float) -> _Side:
    """The run's counts, which must be complete and give the result that stands beside them."""
    cells = [_cells(run, items) for items in (core, easy)]
    told = run.result.groups["unlearnable"]
    hits = int(converted(cells[0], tau).sum())
    if (told.items, told.converted) != (len(core), hits):
        raise DataError(
            f"{run.folder}: by counts.parquet {hits} of {len(core)} unlearnable items are converted, and result.json "
            f"says {told.converted} of {told.items}; give the same `eval` command again, which scores them anew"
        )
    return _Side(label, run, *cells)


def _cells(run: Finished, items: Sequence[Item]) -> Cells:
    ids, names = [item.item_id for item in items], [str(seed) for seed in run.result.seeds]
    source = run.folder / "counts.parquet"
    cells = Cells.of(read_phase(run.counts, "eval", ids, runs=names, source=str(source)))
    if (wrong := np.argwhere(cells.n != run.result.samples)).size:
        row, seed = wrong[0]
        raise DataError(
            f"{source}: item {ids[row]!r}, phase eval, run {names[seed]!r}: n is {cells.n[row, seed]}, and result.json "
            f"says {run.result.samples} samples; give the same `eval` command again"
        )
    return cells


def _run(side: _Side, core: Sequence[Item], tau: float) -> ComparedRun:
    result, families = side.run.result, [item.family for item in core]
    arm = conversion_arm(side.core, tau, side.core.runs)
    return ComparedRun(
        label=side.label,
        folder=str(side.run.folder),
        method=result.method.name,
        source_hash=result.method.source_hash,
        track=result.method.track,
        seeds=result.seeds,
        items=len(core),
        converted=int(arm.values.sum()),
        conversion=float(arm.values.mean()),
        conversion_interval=rate_interval(arm, families, len(core)),
        easy_items=len(side.easy.n),
        easy_lost=int(lost(side.easy, tau).sum()),
        **{f"{name}_per_seed": _per_seed(side.run, name) for name in _COSTS},
        device=result.cost.device,
    )


_COSTS = ("flops", "generated_tokens", "trained_tokens", "seconds")


def _per_seed(run: Finished, name: str) -> float | None:
    """A cost a seed; None where nothing was metered."""
    total = getattr(run.result.cost, name)
    return total / len(run.result.seeds) if run.result.cost.flops else None


def _pair(first: _Side, second: _Side, core: Sequence[Item], easy: Sequence[Item], tau: float) -> Pair:
    seeds = min(first.core.runs, second.core.runs)
    for side in (first, second):
        if comb(side.core.runs, seeds) > MOST_SUBSETS:
            raise RunError(
                f"{side.run.folder} has {side.core.runs} seeds, which make {comb(side.core.runs, seeds)} subsets of "
                f"{seeds}, more than {MOST_SUBSETS}; compare runs whose numbers of seeds are nearer to one another"
            )
    arms = [conversion_arm(side.core, tau, seeds) for side in (first, second)]
    families = [item.family for item in core]
    interval, beyond = paired_intervals(arms[0], arms[1], families)
    means = [float(arm.values.mean()) for arm in arms]
    by_family = {
        name: [float(arm.values[np.array(families) == name].sum()) for arm in arms] for name in sorted(set(families))
    }
    return Pair(
        first=first.label,
        second=second.label,
        a_a=_same_method(first.run, second.run),
        shared_draws=_shared_draws(first, second),
        seeds=seeds,
        items=len(core),
        first_conversion=means[0],
        second_conversion=means[1],
        gain=means[0] - means[1],
        interval=interval,
        interval_families=beyond,
        claim="none" if beyond is None or beyond[0] <= 0 <= beyond[1] else "first" if beyond[0] > 0 else "second",
        families={
            name: FamilyPair(items=families.count(name), first=sums[0], second=sums[1])
            for name, sums in by_family.items()
        },
        only_first=_moved(first, second, arms, core, up=0),
        only_second=_moved(first, second, arms, core, up=1),
        retention=_retention(first, second, easy),
        cost=_cost(first.run, second.run),
    )


def paired_intervals(first: Arm, second: Arm, families: Sequence[str]) -> tuple[Interval | None, Interval | None]:
    """Intervals of mean(first) - mean(second), for these families and beyond, the same whichever comes first.

    `gain_intervals` takes its first arm for a method, which may have learned a few whole families, and its second for
    a null control, which has not. Here the arm that converted more is the method where a difference is claimed, as it
    is in a score; every limit that claims nothing is the wider one of both orders.
    """
    forth, back = gain_intervals(first, second, families), gain_intervals(second, first, families)
    ahead = float(first.values.mean() - second.values.mean())
    found: list[Interval | None] = []
    for one, other in zip(forth, back, strict=True):
        if one is None or other is None:
            found.append(None)
            continue
        turned = (-other[1], -other[0])
        low, high = min(one[0], turned[0]), max(one[1], turned[1])
        if ahead > 0 and one[0] > 0:
            low = one[0]
        elif ahead < 0 and turned[1] < 0:
            high = turned[1]
        found.append((low, high))
    return found[0], found[1]


def _same_method(first: Finished, second: Finished) -> bool:
    one, other = first.result.method, second.result.method
    same = one.source_hash == other.source_hash and dict(one.settings) == dict(other.settings)
    return same and first.start is not None and first.start == second.start


def _shared_draws(first: _Side, second: _Side) -> list[int]:
    places = {seed: place for place, seed in enumerate(second.run.result.seeds)}
    same = []
    for place, seed in enumerate(first.run.result.seeds):
        if seed in places and all(
            np.array_equal(one.correct[:, place], other.correct[:, places[seed]])
            for one, other in ((first.core, second.core), (first.easy, second.easy))
        ):
            same.append(seed)
    return same


def _moved(first: _Side, second: _Side, arms: Sequence[Arm], core: Sequence[Item], *, up: int) -> list[Moved]:
    """Items that are converted in most subsets of one run's seeds and not of the other's, the largest change first."""
    shares = [arm.values for arm in arms]
    high, low = shares[up], shares[1 - up]
    places = np.flatnonzero((high > 0.5) & (low <= 0.5))
    rates = [side.core.rates for side in (first, second)]
    order = sorted(places.tolist(), key=lambda i: (low[i] - high[i], rates[1 - up][i] - rates[up][i], core[i].item_id))
    return [
        Moved(
            item_id=core[i].item_id,
            family=core[i].family,
            first_share=float(shares[0][i]),
            second_share=float(shares[1][i]),
            first=_count(first.core, i),
            second=_count(second.core, i),
        )
        for i in order
    ]


def _count(cells: Cells, item: int) -> Count:
    correct, n = int(cells.correct[item].sum()), int(cells.n[item].sum())
    return Count(correct=correct, n=n, rate=correct / n)


def _retention(first: _Side, second: _Side, easy: Sequence[Item]) -> RetentionPair:
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

    same_device = first.result.cost.device == second.result.cost.device
    return CostRatio(
        flops=ratio("flops"),
        generated_tokens=ratio("generated_tokens"),
        trained_tokens=ratio("trained_tokens"),
        seconds=ratio("seconds") if same_device else None,
    )


# --- the null control against itself --------------------------------------------------------------------------


class Miss(Record):
    """A comparison of GRPO with itself in which an interval does not hold 0."""

    first: Sequence[int]
    second: Sequence[int]
    gain: float
    interval: Interval | None
    interval_families: Interval | None


class Repeats(Record):
    """Many comparisons of GRPO with itself, which share seeds and so are not independent."""

    comparisons: int
    of: int
    """All that there are; fewer were made where there are too many."""
    intervals: int
    """Comparisons with an interval: two arms of at least two seeds, and at least two families."""
    interval_holds_zero: int
    interval_families_holds_zero: int
    mean_gain: float
    mean_absolute_gain: float
    gain_sd: float
    smallest_gain: float
    largest_gain: float
    misses: Sequence[Miss]


class NullAgainstNull(Record):
    split: str
    split_hash: str
    null_hash: str
    null_seeds: Sequence[int]
    seeds: int
    items: int
    families: int
    rate: float
    """Conversion of the null, the mean over all its subsets of `seeds` seeds."""
    method_against_rest: Repeats
    """`seeds` of the seeds as the method, the rest as its null control: how every method is scored."""
    disjoint: Repeats | None
    """`seeds` against `seeds` others, every unordered pair; None where there are too few seeds."""
    single: Repeats
    """Every seed against every other; one seed has no interval."""


def null_against_null(split: Split, seeds: int = 3, progress: Callable[[float], None] | None = None) -> NullAgainstNull:
    """GRPO against GRPO on the shipped null seeds. `progress` is told the share that is done.

    Raises RunError if the split has no null control, or too few seeds for `seeds` against at least as many.
    """
    control = split.control("null_control", "1x")
    if control is None:
        raise RunError(
            f"split {split.name} has no null control to compare with itself; fill it with `unlearnbench eval --method "
            f"grpo --seeds 10 --split {split.path} --out {split.path / 'null_control' / '1x'}`"
        )
    total = len(control.seeds)
    if total < seeds + 2 or total < 2 * seeds - 1:
        raise RunError(
            f"the null control of split {split.name} has {total} seeds, too few for {seeds} against the rest; give a "
            f"smaller --seeds, or add null seeds"
        )
    items = [item for item in split.items if item.group == "unlearnable"]
    if not items:
        raise RunError(f"split {split.name} has no unlearnable items, so there is nothing to convert")
    ids, runs = [item.item_id for item in items], [str(seed) for seed in control.seeds]
    cells = Cells.of(read_phase(control.counts, "eval", ids, runs=runs, source="the null control"))
    tau, families = split.config.protocol.tau, [item.family for item in items]

    @cache
    def arm(chosen: tuple[int, ...], size: int) -> Arm:
        columns = list(chosen)
        return conversion_arm(Cells(cells.correct[:, columns], cells.n[:, columns]), tau, size)

    everyone = tuple(range(total))
    rest = [(c, tuple(i for i in everyone if i not in c)) for c in combinations(everyone, seeds)]
    equal = list(_disjoint(total, seeds)) if total >= 2 * seeds and seeds > 1 else []
    single = list(_disjoint(total, 1))
    kept = equal[:: -(-len(equal) // MOST_PAIRS)] if equal else []
    work, done = len(rest) + len(kept) + len(single), 0

    def repeats(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], size: int, of: int) -> Repeats:
        nonlocal done
        gains, both, missed = [], [], []
        for one, other in pairs:
            first, second = arm(one, size), arm(other, size)
            found = (gain_intervals if len(one) != len(other) else paired_intervals)(first, second, families)
            gains.append(float(first.values.mean() - second.values.mean()))
            both.append(found)
            if any(interval is not None and not _holds_zero(interval) for interval in found):
                missed.append(
                    Miss(
                        first=[control.seeds[i] for i in one],
                        second=[control.seeds[i] for i in other],
                        gain=gains[-1],
                        interval=found[0],
                        interval_families=found[1],
                    )
                )
            done += 1
            if progress:
                progress(done / work)
        return Repeats(
            comparisons=len(pairs),
            of=of,
            intervals=sum(interval is not None for interval, _ in both),
            interval_holds_zero=sum(interval is not None and _holds_zero(interval) for interval, _ in both),
            interval_families_holds_zero=sum(beyond is not None and _holds_zero(beyond) for _, beyond in both),
            mean_gain=float(np.mean(gains)),
            mean_absolute_gain=float(np.mean(np.abs(gains))),
            gain_sd=float(np.std(gains)),
            smallest_gain=min(gains),
            largest_gain=max(gains),
            misses=missed,
        )

    return NullAgainstNull(
        split=split.name,
        split_hash=split.hash,
        null_hash=control.hash,
        null_seeds=control.seeds,
        seeds=seeds,
        items=len(items),
        families=len(set(families)),
        rate=float(arm(everyone, seeds).values.mean()),
        method_against_rest=repeats(rest, seeds, len(rest)),
        disjoint=repeats(kept, seeds, len(equal)) if kept else None,
        single=repeats(single, 1, len(single)),
    )


def _disjoint(total: int, size: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All unordered pairs of disjoint sets of `size` out of `total` places."""
    for one in combinations(range(total), size):
        later = [place for place in range(one[0] + 1, total) if place not in one]
        for other in combinations(later, size):
            yield one, other


def _holds_zero(interval: Interval) -> bool:
    return interval[0] <= 0 <= interval[1]
