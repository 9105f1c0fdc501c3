"""Methods that show solutions, hints, traces or labels in training: formulas and what they train on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rollout_groups import group_of, outcome_counts

from unlearnbench.errors import MethodError, SplitError
from unlearnbench.harness.judge import track_of
from unlearnbench.harness.privileged import Privileged, asked
from unlearnbench.method import Method, Visit
from unlearnbench.methods.curriculum_easy_first import CurriculumEasyFirst
from unlearnbench.methods.dense_then_binary import DenseThenBinary
from unlearnbench.methods.hints import Hints, tiers_of
from unlearnbench.methods.pope import Pope
from unlearnbench.methods.regft import Regft
from unlearnbench.splits import Split
from unlearnbench.training.ledger import read_ledger, read_metrics
from unlearnbench.verifier import Verifier
from unlearnbench.verifier.trace import trace_steps, valid_steps

# --- dense_then_binary, and what the judge tells of traces --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (r"2+5+>\boxed{7}", 6),
        (r" 2 + 5 +>\boxed{7}", 6),
        (r"2+5+>\boxed{8}", 5),
        (r"2+6+>\boxed{7}", 2),
        (r"25+>\boxed{7}", 0),
        (r"2+5+>\boxed{7} and more", 5),
        ("", 0),
    ],
)
def test_steps_are_valid_from_the_beginning_to_the_first_that_is_not(text: str, valid: int) -> None:
    assert trace_steps(r"2+5+>\boxed{7}") == ["2", "+", "5", "+", ">", r"\boxed{7}"]
    assert valid_steps(text, r"2+5+>\boxed{7}") == (valid, 6)


def test_a_valid_share_is_paid_first_and_the_answer_alone_later(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    solutions = {item.item_id: item.solution for item in small_split.items}
    run = training(DenseThenBinary, tmp_path)
    drawn = [rollout for group in run._collect() for rollout in group if rollout.item_id in solutions]
    for rollout in drawn:
        wanted, found = trace_steps(solutions[rollout.item_id]), trace_steps(rollout.completion)
        prefix = max(k for k in range(len(wanted) + 1) if found[:k] == wanted[:k])
        if found != wanted:
            prefix = min(prefix, len(wanted) - 1)
        assert rollout.reward == pytest.approx(prefix / len(wanted))
    shares = {rollout.reward for rollout in drawn}
    assert 1.0 in shares and len(shares) > 4
    run.services.progress = 0.5
    assert {run.method.reward(rollout) for rollout in drawn} == {0.0, 1.0}


def test_only_what_was_drawn_is_told_of_and_everything_that_is_told_is_noted(training: Any, tmp_path: Path) -> None:
    run = training(Method, tmp_path)
    groups = run._collect()
    rollout = groups[0].rollouts[0]
    assert asked(tmp_path) == []
    valid, steps = run.services.valid_steps(rollout)
    assert 0 <= valid <= steps and asked(tmp_path) == ["process"]
    assert track_of("verifier", asked(tmp_path)) == "process"
    with pytest.raises(MethodError, match=r"which steps of '1\+1' are valid, which it did not draw"):
        run.services.valid_steps(replace(rollout, completion="1+1"))
    other = groups[1]
    with pytest.raises(MethodError, match="did not draw for that item"):
        run.services.valid_steps(replace(rollout, item_id=other.item_id, completion="no such text"))
    run._choose(groups)
    with pytest.raises(MethodError, match="ask in reward, plan_rollouts, inject or keep"):
        run.services.valid_steps(rollout)


def test_a_split_whose_traces_cannot_be_checked_says_so_in_a_sentence(tiny: Split, tmp_path: Path) -> None:
    privileged = Privileged(tiny, tmp_path)
    with Verifier() as verifier, pytest.raises(SplitError, match=r"traces of split tiny cannot be checked.*micro"):
        privileged.ask("process", tiny.items[0].item_id, "1", verifier)
    assert asked(tmp_path) == ["process"]


# --- pope ---------------------------------------------------------------------------------------------------------


def test_only_unsolved_items_are_guided_and_the_prefix_grows_with_failure(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    run = training(Pope, tmp_path, guided=1.0, instruction="&")
    hard, solved = small_split.items[0], small_split.items[1]
    steps = hard.solution.split("\\boxed")[0]
    fresh = run.method.plan_rollouts(0, 0, [hard.item_id], [])
    assert fresh[0].context is None, "never visited"
    run.services.visits[hard.item_id] = [Visit(0, 8, 0)]
    run.services.visits[solved.item_id] = [Visit(0, 8, 1)]
    prefixes = []
    for _ in range(6):
        one, other = run.method.plan_rollouts(1, 0, [hard.item_id, solved.item_id], [])
        assert other.context is None
        assert one.context is not None and one.context.startswith(f"{hard.prompt}&")
        prefixes.append(one.context.removeprefix(f"{hard.prompt}&"))
        (group,) = run.method.inject([group_of([0, 0], hard.item_id, source="hinted")])
        assert all(rollout.context_ids is None for rollout in group)
    assert all(steps.startswith(prefix) for prefix in prefixes)
    assert [len(prefix) for prefix in prefixes] == [-(-len(steps) * k // 4) for k in (1, 2, 3, 4, 4, 4)]
    run.method.inject([group_of([0, 0], solved.item_id)])
    assert solved.item_id not in run.method.given, "an unguided failure says nothing of the prefix"


def test_guided_rollouts_are_trained_on_in_the_prompt_they_were_drawn_in(training: Any, tmp_path: Path) -> None:
    run = training(Pope, tmp_path, guided=1.0, prompts_per_step=40)
    run.services.visits = {item.item_id: [Visit(0, 8, 0)] for item in run.services.items}
    groups = run._choose(run._collect())
    hinted = [r for g in groups for r in g if r.source == "hinted"]
    assert hinted and all(r.context_ids is None for r in hinted)
    own = {item.item_id: len(run.models.policy.encode(item.prompt)) for item in run.services.items}
    assert all(len(r.prompt_ids) > own[r.item_id] for r in hinted)
    assert run._update(groups)["sampler_mismatch"] < 1e-4, "the ratio compares one context with itself"


def test_guided_and_unguided_visits_are_mixed_one_to_one(training: Any, tmp_path: Path) -> None:
    run = training(Pope, tmp_path)
    item_id = run.services.items[0].item_id
    run.services.visits[item_id] = [Visit(0, 8, 0)]
    guided = 0
    for step in range(1, 401):
        run.services.step = step
        guided += run.method.plan_rollouts(step, 0, [item_id], [])[0].context is not None
    assert abs(guided / 400 - 0.5) < 4 * 0.5 / 20


# --- hints --------------------------------------------------------------------------------------------------------


def test_tiers_go_from_abstract_to_concrete_without_the_answer() -> None:
    assert tiers_of("22+22>") == ("+ >", "n+n>", "22+")
    words = "First add 12 and 30, then halve it. "
    knowledge, plan, steps = tiers_of(words)
    assert not any(character.isdigit() for character in knowledge + plan)
    assert plan == "First add n and n, then halve it. "
    assert words.startswith(steps) and len(steps) == len(words) // 2


def test_hints_come_tier_by_tier_where_all_failed_and_after_the_exemption(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    run = training(Hints, tmp_path)
    failed, solved = (group_of(o, item.item_id) for o, item in zip(([0] * 8, [1] * 8), small_split.items, strict=False))
    ids = [failed.item_id, solved.item_id]
    run.services.progress = 0.1
    assert run.method.plan_rollouts(0, 1, ids, [failed, solved]) == []
    run.services.progress = 0.2
    tiers = tiers_of(small_split.items[0].solution.split("\\boxed")[0])
    for round_, tier in enumerate(tiers, start=1):
        (plan,) = run.method.plan_rollouts(0, round_, ids, [failed, solved])
        assert (plan.item_id, plan.n, plan.context) == (failed.item_id, 4, f"{tier} {failed.prompt}")
    assert run.method.plan_rollouts(0, 4, ids, [failed]) == []


def test_the_first_hinted_success_takes_the_place_of_one_failure(training: Any, tmp_path: Path) -> None:
    run = training(Hints, tmp_path)
    own = group_of([0] * 8)
    tiers = group_of([0, 0, 0, 0, 0, 1, 1, 0], source="hinted")
    (group,) = run.method.inject([replace(own, rollouts=(*own.rollouts, *tiers.rollouts))])
    assert outcome_counts(group) == {("policy", False): 7, ("hinted", True): 1}
    assert group.rollouts[-1].completion == "5" and group.rollouts[-1].context_ids is None
    nothing = group_of([0] * 4, source="hinted")
    (group,) = run.method.inject([replace(own, rollouts=(*own.rollouts, *nothing.rollouts))])
    assert outcome_counts(group) == {("policy", False): 8}


def test_a_hint_of_its_own_is_written_once_from_the_answer(training: Any, tmp_path: Path, small_split: Split) -> None:
    run = training(Hints, tmp_path, variant="self", exempt=0.0)
    item = small_split.items[0]
    failed = replace(group_of([0] * 8, item.item_id), prompt=item.prompt)
    generated, prompts = run.meter.generated, []
    plain = run.services.generate
    run.services.generate = lambda context, n, *names: prompts.append(context) or plain(context, n, *names)  # type: ignore[func-returns-value]
    plans = run.method.plan_rollouts(0, 1, [item.item_id], [failed])
    assert prompts[0] == f"{item.prompt} answer: {item.answer}; explain: " and prompts[1].endswith(" hint: ")
    assert run.meter.generated > generated
    assert run.method.plan_rollouts(0, 2, [item.item_id], [failed]) == []
    run.services.step = 1
    assert run.method.plan_rollouts(1, 1, [item.item_id], [failed]) == plans and len(prompts) == 2
    assert all(plan.n == 7 and plan.context == f"{run.method.written[item.item_id]} {item.prompt}" for plan in plans)
    assert asked(tmp_path) == ["answer"]
    own, hinted = group_of([0] * 8), group_of([1, 0, 1, 0, 0, 0, 0], source="hinted")
    (group,) = run.method.inject([replace(own, rollouts=(*own.rollouts, *hinted.rollouts))])
    assert outcome_counts(group) == {("policy", False): 1, ("hinted", True): 2, ("hinted", False): 5}


# --- regft --------------------------------------------------------------------------------------------------------


def test_hard_items_are_tried_with_most_of_the_solution_and_only_their_traces_are_learned(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    run = training(Regft, tmp_path)
    items = small_split.items[:2]
    hard, easy = group_of([0] * 8, items[0].item_id), group_of([1] * 8, items[1].item_id)
    (plan,) = run.method.plan_rollouts(0, 1, [], [hard, easy])
    steps = items[0].solution.split("\\boxed")[0]
    assert plan.item_id == hard.item_id and plan.n == 8
    assert plan.context == f"{steps[: round(0.8 * len(steps))]} {hard.prompt}"
    assert run.method.plan_rollouts(0, 2, [], [hard, easy]) == []
    hinted = group_of([1, 0, 1, 0], hard.item_id, source="hinted")
    both = replace(hard, rollouts=(*hard.rollouts, *hinted.rollouts))
    assert run.method.inject([both, easy]) == []
    assert run.method.successes == [(hard.item_id, "0"), (hard.item_id, "2")]


def test_regft_collects_learns_and_then_reinforces(training: Any, tmp_path: Path) -> None:
    run = training(Regft, tmp_path, steps=12, epochs=2)
    run.run()
    run.save(finished=True)
    phases = [
        "collect" if line["updates"] == 0 else "learn" if not line["rollouts"] else "reinforce"
        for line in read_metrics(tmp_path)
    ]
    assert phases == sorted(phases, key=["collect", "learn", "reinforce"].index)
    assert set(phases) >= {"collect", "learn"}
    sources = Counter(read_ledger(tmp_path, ("source",))["source"].to_pylist())
    assert sources["hinted"] > 0 and sources["policy"] > 0


# --- curriculum_easy_first ----------------------------------------------------------------------------------------


def test_easy_and_learnable_items_come_first(training: Any, tmp_path: Path, small_split: Split) -> None:
    run = training(CurriculumEasyFirst, tmp_path)
    solvable = set(small_split.ids("easy")) | set(small_split.ids("learnable"))
    first = {item_id for step in range(10) for item_id in run.method.select_items(step)}
    assert first == solvable
    run.services.progress = 0.5
    assert run.method.select_items(3) == Method.select_items(run.method, 3)
