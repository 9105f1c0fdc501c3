"""The score: every field of a result by a split small enough to count by hand."""

from __future__ import annotations

from math import comb
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.records import (
    GROUPS,
    Canary,
    Cost,
    Item,
    MethodRecord,
    PolicyRef,
    Result,
    Sampling,
    SpentBudget,
    SplitConfig,
    Twin,
)
from unlearnbench.scoring.score import SCORER_VERSION, score

Row = tuple[str, str, str, int, int]
TAU = 0.1


def table(rows: list[Row], key: str = "item_id") -> pa.Table:
    schema = tables.COUNTS if key == "item_id" else tables.TWIN_COUNTS
    columns = zip(*rows, strict=True) if rows else [[]] * 5
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


FAMILIES = ("a", "b", "c", "d")
SEEDS = (1, 2, 3)
NULL_SEEDS = (11, 12, 13, 14, 15)
ITEMS = tuple(
    Item(
        item_id=f"{group}-{i}",
        prompt="p",
        answer="1",
        family=FAMILIES[i % 4],
        group=group,
        thin=(group, i) == ("unlearnable", 0),
    )
    for group, size in {"easy": 4, "learnable": 4, "unlearnable": 8, "boundary": 2}.items()
    for i in range(size)
)
TWINS = tuple(
    Twin(twin_id=f"{item.item_id}-{kind}-{i}", item_id=item.item_id, kind=kind, prompt="p", answer="1")
    for item in ITEMS
    if item.group == "unlearnable"
    for kind in ("changed_numbers", "other_wording")
    for i in range(2)
)
CANARIES = (Canary(item_id="canary", prompt="p", answer="1", true_answer="2", family="a"),)


def counted(ids: list[str], phase: str, runs: Any, n: int, correct: Any) -> list[Row]:
    return [(name, phase, str(run), n, correct(name)) for name in ids for run in runs]


def base_rate(name: str) -> int:
    return 100 if name.startswith("easy") else 4


def split(**changes: Any) -> Any:
    """A split in memory: what `score` reads of a `Split`."""
    ids = [item.item_id for item in ITEMS]
    twins = [twin.twin_id for twin in TWINS]
    twin_rows = counted(twins, "base", "0", 32, lambda _: 0) + counted(
        twins, "after", "12", 32, lambda name: 20 if name.startswith("unlearnable-1-") else 0
    )
    parts: dict[str, Any] = {
        "config": SplitConfig(name="toy", base_policy=PolicyRef(path="policy")),
        "name": "toy",
        "hash": "f00",
        "items": ITEMS,
        "twins": TWINS,
        "canaries": CANARIES,
        "counts": lambda: table(counted(ids, "base_fresh", "0", 128, base_rate)),
        "twin_counts": lambda: table(twin_rows, "twin_id"),
    }
    return SimpleNamespace(**parts | changes)


def counts(runs: Any, solved: set[str], n: int = 32, *, twins: int = 0, canary: int = 0, easy: int = 30) -> pa.Table:
    """Counts of all items, where unlearnable items in `solved` have half of n correct and others none."""

    def correct(name: str) -> int:
        if name.startswith("easy"):
            return min(easy, n)
        return n // 2 if name in solved or name.startswith("learnable") else 0

    def of_twin(name: str) -> int:
        return twins if "changed_numbers" in name else 0

    return table(
        counted([item.item_id for item in ITEMS], "eval", runs, n, correct)
        + counted([twin.twin_id for twin in TWINS], "twin", runs, 32, of_twin)
        + counted(["canary"], "canary", runs, 32, lambda _: canary)
    )


def control(solved: set[str] = frozenset(), runs: Any = NULL_SEEDS, n: int = 32) -> Any:  # type: ignore[assignment]
    return SimpleNamespace(counts=counts(runs, solved, n), seeds=tuple(runs), hash="beef", result=None)


def scored(measured: pa.Table, of: Any = None, **how: Any) -> Result:
    arguments: dict[str, Any] = {
        "method": MethodRecord(name="m", source_hash="s", track="verifier"),
        "seeds": SEEDS,
        "samples": 32,
        "sampling": Sampling(),
        "budget": SpentBudget(multiple=1.0, limit=10, used=[9, 9, 9]),
        "cost": Cost(),
        "code_version": "0",
        "null": control(),
    }
    return score(of or split(), measured, **arguments | how)


SOLVED = {f"unlearnable-{i}" for i in (0, 1, 2, 4)}  # families a, b, c, a


def test_a_result_counted_by_hand() -> None:
    result = scored(counts(SEEDS, SOLVED, twins=16, canary=16, easy=0), null=control({"unlearnable-4"}))
    assert result.comparable and result.why_not_comparable is None and result.scorer_version == SCORER_VERSION
    assert result.split == "toy" and result.split_hash == "f00" and set(result.groups) == set(GROUPS)

    core = result.groups["unlearnable"]
    assert (core.items, core.converted, core.conversion, core.converted_at_start) == (8, 4, 0.5, 0)
    assert (core.rate_before, core.rate_start, core.rate_after) == (4 / 128, 4 / 128, 0.25)
    assert list(core.pass_at_k) == ["1", "2", "4", "8", "16", "32"]
    assert core.pass_at_k["1"] == pytest.approx(0.25) and core.pass_at_k["32"] == 0.5
    assert core.pass_at_k["2"] == pytest.approx(0.5 * (1 - comb(16, 2) / comb(32, 2)))
    assert core.rate_after_interval is not None and core.conversion_interval is not None
    assert result.groups["learnable"].converted == 4 and result.groups["no_reward"].items == 0
    assert result.groups["easy"].converted_at_start == 4

    gain = result.conversion
    assert (gain.method_rate, gain.null_rate, gain.gain) == (0.5, 0.125, 0.375)
    assert (gain.null_hash, gain.null_seeds, gain.strong_null_rate) == ("beef", 5, None)
    assert gain.interval is not None and gain.interval[0] < 0.375 < gain.interval[1]
    assert gain.interval_families is not None and gain.interval_families[0] < 0.375 < gain.interval_families[1]
    assert (gain.naive.any_seed, gain.naive.two_seeds) == (0.5, 0.5)
    assert {name: (part.items, part.converted) for name, part in gain.families.items()} == {
        "a": (2, 2),
        "b": (2, 1),
        "c": (2, 1),
        "d": (2, 0),
    }
    assert gain.scope == "families" and "7 of 32" in gain.rule
    assert (result.thin.items, result.thin.converted) == (1, 1)
    assert (result.canaries.items, result.canaries.converted) == (1, 1)
    assert (result.retention.easy_items, result.retention.easy_lost) == (4, 4)
    assert result.retention.easy_rate_change == pytest.approx(-100 / 128)

    twins = result.twins["changed_numbers"]  # those of unlearnable-1 were learned in labelling
    assert (twins.items, twins.eligible, twins.rate, twins.null_rate, twins.gain) == (3, 6, 0.5, 0.0, 0.5)
    assert twins.verdict == "generalised"
    assert result.twins["other_wording"].verdict == "memorised" and result.twins["other_wording"].gain == 0
    assert "same_skill" not in result.twins
    assert Result.model_validate_json(result.model_dump_json()).model_dump_json() == result.model_dump_json()


@pytest.mark.parametrize(
    ("solved", "scope"),
    [
        ({"unlearnable-0", "unlearnable-4"}, "in a only"),
        ({"unlearnable-0", "unlearnable-1"}, "in a and b only"),
        (SOLVED, "families"),
        (set(), "families"),
    ],
)
def test_scope_names_the_families_of_a_narrow_gain(solved: set[str], scope: str) -> None:
    assert scored(counts(SEEDS, solved)).conversion.scope == scope


def test_scope_counts_only_what_lies_beyond_the_null() -> None:
    result = scored(counts(SEEDS, SOLVED), null=control({"unlearnable-1", "unlearnable-2"}))
    assert result.conversion.scope == "in a only"


def test_a_policy_that_starts_elsewhere() -> None:
    names = [item.item_id for item in ITEMS]
    start = table(counted(names, "start", SEEDS, 32, lambda name: 16 if name == "unlearnable-0" else 0))
    core = scored(pa.concat_tables([counts(SEEDS, SOLVED), start])).groups["unlearnable"]
    assert (core.rate_before, core.rate_start, core.converted_at_start) == (4 / 128, 0.5 / 8, 1)


def test_the_nulls_own_result_is_comparable_and_has_no_gain() -> None:
    result = scored(counts(SEEDS, SOLVED), null=None)
    assert result.comparable and result.conversion.gain is None and result.conversion.null_hash is None
    assert result.conversion.method_rate == 0.5 and result.conversion.scope is None
    assert result.twins["changed_numbers"].verdict == "undecided"


@pytest.mark.parametrize("kind", ["checkpoint", "score"])
def test_other_results_without_a_null_are_not_comparable(kind: str) -> None:
    result = scored(counts(SEEDS, SOLVED), null=None, kind=kind)
    assert not result.comparable and "split toy has no null control" in str(result.why_not_comparable)


def test_fewer_null_seeds_than_seeds() -> None:
    result = scored(counts(SEEDS, SOLVED), null=control(runs=(1, 2)))
    assert not result.comparable and result.conversion.gain is None and result.conversion.null_seeds == 2
    assert str(result.why_not_comparable).startswith("the null control has 2 seeds, fewer than the 3")


def test_as_many_null_seeds_as_seeds() -> None:
    result = scored(counts(SEEDS, SOLVED), null=control(runs=(7, 8, 9)))
    assert result.comparable and result.conversion.gain == 0.5 and result.conversion.interval is not None


def test_one_seed_has_a_gain_without_interval_and_is_not_comparable() -> None:
    result = scored(counts([1], SOLVED), seeds=[1])
    assert (result.conversion.gain, result.conversion.interval, result.conversion.naive.two_seeds) == (
        0.5,
        None,
        None,
    )
    assert result.why_not_comparable == "the protocol asks for at least 3 seeds, and this run has 1"


def test_fewer_samples_leave_conversion_undefined() -> None:
    result = scored(counts(SEEDS, SOLVED, n=16), samples=16)
    core = result.groups["unlearnable"]
    assert (core.converted, core.conversion, core.conversion_interval, core.rate_after) == (None, None, None, 0.25)
    assert (result.conversion.gain, result.thin.converted, result.retention.easy_lost) == (None, None, None)
    assert result.conversion.naive.any_seed == 0.5 and result.twins["changed_numbers"].items == 0
    assert result.why_not_comparable == "16 samples an item and seed are fewer than the 32 that `converted` needs"


def test_a_null_with_more_samples_is_refused_and_one_with_fewer_is_not() -> None:
    fewer = scored(counts(SEEDS, SOLVED), null=control(n=64))
    assert fewer.conversion.gain is None
    assert fewer.why_not_comparable == "the null control has 64 samples an item and this run 32; take 64 here too"
    assert scored(counts(SEEDS, SOLVED, n=64), samples=64).conversion.gain == 0.5


def test_the_callers_reason_takes_the_gain() -> None:
    result = scored(counts(SEEDS, SOLVED), why_not_comparable="--quick: fewer steps")
    assert (result.comparable, result.why_not_comparable) == (False, "--quick: fewer steps")
    assert result.conversion.gain is None and result.groups["unlearnable"].converted == 4


def test_a_partial_run_is_scored_on_what_is_there() -> None:
    measured = counts(SEEDS, SOLVED)
    some = measured.filter(np.array([name != "unlearnable-0" for name in measured["item_id"].to_pylist()]))
    result = scored(some, why_not_comparable="--partial: some items were not evaluated")
    assert (result.groups["unlearnable"].items, result.groups["unlearnable"].converted) == (7, 3)
    with pytest.raises(
        DataError, match="item 'unlearnable-0', phase eval, run '1': n is 0, and every item must have 32"
    ):
        scored(some)


def test_the_strong_null_is_compared_as_the_null_is() -> None:
    measured, tuned = counts(SEEDS, SOLVED), control({"unlearnable-4"}, runs=(21, 22, 23, 24))
    beside = scored(measured, strong_null=tuned)
    against = scored(measured, null=tuned).conversion
    found = beside.conversion
    assert (found.strong_null_rate, found.strong_null_gain, found.strong_null_seeds) == (0.125, 0.375, 4)
    assert found.strong_null_interval is not None and found.strong_null_interval == against.interval_families
    assert (found.null_rate, found.gain, found.null_seeds) == (0.0, 0.5, 5)
    assert beside.comparable and (against.strong_null_seeds, against.strong_null_gain) == (0, None)


def test_a_strong_null_that_cannot_be_compared_is_known_to_be_there() -> None:
    for tuned in (control(SOLVED, runs=(21, 22)), control(SOLVED, n=64)):  # too few seeds; more samples an item
        found = scored(counts(SEEDS, SOLVED), strong_null=tuned)
        assert found.comparable and found.conversion.gain == 0.5
        assert found.conversion.strong_null_seeds == len(tuned.seeds)
        assert (found.conversion.strong_null_rate, found.conversion.strong_null_gain) == (None, None)


def test_without_a_gain_there_is_none_over_the_strong_null() -> None:
    for how in ({"null": None}, {"why_not_comparable": "--partial"}):
        found = scored(counts(SEEDS, SOLVED), strong_null=control({"unlearnable-4"}), **how).conversion
        assert (found.strong_null_rate, found.strong_null_gain, found.strong_null_interval) == (0.125, None, None)


def test_the_strong_nulls_learning_rate_is_stated_as_a_multiple_of_the_recipes() -> None:
    tuned = control(SOLVED)
    assert scored(counts(SEEDS, SOLVED), strong_null=tuned).conversion.strong_null_factor is None
    rate = split().config.recipe.learning_rate
    tuned.result = SimpleNamespace(
        method=MethodRecord(name="grpo", source_hash="s", track="verifier", settings={"learning_rate": 4 * rate})
    )
    assert scored(counts(SEEDS, SOLVED), strong_null=tuned).conversion.strong_null_factor == pytest.approx(4)


def test_a_result_written_before_there_were_strong_nulls_is_read() -> None:
    stated = scored(counts(SEEDS, SOLVED)).model_dump(mode="json")
    for name in ("strong_null_gain", "strong_null_interval", "strong_null_seeds", "strong_null_factor"):
        del stated["conversion"][name]
    assert Result.model_validate(stated).conversion.strong_null_gain is None


def test_a_split_without_fresh_base_counts_twins_or_canaries() -> None:
    bare = split(counts=lambda: table([]), twins=(), twin_counts=lambda: None, canaries=())
    measured = counts(SEEDS, SOLVED)
    only = measured.filter(np.array([phase == "eval" for phase in measured["phase"].to_pylist()]))
    result = scored(only, bare)
    core = result.groups["unlearnable"]
    assert (core.rate_before, core.rate_start, core.converted_at_start, core.converted) == (None, None, None, 4)
    assert result.twins == {} and (result.canaries.items, result.canaries.converted) == (0, 0)
    assert result.retention.easy_rate_change is None and result.conversion.gain == 0.5


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("alien", "eval", "1", 32, 1), "item 'alien', phase eval, run '1': this item is not in the split"),
        (("alien", "twin", "1", 32, 1), "item 'alien', phase twin, run '1': this item is not in the split"),
        (("alien", "canary", "1", 32, 1), "item 'alien', phase canary, run '1': this item is not in the split"),
        (
            ("easy-0", "eval", "9", 32, 1),
            "item 'easy-0', phase eval, run '9': this run is not among the seeds 1, 2, 3",
        ),
        (("easy-0", "eval", "1", 32, 1), "item 'easy-0', phase eval, run '1': there is a second row"),
        (("easy-0", "start", "1", 1, 2), "item 'easy-0', phase start, run '1': correct is above n"),
    ],
)
def test_rows_that_cannot_be_are_refused(row: Row, says: str) -> None:
    with pytest.raises(DataError, match=f"^counts: {says}"):
        scored(pa.concat_tables([counts(SEEDS, SOLVED), table([row])]))


def test_a_null_that_lacks_an_item_is_refused() -> None:
    lacking = control()
    lacking.counts = lacking.counts.slice(0, 40)
    with pytest.raises(DataError, match="the null control: item 'unlearnable-0', phase eval, run '11': n is 0"):
        scored(counts(SEEDS, SOLVED), null=lacking)


def test_the_score_does_not_depend_on_the_order_of_rows() -> None:
    measured = counts(SEEDS, SOLVED, twins=3)
    shuffled = measured.take(np.random.default_rng(0).permutation(measured.num_rows))
    assert scored(measured) == scored(shuffled)
