"""The headline: what may be claimed against the null control and the strong null, and the words for it."""

from __future__ import annotations

from typing import Any

import pytest
from results import result_of

from unlearnbench.records import CountOf, GroupScore, MethodRecord, Result, Retention, SpentBudget, TwinScore
from unlearnbench.reports.headline import Verdict, no_strong_null, strong_null_name, verdict

ABOVE, AROUND, BELOW = (0.1, 0.5), (-0.1, 0.5), (-0.5, -0.1)


def result(score: dict[str, Any] | None = None, **changes: Any) -> Result:
    """A comparable result of 60 unlearnable items, 20 of them converted, with a gain of 0.3."""
    core = GroupScore(
        items=60,
        rate_before=0.05,
        rate_start=0.05,
        rate_after=0.25,
        rate_after_interval=None,
        converted_at_start=0,
        converted=20,
        conversion=20 / 60,
        conversion_interval=None,
        pass_at_k={},
    )
    stated = {
        "gain": 0.3,
        "interval": ABOVE,
        "interval_families": ABOVE,
        "method_rate": 20 / 60,
        "null_rate": 0.0333,
        "null_hash": "h",
        "null_seeds": 10,
        "scope": "families",
    }
    given: dict[str, Any] = {
        "method": MethodRecord(name="m", source_hash="", track="verifier"),
        "budget": SpentBudget(multiple=1.0),
        "groups": {"unlearnable": core},
        "canaries": CountOf(items=20, converted=0),
        "retention": Retention(easy_items=9, easy_lost=0, easy_rate_change=0, interval=None),
    }
    return result_of(stated | (score or {}), **given | changes)


def strong(interval: tuple[float, float] | None, rate: float = 0.1, **more: Any) -> dict[str, Any]:
    return {
        "strong_null_rate": rate,
        "strong_null_gain": 20 / 60 - rate,
        "strong_null_interval": interval,
        "strong_null_seeds": 5,
        "strong_null_factor": 2.0,
    } | more


def said(score: dict[str, Any] | None = None, **changes: Any) -> Verdict:
    return verdict(result(score, **changes))


# --- the claim ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "tone", "label"),
    [
        ({}, "more", "more than GRPO re-run"),
        ({"interval_families": AROUND}, "same", "no more than GRPO re-run"),
        ({"interval_families": BELOW}, "less", "less than GRPO re-run"),
        ({"interval_families": None}, "open", "no interval over families"),
        ({"interval_families": (0.0, 0.5)}, "same", "no more than GRPO re-run"),
        ({"scope": "in a only"}, "more", "more than GRPO re-run, in a only"),
        (strong(ABOVE), "more", "more than GRPO re-run and GRPO at 2x the learning rate"),
        (strong(AROUND), "same", "no more than GRPO at 2x the learning rate"),
        (strong(BELOW, 0.5), "less", "less than GRPO at 2x the learning rate"),
        (strong(None), "open", "more than GRPO re-run, but not compared with the strong null"),
        # a split that ships a strong null of too few seeds cannot be passed by
        ({"strong_null_seeds": 2}, "open", "more than GRPO re-run, but not compared with the strong null"),
        (strong(ABOVE) | {"interval_families": AROUND}, "same", "no more than GRPO re-run"),
    ],
)
def test_a_claim_needs_both_controls(score: dict[str, Any], tone: str, label: str) -> None:
    found = said(score)
    assert (found.tone, found.label) == (tone, label)


def test_the_sentence_states_both_gains_with_their_intervals() -> None:
    assert said(strong((0.02, 0.4))).sentence == (
        "m converted 33.3\u202f% of 60 unlearnable items, the null control, GRPO re-run with fresh seeds, "
        "3.3\u202f%: a gain of +30.0 points (95 % interval over families: +10.0 to +50.0 points), which excludes 0 "
        "(scope: families; track verifier, budget 1x, 3 seeds). GRPO at 2x the learning rate converts 10.0\u202f% of "
        "these items by itself. Over it the gain is +23.3 points (95 % interval over families: +2.0 to +40.0 "
        "points), which excludes 0."
    )


@pytest.mark.parametrize(("rate", "by_itself"), [(0.0201, True), (0.02, False), (0.0, False)])
def test_a_strong_null_that_converts_more_than_two_percent_is_in_the_headline(rate: float, by_itself: bool) -> None:
    sentence = said(strong(AROUND, rate)).sentence
    assert ("of these items by itself" in sentence) is by_itself
    assert ("Over the strong null, GRPO at 2x the learning rate (" in sentence) is not by_itself
    assert sentence.endswith("which holds 0: it did not convert more than that, as far as this run can tell.")


def test_it_is_in_the_headline_of_a_result_without_a_gain_too() -> None:
    known = {"gain": None, "strong_null_rate": 0.05, "strong_null_seeds": 5, "strong_null_factor": 0.5}
    found = said(known, comparable=False, why_not_comparable="a seed spent too much")
    assert found.sentence.startswith("Not comparable: a seed spent too much; m converted 33.3")
    assert found.sentence.endswith("GRPO at 0.5x the learning rate converts 5.0\u202f% of these items by itself.")


def test_names_of_the_strong_null() -> None:
    names = [strong_null_name(result({"strong_null_factor": factor}).conversion) for factor in (None, 1.0, 4.0)]
    assert names == [
        "GRPO at its best learning rate",
        "GRPO at the unchanged learning rate",
        "GRPO at 4x the learning rate",
    ]


@pytest.mark.parametrize(
    ("score", "changes", "why"),
    [
        ({}, {}, "none is shipped for this run's split and budget"),
        ({"gain": None}, {}, "no gain over any control"),
        ({"strong_null_seeds": 2}, {}, "it has 2 seeds, fewer than the 3 of this run"),
        ({"strong_null_seeds": 5}, {}, "more samples an item than the 32"),
        ({"strong_null_seeds": 5}, {"comparable": False, "why_not_comparable": "x"}, "is not comparable"),
    ],
)
def test_why_there_is_no_comparison_with_a_strong_null(
    score: dict[str, Any], changes: dict[str, Any], why: str
) -> None:
    assert why in no_strong_null(result(score, **changes))


def test_a_gain_that_no_strong_null_was_beside_says_so() -> None:
    assert any("Not compared with a strong null" in caveat for caveat in said().caveats)
    assert not any("strong null" in caveat for caveat in said(strong(ABOVE)).caveats)


# --- other results --------------------------------------------------------------------------------------------


def test_gain_below_zero_and_gain_without_an_interval() -> None:
    assert "converted fewer than GRPO re-run" in said({"interval_families": BELOW}).sentence
    bare = said({"interval": None, "interval_families": None}).sentence
    assert "interval over families, so nothing follows from it" in bare and "95 %" not in bare
    one = said({"interval_families": None}).sentence
    assert "(95 % interval over the items of these families: +10.0 to +50.0 points), without" in one


def test_a_gain_that_is_not_comparable_is_told_but_not_claimed() -> None:
    why = "the protocol asks for at least 3 seeds, and this run has 2"
    found = said(comparable=False, why_not_comparable=why)
    assert found.tone == "open" and found.sentence.startswith(f"Not comparable: {why}; m converted 33.3")
    assert "+30.0 points beside the null control" in found.sentence and "excludes" not in found.sentence


TWIN = TwinScore(items=1, eligible=1, rate=0, null_rate=0, gain=0, interval=(0, 0.01), verdict="memorised")


@pytest.mark.parametrize(
    ("changes", "caveat"),
    [
        ({"canaries": CountOf(items=20, converted=1)}, "read the gold answers"),
        ({"method": MethodRecord(name="m", source_hash="", track="labels")}, "Track labels"),
        ({"method": MethodRecord(name="m", source_hash="", track="undeclared")}, "never ranked"),
        ({"retention": Retention(easy_items=40, easy_lost=2, easy_rate_change=0, interval=None)}, "2 of 40 easy items"),
        ({"twins": {"other_wording": TWIN}}, "does not carry over to twins (other_wording)"),
    ],
)
def test_caveats(changes: dict[str, Any], caveat: str) -> None:
    assert any(caveat in found for found in said(**changes).caveats)
    assert not any(caveat in found for found in said().caveats)


@pytest.mark.parametrize("comparable", [True, False])
def test_many_easy_items_lost_are_part_of_the_sentence(comparable: bool) -> None:
    """One answer to everything converts the items that have it; who quotes the sentence quotes the price."""
    kept = Retention(easy_items=40, easy_lost=3, easy_rate_change=-0.9, interval=None)
    found = said(comparable=comparable, retention=kept)
    assert found.sentence.endswith(" It lost 3 of 40 easy items.")
    assert not any("easy" in caveat for caveat in found.caveats)
