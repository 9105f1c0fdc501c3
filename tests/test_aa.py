"""The null control against itself: counted by brute force, and told."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from toy import HARD, NULL_SEEDS, counts, make

from unlearnbench.errors import RunError
from unlearnbench.io import tables
from unlearnbench.scoring.comparisons.null_vs_null import null_against_null, null_gains
from unlearnbench.splits import Split


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return make(tmp_path_factory.mktemp("splits") / "toy")


def by_hand(solved: Collection[str], seeds: Sequence[int]) -> float:
    """Conversion of the unlearnable items by these seeds: of those solved with their probes, the mean over seeds."""
    return float(np.mean([bool({name, f"{name}/{seed}"} & set(solved)) for name in HARD for seed in seeds]))


@pytest.fixture
def uneven(split: Split) -> tuple[Split, set[str]]:
    """The split with a null control whose seeds 1 to 3 convert 16 items and whose others convert none."""
    solved = {f"{name}/{seed}" for name in HARD[:16] for seed in (1, 2, 3)}
    tables.write_parquet(split.path / "null_control/1x/counts.parquet", counts(NULL_SEEDS, solved))
    return split, solved


def test_the_null_against_itself_by_brute_force(uneven: tuple[Split, set[str]]) -> None:
    split, solved = uneven
    seen: list[float] = []
    told = null_against_null(split, 2, seen.append)

    pairs = list(combinations(NULL_SEEDS, 2))
    rest = [by_hand(solved, one) - by_hand(solved, [s for s in NULL_SEEDS if s not in one]) for one in pairs]
    part = told.method_against_rest
    assert (part.comparisons, part.of, part.intervals) == (15, 15, 15)
    assert part.mean_absolute_gain == pytest.approx(np.mean(np.abs(rest)))
    assert part.gain_sd == pytest.approx(np.std(rest)) and part.mean_gain == pytest.approx(np.mean(rest))
    assert (part.smallest_gain, part.largest_gain) == pytest.approx((min(rest), max(rest)))
    assert told.rate == pytest.approx(by_hand(solved, NULL_SEEDS)) and (told.items, told.families) == (48, 12)

    disjoint = [(a, b) for a, b in combinations(pairs, 2) if not set(a) & set(b)]
    gains = [abs(by_hand(solved, a) - by_hand(solved, b)) for a, b in disjoint]
    assert told.disjoint is not None and told.disjoint.comparisons == len(disjoint) == 45
    assert told.disjoint.mean_absolute_gain == pytest.approx(np.mean(gains))
    assert told.single.comparisons == 15 and told.single.intervals == 0
    assert told.single.mean_absolute_gain == pytest.approx(
        np.mean([abs(by_hand(solved, [a]) - by_hand(solved, [b])) for a, b in pairs])
    )
    assert seen[-1] == 1.0 and seen == sorted(seen)


def test_intervals_that_miss_zero_are_counted_and_listed(uneven: tuple[Split, set[str]]) -> None:
    told = null_against_null(uneven[0], 3)
    assert told.disjoint is not None
    for part in (told.method_against_rest, told.disjoint):
        missed = {"interval": 0, "interval_families": 0}
        for miss in part.misses:
            limits = {name: getattr(miss, name) for name in missed}
            assert any(low > 0 or high < 0 for low, high in limits.values())
            for name, (low, high) in limits.items():
                missed[name] += low > 0 or high < 0
        assert part.interval_holds_zero == part.intervals - missed["interval"]
        assert part.interval_families_holds_zero == part.intervals - missed["interval_families"]
    assert [1, 2, 3] in [list(miss.first) for miss in told.disjoint.misses]  # 16 of 48 against none


def test_too_few_null_seeds_are_named(split: Split, cli: Any) -> None:
    for seeds in (4, 5):  # the rest must be as many, or the rule of so many seeds has no sense for it
        with pytest.raises(RunError, match=f"6 seeds, too few for {seeds} against at least as many"):
            null_against_null(split, seeds)
    tables.write_parquet(split.path / "null_control/1x/counts.parquet", counts((1, 2, 3, 4, 5), set()))
    with pytest.raises(RunError, match="5 seeds, too few for 3"):
        null_against_null(split)
    tables.write_parquet(split.path / "null_control/1x/counts.parquet", counts(NULL_SEEDS, set()))
    status, _, told = cli("compare", "--aa", "--split", split.path, "--seeds", "5")
    assert status == 1 and "smaller --seeds" in told


def test_a_null_control_without_counts_of_probes_is_refused(split: Split, cli: Any) -> None:
    path = split.path / "null_control/1x/counts.parquet"
    whole = counts(NULL_SEEDS, set(HARD))
    tables.write_parquet(path, whole.filter(pc.not_equal(whole["phase"], "twin")))
    assert null_gains(split, 3) == []
    status, _, told = cli("compare", "--aa", "--split", split.path)
    assert status == 1 and "no counts of probes" in told
    tables.write_parquet(path, counts(NULL_SEEDS, set()))


def test_the_command_tells_the_null_against_itself(split: Split, cli: Any) -> None:
    status, shown, told = cli("compare", "--aa", "--split", split.path)
    assert status == 0 and told == "" and "not independent" in shown
    found = json.loads(cli("compare", "--aa", "--split", split.path, "--json")[1])
    numbers = (found["seeds"], found["method_against_rest"]["comparisons"], found["disjoint"]["comparisons"])
    assert numbers == (3, 20, 10)
    shown = " ".join(cli("compare", "--aa", "--split", split.path, "--seeds", "1")[1].split())
    assert "1 seed as the method, 5 as its null" in shown and "no interval" in shown and "points" in shown
