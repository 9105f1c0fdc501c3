"""The methods that claim hard problems: two steps of each through the loop, and each formula computed another way."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killed_run import bytes_of_run, run_whole_and_killed
from rollout_groups import group_of, method_of, outcome_counts, rollout_of
from slow_parameters import but_first_slow

from unlearnbench.harness.judge import track_of
from unlearnbench.harness.privileged import asked
from unlearnbench.method import LossBatch, Method, Visit, settings_of
from unlearnbench.methods import load, locate
from unlearnbench.methods.clip_higher import ClipHigher
from unlearnbench.methods.curriculum_easy_first import CurriculumEasyFirst
from unlearnbench.methods.dense_then_binary import DenseThenBinary
from unlearnbench.methods.hints import Hints
from unlearnbench.methods.knapsack import Knapsack, allocate
from unlearnbench.methods.outcome_exploration import OutcomeExploration
from unlearnbench.methods.pope import Pope
from unlearnbench.methods.remind import Remind
from unlearnbench.methods.replay import REPLAYED, Replay
from unlearnbench.methods.rl_zvp import RlZvp
from unlearnbench.records import Recipe, RolloutGroup
from unlearnbench.training.ledger import read_metrics

READS = {
    "clip_higher": set(),
    "replay": set(),
    "self_distill": set(),
    "drift": set(),
    "rl_zvp": set(),
    "outcome_exploration": set(),
    "knapsack": set(),
    "remind": set(),
    "dense_then_binary": {"process"},
    "pope": {"solution"},
    "hints": {"solution"},
    "opsd": {"solution"},
    "regft": {"solution"},
    "curriculum_easy_first": {"labels"},
}
"""What each method asks the judge for."""
CHANGES = {
    "self_distill": {"read": False},
    "drift": {"read": False},
    "opsd": {"read": False},
    "hints": {"exempt": 0.0},
    "pope": {"prompts_per_step": 40},
    "curriculum_easy_first": {"prompts_per_step": 40},
}
"""What makes two steps reach a method's own part."""


@pytest.mark.parametrize("name", READS)
def test_two_steps_of_a_method_move_the_policy_and_read_what_its_track_says(
    training: Any, tmp_path: Path, name: str
) -> None:
    cls = load(locate(name))
    assert cls.__name__ == "".join(part.capitalize() for part in name.split("_"))
    assert cls.source.startswith("arXiv ")
    run = training(cls, tmp_path, steps=2, **CHANGES.get(name, {}))
    before = [weight.clone() for weight in run.models.policy.model.parameters()]
    run.run()
    run.save(finished=True)
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [0, 1]
    assert all(np.isfinite(value) for line in lines for value in line.values() if value is not None)
    assert set(asked(tmp_path)) == READS[name]
    assert track_of("verifier", asked(tmp_path)) == cls.track
    changed = any(not torch.equal(a, b) for a, b in zip(before, run.models.policy.model.parameters(), strict=True))
    assert changed == (run.meter.trained > 0)
    assert changed or name == "regft"  # which still collects


STATEFUL: dict[type[Method], dict[str, Any]] = {
    Replay: {},
    Remind: {"joins": 1.0, "every": 1, "first": 0.0},
    OutcomeExploration: {},
    Knapsack: {},
    RlZvp: {},
    Pope: {"prompts_per_step": 40},
    Hints: {"exempt": 0.0, "variant": "self"},
    DenseThenBinary: {},
    CurriculumEasyFirst: {},
}


@pytest.mark.parametrize("cls", but_first_slow(STATEFUL, first=3), ids=lambda cls: cls.__name__)
def test_a_run_that_was_killed_half_way_is_the_same_bit_for_bit(
    training: Any, tmp_path: Path, cls: type[Method]
) -> None:
    run_whole_and_killed(training, tmp_path, cls, steps=4, **STATEFUL[cls])
    whole, broken = bytes_of_run(tmp_path / "whole"), bytes_of_run(tmp_path / "broken")
    assert whole["metrics.jsonl"] and whole["checkpoint/model.safetensors"]
    assert broken == whole


# --- clip_higher --------------------------------------------------------------------------------------------------


def test_clip_higher_raises_the_upper_clip_and_nothing_else() -> None:
    recipe = Recipe(kl=0.3, clip_low=0.1, clip_high=0.1, learning_rate=0.5)
    changed = settings_of(ClipHigher, recipe, {}).model_dump()
    assert {key for key, value in recipe.model_dump().items() if changed[key] != value} == {"clip_low", "clip_high"}
    logprobs = torch.log(torch.tensor([[1.25, 1.3, 0.79, 0.81]])).requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    batch = LossBatch(logprobs, torch.zeros(1, 4), None, None, advantages, torch.ones(1, 4))
    method_of(ClipHigher).policy_loss(batch).sum().backward()
    assert (logprobs.grad != 0).tolist() == [[True, False, False, True]]  # type: ignore[union-attr]


def test_replay_draws_32_and_keeps_one_success_and_seven_failures(training: Any, tmp_path: Path) -> None:
    run = training(Replay, tmp_path)
    (plan,) = run.method.plan_rollouts(0, 0, ["a"], [])
    assert plan.n == 32
    item_id = run.services.items[0].item_id
    (kept,) = run.method.inject([group_of([1] * 5 + [0] * 27, item_id)])
    assert outcome_counts(kept) == {("policy", True): 1, ("policy", False): 7}
    (few,) = run.method.inject([group_of([1] * 30 + [0] * 2, item_id)])
    assert outcome_counts(few) == {("policy", True): 1, ("policy", False): 2}


def test_a_missing_success_comes_from_the_last_five_and_each_is_used_twice(training: Any, tmp_path: Path) -> None:
    run = training(Replay, tmp_path)
    item_id = run.services.items[0].item_id
    assert [len(g) for g in run.method.inject([group_of([0] * 32, item_id)])] == [7], "nothing to replay yet"
    run.method.inject([group_of([1] * 7 + [0] * 25, item_id)])
    used: Counter[str] = Counter()
    for step in range(1, 13):
        run.services.step = step
        run.method.load_state_dict(run.method.state_dict())  # as after a resume, every time
        (kept,) = run.method.inject([group_of([0] * 32, item_id)])
        again = [r for r in kept if r.source == REPLAYED]
        assert len(kept) == (8 if step <= 10 else 7) and len(again) == len(kept) - 7
        used.update(r.completion for r in again)
        assert all(np.isnan(r.logprobs).all() and r.reward == 1.0 for r in again)
    assert used == dict.fromkeys(["2", "3", "4", "5", "6"], 2)


def test_the_released_code_keeps_uniformly_and_replays_three_times(training: Any, tmp_path: Path) -> None:
    run = training(Replay, tmp_path, variant="code")
    assert run.method.plan_rollouts(0, 0, ["a"], [])[0].n == 64
    item_id = run.services.items[0].item_id
    right = []
    for step in range(200):
        run.services.step = step
        (kept,) = run.method.inject([group_of([1] * 32 + [0] * 32, item_id)])
        assert len(kept) == 8
        right.append(sum(bool(r.verdict.correct) for r in kept))
    # Eight of 64 without replacement, half of them right: hypergeometric, mean 4 and variance 8/4 * 56/63.
    assert abs(np.mean(right) - 4) < 4 * (2 * 56 / 63 / 200) ** 0.5
    assert len(set(right)) > 4
    ids = [item.item_id for item in run.services.items[:20]]
    run.method.inject([group_of([1] * 9 + [0] * 55, item_id) for item_id in ids])
    replays: Counter[str] = Counter()
    for step in range(200, 216):
        run.services.step = step
        kept = run.method.inject([group_of([0] * 64, item_id) for item_id in ids])
        replays.update(r.completion for group in kept for r in group if r.source == REPLAYED)
    assert set(replays) <= {"4", "5", "6", "7", "8"}, "the last five"
    assert abs(replays.total() - 300 / 8) < 4 * (300 * 7 / 64) ** 0.5, "15 an item, each kept in one of eight draws"
    assert not any(run.method.past[item_id] for item_id in ids)


def test_replayed_tokens_have_ratio_one_at_the_update_that_reads_them(training: Any, tmp_path: Path) -> None:
    run = training(Replay, tmp_path, steps=8, prompts_per_step=40, updates_per_batch=1)
    sources: set[str] = set()

    def watched(batch: LossBatch) -> torch.Tensor:
        sources.update(batch.sources)
        replayed = torch.tensor([source == REPLAYED for source in batch.sources])
        assert not replayed.any() or float((batch.ratio.detach()[replayed] - 1).abs().max()) == 0.0
        return Replay.policy_loss(run.method, batch)

    run.method.policy_loss = watched
    run.run()
    assert REPLAYED in sources


# --- rl_zvp -------------------------------------------------------------------------------------------------------


def test_zero_variance_groups_have_the_advantages_of_the_paper() -> None:
    """0.1 (1, 3) for a rollout of an all-right group with these entropies, -0.1 (5 - 2, 0) for one of an all-wrong."""
    method = method_of(RlZvp)
    method.augment([group_of([1, 1], "right"), group_of([0, 0], "wrong"), group_of([1, 0], "mixed")])
    logprobs = torch.full((3, 3), -1.0, requires_grad=True)
    entropy = torch.tensor([[1.0, 3.0, 9.0], [2.0, 5.0, 9.0], [1.0, 1.0, 1.0]], requires_grad=True)
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 0], [1, 1, 1]])
    own = torch.tensor([[0.0] * 3, [0.0] * 3, [0.7] * 3])
    batch = LossBatch(
        logprobs, torch.full((3, 3), -1.0), None, entropy, own, mask, item_ids=("right", "wrong", "mixed")
    )
    loss = method.policy_loss(batch)
    shaped = torch.tensor([[0.1, 0.3, 0.0], [-0.3, 0.0, -0.5], [0.7, 0.7, 0.7]])
    torch.testing.assert_close(loss[mask > 0], -shaped[mask > 0])
    loss[mask > 0].sum().backward()
    assert entropy.grad is None, "the entropy weighs and is not trained"
    torch.testing.assert_close(logprobs.grad[mask > 0], -shaped[mask > 0])  # type: ignore[index]


def test_groups_without_variance_are_trained_on_with_the_policys_entropy(training: Any, tmp_path: Path) -> None:
    run = training(RlZvp, tmp_path, kl=0.0)
    groups = run._choose(run._collect())
    assert len(groups) == run.recipe.prompts_per_step
    assert {1, -1} >= set(run.method.uniform.values()) != set()
    seen: list[LossBatch] = []
    plain = run.method.policy_loss
    run.method.policy_loss = lambda batch: seen.append(batch) or plain(batch)  # type: ignore[func-returns-value]
    batch = run._batch(groups[:3])
    run.passes.backward(batch, run.passes.reference_logprobs([batch])[0])
    one = seen[0]
    part = next(iter(run.passes._slices(batch)))
    with torch.no_grad():
        scores = torch.log_softmax(run.models.policy.model(input_ids=part.input_ids).logits[:, :-1], -1)
    wanted = -(scores.exp() * scores).sum(-1)
    assert one.entropy is not None
    torch.testing.assert_close(one.entropy[one.mask > 0], wanted[one.mask > 0], rtol=1e-4, atol=1e-5)


# --- outcome_exploration ------------------------------------------------------------------------------------------


def test_bonuses_are_those_of_counting_answers_by_hand() -> None:
    method = method_of(OutcomeExploration, historical=0.5, batch=0.25)
    method.setup()
    answers = ["7", "7", "8", None]

    def group(given: Sequence[str | None]) -> RolloutGroup:
        return RolloutGroup("a", "1+1=", 0, tuple(rollout_of(False, answer) for answer in given))

    for rollout in (*group(["7", "9", "9"]), *group(answers)):
        assert method.reward(rollout) == 0.0
    seen = {"7": 3, "8": 1, "9": 2}
    rare = [0.0 if a is None else min(1.0, (1 / seen[a]) ** 0.5) for a in answers]
    repeated = [
        -1.0 if a is None else -sum(b == a for j, b in enumerate(answers) if j != i) / 4 for i, a in enumerate(answers)
    ]
    total = np.array([0.5 * r + 0.25 * b for r, b in zip(rare, repeated, strict=True)])
    np.testing.assert_allclose(method.bonus(group(answers)), total - total.mean())
    assert method.keep(group(answers)), "all are wrong, and differ in what they say"
    assert not method.keep(group(["8", "8", "8"]))
    right = RolloutGroup("a", "1+1=", 0, (rollout_of(True, "8"), rollout_of(False, "7")))
    extra = method.advantages(right) - Method(method.settings).advantages(right)
    np.testing.assert_allclose(extra, method.bonus(right))
    assert extra[0] > 0 > extra[1], "8 was given less often than 7"
    again = method_of(OutcomeExploration, historical=0.5, batch=0.25)
    again.load_state_dict(method.state_dict())
    np.testing.assert_allclose(again.bonus(group(answers)), total - total.mean())


# --- knapsack -----------------------------------------------------------------------------------------------------


def _signal(rate: float, n: int) -> float:
    """Probability that n rollouts are neither all right nor all wrong, by enumerating them."""
    outcomes = itertools.product((0, 1), repeat=n)
    return sum(rate ** sum(one) * (1 - rate) ** (n - sum(one)) for one in outcomes if 0 < sum(one) < n)


@given(st.lists(st.floats(0.02, 0.98), min_size=1, max_size=4), st.integers(0, 8))
@settings(max_examples=30)
def test_an_allocation_is_the_best_of_all_there_are(rates: list[float], extra: int) -> None:
    least, most = 1, 6
    total = min(least * len(rates) + extra, most * len(rates))
    found = allocate(rates, total, least, most)
    assert sum(found) == total and min(found) >= least and max(found) <= most

    def value(counts: Sequence[int]) -> float:
        return sum(_signal(rate, n) * rate * (1 - rate) ** 2 for rate, n in zip(rates, counts, strict=True))

    every = itertools.product(range(least, most + 1), repeat=len(rates))
    assert value(found) == pytest.approx(max(value(one) for one in every if sum(one) == total), abs=1e-12)


def test_hard_items_get_more_rollouts_than_solved_ones_for_the_same_cost(training: Any, tmp_path: Path) -> None:
    run = training(Knapsack, tmp_path)
    ids = [item.item_id for item in run.services.items[:3]]
    for item_id, right in zip(ids, (0, 4, 8), strict=True):
        run.services.visits[item_id] = [Visit(0, 8, right), Visit(1, 8, right)]
    plans = {plan.item_id: plan.n for plan in run.method.plan_rollouts(2, 0, ids, [])}
    assert sum(plans.values()) == 3 * run.recipe.group_size
    assert plans[ids[0]] > plans[ids[1]] > plans[ids[2]] == 2
    assert run.method.plan_rollouts(2, 1, ids, []) == []


# --- remind -------------------------------------------------------------------------------------------------------


def test_items_once_solved_are_reviewed_in_place_of_others(training: Any, tmp_path: Path) -> None:
    run = training(Remind, tmp_path, joins=1.0, prompts_per_step=20)
    method, ids = run.method, [item.item_id for item in run.services.items]
    solved, lost = ids[:3], ids[3]
    run.services.progress = 0.5
    method.select_items(1)
    method.inject([*(group_of([1, 1], item) for item in solved), group_of([1, 0], lost)])
    assert method.queue == solved
    usual = Method.select_items(method, 5)
    chosen = method.select_items(5)
    assert chosen[:18] == list(usual)[:18] and method.reviewed == solved[:2] and method.queue == solved[2:]
    assert set(solved[:2]) <= set(chosen) and len(chosen) <= 20
    method.inject([group_of([1, 1], solved[0]), group_of([0, 1], solved[1])])
    assert method.queue == [solved[2], solved[1]], "one has graduated, the other waits again"
    assert method.select_items(6) == Method.select_items(method, 6), "not every step"
    run.services.progress = 0.05
    assert method.select_items(10) == Method.select_items(method, 10), "not at first"


def test_a_quarter_of_what_is_solved_joins_the_queue(training: Any, tmp_path: Path) -> None:
    run = training(Remind, tmp_path)
    run.method.select_items(1)
    joined = 0
    for step in range(400):
        run.services.step, run.method.queue = step, []
        run.method.inject([group_of([1, 1], "a")])
        joined += len(run.method.queue)
    assert abs(joined / 400 - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5
