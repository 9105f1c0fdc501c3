"""The score: every field of a result by a split small enough to count by hand."""

from __future__ import annotations

import json
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from counted_split import ITEMS, NULL_SEEDS, SEEDS, SOLVED, TWINS, Row, control, counted, counts, scored, split, table

from unlearnbench.errors import DataError
from unlearnbench.records import (
    GROUPS,
    Result,
)
from unlearnbench.scoring.score import SCORER_VERSION


def test_a_result_counted_by_hand() -> None:
    measured = counts(SEEDS, SOLVED, probes=SOLVED - {"unlearnable-2"}, canary=16, easy=0)
    result = scored(measured, null=control({"unlearnable-4"}, easy=16))
    assert result.comparable and result.why_not_comparable is None and result.scorer_version == SCORER_VERSION
    assert result.split == "toy" and result.split_hash == "f00" and set(result.groups) == set(GROUPS)

    core = result.groups["unlearnable"]
    assert (core.items, core.with_probe, core.solved, core.converted, core.memorised) == (8, 8, 4, 3, 1)
    assert (core.conversion, core.converted_at_start) == (3 / 8, 0)
    assert (core.rate_before, core.rate_start, core.rate_after) == (4 / 128, 4 / 128, 0.25)
    assert list(core.pass_at_k) == ["1", "2", "4", "8", "16", "32"]
    assert core.pass_at_k["1"] == pytest.approx(0.25) and core.pass_at_k["32"] == 0.5
    assert core.pass_at_k["2"] == pytest.approx(0.5 * (1 - comb(16, 2) / comb(32, 2)))
    assert core.rate_after_interval is not None and core.conversion_interval is not None
    learnable = result.groups["learnable"]
    assert (learnable.solved, learnable.converted, learnable.conversion) == (4, None, None)  # they have no probes
    assert result.groups["no_reward"].items == 0 and result.groups["easy"].converted_at_start == 4

    gain = result.conversion
    assert (gain.method_rate, gain.null_rate, gain.gain) == (3 / 8, 1 / 8, 2 / 8)
    assert (gain.solved_gain, gain.memorised_rate) == (3 / 8, 1 / 8)
    assert (gain.null_hash, gain.null_seeds, gain.tuned_null, gain.ceiling) == ("beef", 5, None, None)
    assert gain.interval is not None and gain.interval[0] < 0.25 < gain.interval[1]
    assert gain.interval_families is not None and gain.interval_families[0] <= gain.interval[0]
    assert gain.interval_families[1] >= gain.interval[1]
    assert gain.p is not None and gain.p >= 1 / comb(8, 3)
    assert (gain.naive.any_seed, gain.naive.two_seeds) == (0.5, 0.5)
    assert {name: (part.items, part.solved, part.converted) for name, part in gain.families.items()} == {
        "a": (2, 2, 2),
        "b": (2, 1, 1),
        "c": (2, 1, 0),
        "d": (2, 0, 0),
    }
    assert gain.scope == "in a and b only" and "8 of 32" in gain.rule
    assert (result.thin.items, result.thin.converted) == (1, 1)
    assert (result.canaries.items, result.canaries.converted) == (1, 1)
    kept = result.retention
    assert (kept.easy_items, kept.easy_lost, kept.null_easy_lost) == (4, 4, 0)
    assert kept.easy_rate_change == pytest.approx(-100 / 128)
    assert kept.null_easy_rate_change == pytest.approx(0.5 - 100 / 128)

    twins = result.twins["changed_numbers"]  # two of each of four solved items, those of one did not rise
    assert (twins.items, twins.eligible, twins.rate, twins.null_rate) == (4, 8, 0.375, 0.125)
    assert (twins.gain, twins.own_gain) == (0.25, 0.375)
    other = result.twins["other_wording"]  # those of unlearnable-1 were learned in labelling
    assert (other.items, other.eligible, other.gain, other.verdict) == (3, 6, 0, "memorised")
    assert "same_skill" not in result.twins
    assert Result.model_validate_json(result.model_dump_json()).model_dump_json() == result.model_dump_json()


def test_conversions_are_a_mean_over_seeds_of_items_solved_with_their_probe() -> None:
    measured = counts(
        SEEDS,
        {"unlearnable-0", "unlearnable-1/1", "unlearnable-1/2", "unlearnable-2/3"},
        probes={"unlearnable-0/1", "unlearnable-1/2", "unlearnable-1/3", "unlearnable-2/3", "unlearnable-3"},
    )
    core = scored(measured).groups["unlearnable"]
    assert core.solved == pytest.approx((3 + 2 + 1) / 3)
    assert core.converted == pytest.approx((1 + 1 + 1) / 3)
    assert core.memorised == pytest.approx((2 + 1 + 0) / 3)


def test_one_seed_means_what_three_seeds_mean() -> None:
    measured = counts(SEEDS, {"unlearnable-0", "unlearnable-1/1", "unlearnable-1/2"})
    runs = np.array(measured["run"].to_pylist())
    alone = [scored(measured.filter(runs == str(seed)), seeds=[seed]).conversion.method_rate for seed in SEEDS]
    together = scored(measured).conversion.method_rate
    assert together is not None and together == pytest.approx(np.mean([rate for rate in alone if rate is not None]))


def test_an_item_without_a_probe_counts_as_solved_alone_and_the_rule_says_so() -> None:
    some = tuple(twin for twin in TWINS if twin.item_id != "unlearnable-0")
    measured = counts(SEEDS, SOLVED)
    kept = np.array([not name.startswith("unlearnable-0-") for name in measured["item_id"].to_pylist()])
    result = scored(measured.filter(kept), split(twins=some))
    core = result.groups["unlearnable"]
    assert (core.with_probe, core.solved, core.converted, core.memorised) == (7, 4, 3, 0)
    assert "(1 of 8 items have no probe, and never convert)" in result.conversion.rule


def test_probes_that_are_not_marked_are_the_first_eligible_ones() -> None:
    bare = tuple(twin.model_copy(update={"probe": None}) for twin in TWINS)

    def measured(first: int) -> Any:
        rows = [
            (twin.twin_id, phase, "1", 32, first if twin.twin_id.endswith("changed_numbers-0") else 0)
            for twin in bare
            for phase in ("base", "after")
        ]
        return lambda: table(rows, "twin_id")

    whole = counts(SEEDS, SOLVED)
    names = whole["item_id"].to_pylist()
    without_first = [
        0 if name.endswith("changed_numbers-0") else c
        for name, c in zip(names, whole["correct"].to_pylist(), strict=True)
    ]
    only_second = whole.set_column(4, whole.schema.field(4), pa.array(without_first, whole.schema.field(4).type))
    assert scored(only_second, split(twins=bare, twin_counts=measured(4))).groups["unlearnable"].converted == 4
    # the first candidate is eligible, so it is the probe, and it did not rise
    assert scored(only_second, split(twins=bare, twin_counts=measured(3))).groups["unlearnable"].memorised == 4


def test_probes_that_were_not_measured_leave_conversion_unknown_and_the_result_incomparable() -> None:
    whole = counts(SEEDS, SOLVED)
    result = scored(whole.filter(np.array([phase != "twin" for phase in whole["phase"].to_pylist()])))
    core = result.groups["unlearnable"]
    assert (core.solved, core.converted, result.conversion.gain, result.conversion.solved_gain) == (4, None, None, 0.5)
    assert not result.comparable and "probes" in str(result.why_not_comparable)


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
    result = scored(counts(SEEDS, SOLVED), null=None, own_control=True)
    assert result.comparable and result.conversion.gain is None and result.conversion.null_hash is None
    assert result.conversion.method_rate == 0.5 and result.conversion.scope is None
    assert result.twins["changed_numbers"].verdict == "undecided"
    assert result.frontier is not None and result.frontier.gain is None


@pytest.mark.parametrize("kind", ["eval", "checkpoint", "score"])
def test_other_results_without_a_null_are_not_comparable(kind: str) -> None:
    result = scored(counts(SEEDS, SOLVED), null=None, kind=kind)
    assert not result.comparable and "split toy has no null control" in str(result.why_not_comparable)


def test_fewer_null_seeds_than_seeds() -> None:
    result = scored(counts(SEEDS, SOLVED), null=control(runs=(1, 2)))
    assert not result.comparable and result.conversion.gain is None
    assert str(result.why_not_comparable).startswith("the null control has 2 seeds, fewer than the 3")


def test_as_many_null_seeds_as_seeds() -> None:
    result = scored(counts(SEEDS, SOLVED), null=control(runs=(7, 8, 9)))
    assert result.comparable and result.conversion.gain == 0.5 and result.conversion.interval is not None


def test_one_seed_has_a_gain_without_interval_and_is_not_comparable() -> None:
    result = scored(counts([1], SOLVED), seeds=[1])
    found = result.conversion
    assert (found.gain, found.interval, found.naive.two_seeds) == (0.5, None, None)
    assert result.why_not_comparable == "the protocol asks for at least 3 seeds, and this run has 1"


def test_fewer_samples_leave_conversion_undefined() -> None:
    result = scored(counts(SEEDS, SOLVED, n=16), samples=16)
    core = result.groups["unlearnable"]
    assert (core.solved, core.converted, core.conversion, core.rate_after) == (None, None, None, 0.25)
    assert (result.conversion.gain, result.thin.converted, result.retention.easy_lost) == (None, None, None)
    assert result.conversion.naive.any_seed == 0.5 and result.twins["changed_numbers"].items == 0
    assert result.why_not_comparable == "16 samples per item and seed are fewer than the 32 that `solved` needs"


def test_a_null_with_more_samples_is_refused_and_one_with_fewer_is_not() -> None:
    fewer = scored(counts(SEEDS, SOLVED), null=control(n=64))
    assert fewer.conversion.gain is None
    assert fewer.why_not_comparable == ("the null control has 64 samples per item and this run 32; take as many here")
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


def test_the_tuned_null_is_the_best_rate_among_those_that_forget_no_more() -> None:
    rates = {
        0.5: control({"unlearnable-4"}, runs=(21, 22, 23)),
        1.4: control({"unlearnable-4", "unlearnable-5"}, runs=(31, 32, 33)),
        2.8: control(SOLVED, runs=(41, 42, 43), easy=0),  # converts most, and forgot every easy item
    }
    careful = scored(counts(SEEDS, SOLVED), split(tuned_nulls=lambda: rates)).conversion
    assert careful.tuned_null is not None
    tuned = careful.tuned_null
    assert (tuned.learning_rate, tuned.rate, tuned.easy_lost, tuned.seeds) == (1.4, 0.25, 0.0, 3)
    assert tuned.gain == pytest.approx(0.25)
    against = scored(counts(SEEDS, SOLVED), null=rates[1.4]).conversion
    assert tuned.interval is not None and tuned.interval == against.interval_families
    assert (careful.null_rate, careful.gain) == (0.0, 0.5)

    careless = scored(counts(SEEDS, SOLVED, easy=0), split(tuned_nulls=lambda: rates)).conversion
    assert careless.tuned_null is not None  # a method that forgets all must beat the rate that does
    assert (careless.tuned_null.learning_rate, careless.tuned_null.easy_lost, careless.tuned_null.gain) == (2.8, 1.0, 0)


def test_a_twentieth_of_the_easy_items_may_be_lost_in_any_case() -> None:
    """Of 4 easy items one lost in one of 5 seeds is 5 %; in two, 10 %."""
    for seeds, allowed in ((1, True), (2, False)):
        tuned = control(SOLVED, runs=NULL_SEEDS)
        rows = tuned.counts.to_pylist()
        for row in rows:
            if row["item_id"] == "easy-0" and int(row["run"]) < NULL_SEEDS[0] + seeds:
                row["correct"] = 0
        tuned.counts = pa.Table.from_pylist(rows, tuned.counts.schema)
        found = scored(counts(SEEDS, SOLVED), split(tuned_nulls=lambda tuned=tuned: {1.0: tuned})).conversion
        assert (found.tuned_null is not None) == allowed


def test_the_ceiling_is_the_positive_controls_conversion() -> None:
    positive = control({f"unlearnable-{i}" for i in range(8)}, probes={f"unlearnable-{i}" for i in range(6)})
    at = split(control=lambda kind, multiple="1x": positive if kind == "positive_control" else None)
    assert scored(counts(SEEDS, SOLVED), at).conversion.ceiling == 0.75


def test_the_frontier_weighs_items_by_how_often_labelling_runs_failed_them() -> None:
    method = {"unlearnable-0", "unstable-0/1", "unstable-1"}
    found = scored(counts(SEEDS, method), null=control({"unstable-1", "unlearnable-5/11"})).frontier
    weights = 8 * 1 + 0.75 + 0.25  # unstable-0: one of four runs solved it; unstable-1: three of four
    assert found is not None and found.method == pytest.approx((1 + 0.75 / 3 + 0.25) / weights)
    assert found.null == pytest.approx((0.25 + 1 / 5) / weights)
    assert found.gain == pytest.approx((1 + 0.75 / 3 - 1 / 5) / weights)
    assert found.interval is not None and found.interval_families is not None and found.p is not None
    assert found.interval_families[0] <= found.interval[0] < found.gain < found.interval[1]


def test_with_too_few_samples_the_frontier_is_there_and_undefined_as_conversion_is() -> None:
    found = scored(counts(SEEDS, SOLVED, n=8), samples=8, why_not_comparable="--quick: fewer steps")
    assert found.conversion.gain is None and found.frontier is not None
    assert set(found.frontier.model_dump().values()) == {None}


def test_a_result_of_score_version_1_is_read_and_has_what_version_2_has_not_measured_left_open() -> None:
    stated = json.loads((Path(__file__).parent / "result_v1.json").read_text(encoding="utf-8"))
    assert stated["scorer_version"].startswith("1.")
    told = Result.model_validate(stated)
    core = told.groups["unlearnable"]
    assert (told.schema_version, core.with_probe) == (1, 0)
    assert told.conversion.gain == stated["conversion"]["gain"]
    assert (told.frontier, told.steps, told.conversion.p, told.conversion.solved_gain) == (None, None, None, None)


def test_a_split_without_fresh_base_counts_twins_or_canaries() -> None:
    bare = split(counts=lambda: table([]), twins=(), twin_counts=lambda: None, canaries=())
    measured = counts(SEEDS, SOLVED)
    only = measured.filter(np.array([phase == "eval" for phase in measured["phase"].to_pylist()]))
    result = scored(only, bare)
    core = result.groups["unlearnable"]
    assert (core.rate_before, core.rate_start, core.converted_at_start, core.solved) == (None, None, None, 4)
    assert (core.converted, result.conversion.gain, result.conversion.solved_gain) == (None, None, 0.5)
    assert "Whether an item was learned or memorised was not measured" in result.conversion.rule
    assert result.twins == {} and (result.canaries.items, result.canaries.converted) == (0, 0)
    assert result.retention.easy_rate_change is None and result.frontier is None


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


@pytest.mark.parametrize("name", ["easy-0", "unstable-0"])
def test_a_null_that_lacks_a_rollout_of_an_item_of_another_group_is_refused(name: str) -> None:
    """Left out silently, an easy item would count as kept and an unstable one as not solved."""
    lacking = control()
    rows = zip(lacking.counts["item_id"].to_pylist(), lacking.counts["run"].to_pylist(), strict=True)
    lacking.counts = lacking.counts.filter(np.array([row != (name, "12") for row in rows]))
    with pytest.raises(DataError, match=f"item '{name}', phase eval, run '12': n is 0"):
        scored(counts(SEEDS, SOLVED), null=lacking)


def without_twins(of: Any) -> Any:
    of.counts = of.counts.filter(np.array([phase != "twin" for phase in of.counts["phase"].to_pylist()]))
    return of


def test_a_null_whose_probes_were_not_measured_gives_no_gain() -> None:
    """It is not known to convert nothing: with a rate of 0, all that a method converts would be its gain."""
    result = scored(counts(SEEDS, SOLVED), null=without_twins(control({"unlearnable-0"})))
    found = result.conversion
    assert (found.method_rate, found.gain, found.null_rate, found.p) == (0.5, None, None, None)
    assert not result.comparable and "the null control's probes were not measured" in str(result.why_not_comparable)


def test_a_control_whose_probes_were_not_measured_is_no_tuned_null_and_no_ceiling() -> None:
    bare = without_twins(control(SOLVED, runs=(21, 22, 23)))
    controls = {"control": lambda kind, multiple="1x": bare if kind == "positive_control" else None}
    found = scored(counts(SEEDS, SOLVED), split(tuned_nulls=lambda: {1.4: bare}, **controls)).conversion
    assert (found.gain, found.tuned_null, found.ceiling) == (0.5, None, None)


def test_a_partial_run_counts_an_item_whose_probe_lacks_rollouts_as_one_without_a_probe() -> None:
    measured = counts(SEEDS, SOLVED)
    probe = next(twin.twin_id for twin in TWINS if twin.probe and twin.item_id == "unlearnable-0")
    rows = zip(measured["item_id"].to_pylist(), measured["run"].to_pylist(), strict=True)
    some = measured.filter(np.array([row != (probe, "2") for row in rows]))
    core = scored(some, why_not_comparable="--partial: some rollouts are missing").groups["unlearnable"]
    assert (core.solved, core.with_probe, core.converted) == (4, 7, 3)
    with pytest.raises(DataError, match=f"item '{probe}', phase twin, run '2': n is 0, fewer than 32"):
        scored(some)


def test_the_score_does_not_depend_on_the_order_of_rows() -> None:
    measured = counts(SEEDS, SOLVED, wordings=3)
    shuffled = measured.take(np.random.default_rng(0).permutation(measured.num_rows))
    assert scored(measured) == scored(shuffled)
