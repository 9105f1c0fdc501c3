"""The headline: what may be claimed against GRPO re-run and tuned GRPO, and the words for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from results import result_of

from unlearnbench.io import tables
from unlearnbench.records import (
    CountOf,
    GroupScore,
    MethodRecord,
    Result,
    Retention,
    SpentBudget,
    TunedNull,
    TwinScore,
)
from unlearnbench.reports.headline import Detectable, Verdict, tuned_name, verdict

ABOVE, AROUND, BELOW = (0.1, 0.5), (-0.1, 0.5), (-0.5, -0.1)


def core(**changes: Any) -> GroupScore:
    stated: dict[str, Any] = {
        "items": 60,
        "rate_before": 0.05,
        "rate_start": 0.05,
        "rate_after": 0.25,
        "rate_after_interval": None,
        "converted_at_start": 0,
        "solved": 25.0,
        "converted": 20.0,
        "memorised": 5.0,
        "with_probe": 60,
        "conversion": 20 / 60,
        "conversion_interval": None,
        "pass_at_k": {},
    }
    return GroupScore(**stated | changes)


def result(score: dict[str, Any] | None = None, **changes: Any) -> Result:
    """A comparable result of 60 unlearnable items, 20 of them converted, with a gain of 0.3."""
    stated = {
        "gain": 0.3,
        "interval": ABOVE,
        "interval_families": ABOVE,
        "p": 0.004,
        "method_rate": 20 / 60,
        "memorised_rate": 5 / 60,
        "null_rate": 0.03,
        "null_hash": "h",
        "null_seeds": 10,
        "scope": "families",
        "tuned_null": tuned(ABOVE),
    }
    given: dict[str, Any] = {
        "method": MethodRecord(name="m", source_hash="", track="verifier"),
        "budget": SpentBudget(multiple=1.0),
        "groups": {"unlearnable": core()},
        "canaries": CountOf(items=20, converted=0),
        "retention": Retention(easy_items=100, easy_lost=0, easy_rate_change=0, interval=None),
    }
    return result_of(stated | (score or {}), **given | changes)


def tuned(interval: tuple[float, float] | None, rate: float = 0.1) -> TunedNull:
    return TunedNull(learning_rate=1.4, rate=rate, easy_lost=0.02, gain=20 / 60 - rate, interval=interval, seeds=5)


def said(score: dict[str, Any] | None = None, **changes: Any) -> Verdict:
    return verdict(result(score, **changes))


MEMORY = {"solved_gain": 0.4, "solved_interval": (0.2, 0.6), "memorised_rate": 0.4}
LOST = Retention(easy_items=100, easy_lost=9, easy_rate_change=-0.1, interval=None)
FEW = core(solved=None, converted=None, memorised=None, conversion=None, with_probe=0)
UNPROBED = core(converted=None, memorised=None, conversion=None, with_probe=0)


@pytest.mark.parametrize(
    ("score", "changes", "tone", "label"),
    [
        ({}, {}, "more", "Converts more than GRPO"),
        ({"interval_families": AROUND}, {}, "same", "No gain over GRPO detected"),
        ({"interval_families": (0.0, 0.5)}, {}, "same", "No gain over GRPO detected"),
        ({"interval_families": BELOW}, {}, "less", "Converts less than GRPO"),
        ({"interval_families": None}, {}, "same", "No gain over GRPO detected"),
        ({"p": 0.2}, {}, "same", "No gain over GRPO detected"),
        ({"tuned_null": tuned(AROUND)}, {}, "same", "Tuned GRPO converts as many"),
        ({"tuned_null": None}, {}, "more", "Converts more than GRPO"),
        ({"interval_families": AROUND} | MEMORY, {}, "same", "Solves by memory"),
        (MEMORY, {}, "more", "Converts a few, memorises more"),
        ({}, {"retention": LOST}, "more", "Converts more than GRPO, forgets"),
        ({}, {"canaries": CountOf(items=20, converted=4)}, "less", "Read the answers: canaries solved"),
        (
            {"gain": None, "tuned_null": None},
            {"comparable": False, "why_not_comparable": "--quick: few steps"},
            "open",
            "Quick run: not scored",
        ),
        (
            {"gain": None},
            {"comparable": False, "why_not_comparable": "8 samples", "groups": {"unlearnable": FEW}},
            "open",
            "Too few samples to score",
        ),
        ({}, {"comparable": False, "why_not_comparable": "2 seeds"}, "open", "Not comparable"),
        ({"gain": None, "null_rate": None, "tuned_null": None}, {}, "open", "No gain defined"),
        (
            {"gain": None, "null_rate": None, "solved_gain": 0.2, "solved_interval": ABOVE},
            {"groups": {"unlearnable": UNPROBED}},
            "open",
            "Solves more; learning not measured",
        ),
    ],
)
def test_the_headline_by_outcome(score: dict[str, Any], changes: dict[str, Any], tone: str, label: str) -> None:
    found = said(score, **changes)
    assert (found.tone, found.label) == (tone, label)
    assert len(label.split()) <= 6 and 1 <= len(found.summary) <= 2


def test_two_sentences_in_counts_and_the_smallest_gain() -> None:
    none = result({"gain": 0.001, "interval_families": AROUND})
    first, second = verdict(none, Detectable(spread=0.03, families=0.09)).summary
    assert first == "It converts 20 of 60 unlearnable items; GRPO re-run converts 1.8 on average."
    assert second == ("This run could not have detected a gain below about 3 points, or 9 if it learns whole families.")
    assert "excluded" in verdict(none).summary[1]
    assert said().summary[1] == "The gain is +30.0 points (95 % interval +10.0 to +50.0 points)."
    assert "GRPO at 1.4x the learning rate converts 6" in said({"tuned_null": tuned(AROUND)}).summary[1]
    assert said(MEMORY).summary[1] == "It solves 5 more as they stand, but not with other numbers: that is memory."
    assert said(retention=LOST).summary[1] == "It loses 9 of 100 easy items."
    assert "in a only" in said({"scope": "in a only"}).summary[1]


def test_the_sentence_states_both_gains_with_their_intervals() -> None:
    assert said().sentence == (
        "m converted 33.3\u202f% of 60 unlearnable items, GRPO re-run with fresh seeds 3.0\u202f%: a gain of +30.0 "
        "points (95 % interval +10.0 to +50.0 points, p = 0.004), which excludes 0 (toy, track verifier, budget 1x, 3 "
        "seeds, score version 2). Over GRPO at 1.4x the learning rate, which converts 10.0\u202f%: +23.3 points (95 % "
        "interval +10.0 to +50.0 points)."
    )
    assert "which includes 0: no evidence of a gain" in said({"interval_families": AROUND}).sentence
    assert "fewer than GRPO re-run" in said({"interval_families": BELOW}).sentence
    bare = said({"interval": None, "interval_families": None, "tuned_null": None}).sentence
    assert "(no interval beyond these families), so nothing follows from it" in bare and "95 %" not in bare


def test_a_gain_that_is_not_comparable_is_not_claimed() -> None:
    why = "The protocol asks for at least 3 seeds, and this run has 2"
    found = said(comparable=False, why_not_comparable=why)
    assert found.sentence.startswith("Not comparable: the protocol asks for at least 3 seeds, and this run has 2; m")
    assert "+30.0" not in found.sentence and found.summary[1] == f"{why}."


def test_version_1_is_shown_and_not_ranked() -> None:
    old = tables.read_json_record(Path(__file__).parent / "result_v1.json", Result)
    found = verdict(old)
    assert (found.tone, found.label) == ("open", "Score version 1: not ranked")
    assert "score version 1" in found.sentence and "counted memory as conversion" in found.summary[1]


def test_names_of_the_tuned_null() -> None:
    assert tuned_name(result().conversion) == "GRPO at 1.4x the learning rate"
    assert tuned_name(result({"tuned_null": None}).conversion) == "GRPO at its best learning rate"


TWIN = TwinScore(items=1, eligible=1, rate=0, null_rate=0, gain=0, interval=(0, 0.01), verdict="memorised")


@pytest.mark.parametrize(
    ("changes", "caveat"),
    [
        ({"canaries": CountOf(items=20, converted=4)}, "read the gold answers"),
        ({"canaries": CountOf(items=20, converted=3)}, "may be learned by luck"),
        ({"method": MethodRecord(name="m", source_hash="", track="labels")}, "Track labels"),
        ({"method": MethodRecord(name="m", source_hash="", track="undeclared")}, "never ranked"),
        (
            {"retention": Retention(easy_items=40, easy_lost=1.7, easy_rate_change=0, interval=None)},
            "1.7 of 40 easy items",
        ),
        ({"twins": {"other_wording": TWIN}}, "does not carry over to twins (other wording)"),
        ({"groups": {"unlearnable": core(with_probe=50)}}, "10 unlearnable items have no probe"),
        ({"groups": {"unlearnable": core(converted_at_start=3)}}, "3 items were solved before this training began"),
    ],
)
def test_caveats(changes: dict[str, Any], caveat: str) -> None:
    assert any(caveat in found for found in said(**changes).caveats)
    assert not any(caveat in found for found in said().caveats)


def test_a_gain_that_no_tuned_null_was_beside_says_so() -> None:
    assert any("Not compared with a tuned null" in caveat for caveat in said({"tuned_null": None}).caveats)
    assert not any("tuned null" in caveat for caveat in said().caveats)


@pytest.mark.parametrize("comparable", [True, False])
def test_many_easy_items_lost_are_part_of_the_sentence(comparable: bool) -> None:
    """One answer to everything converts the items that have it; who quotes the sentence quotes the price."""
    found = said(comparable=comparable, retention=LOST)
    assert found.sentence.count(" It lost 9 of 100 easy items.") == 1
    assert not any("easy" in caveat for caveat in found.caveats)
