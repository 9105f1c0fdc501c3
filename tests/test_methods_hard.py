"""The methods that claim hard problems: two steps of each through the loop, and each formula computed another way."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_methods_teaching import same_after_a_kill

from unlearnbench.errors import MethodError, SplitError
from unlearnbench.harness.judge import track_of
from unlearnbench.harness.privileged import Privileged, asked
from unlearnbench.method import LossBatch, Method, Visit, settings_of
from unlearnbench.methods import load, locate
from unlearnbench.methods.clip_higher import ClipHigher
from unlearnbench.methods.curriculum_easy_first import CurriculumEasyFirst
from unlearnbench.methods.dense_then_binary import DenseThenBinary
from unlearnbench.methods.hints import Hints, tiers_of
from unlearnbench.methods.knapsack import Knapsack, allocate
from unlearnbench.methods.outcome_exploration import OutcomeExploration
from unlearnbench.methods.pope import Pope
from unlearnbench.methods.regft import Regft
from unlearnbench.methods.remind import Remind
from unlearnbench.methods.replay import REPLAYED, Replay
from unlearnbench.methods.rl_zvp import RlZvp
from unlearnbench.records import Recipe, Rollout, RolloutGroup, Verdict
from unlearnbench.splits import Split
from unlearnbench.training.ledger import read_ledger, read_metrics
from unlearnbench.verifier import Verifier
from unlearnbench.verifier.trace import trace_steps, valid_steps

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


def _method(cls: type[Method], **changes: Any) -> Any:
    return cls(settings_of(cls, Recipe(), changes))


def _rollout(
    right: bool, answer: str | None = "1", item_id: str = "a", index: int = 0, source: str = "policy"
) -> Rollout:
    tokens = np.arange(3, dtype=np.int32)
    verdict = Verdict(right, answer, "match" if right else "mismatch")
    scores = np.full(3, -1.0, dtype=np.float32)
    context = np.arange(2, dtype=np.int32)
    return Rollout(item_id, index, context, tokens, scores, f"{index}", "stop", verdict, float(right), source=source)


def _group(outcomes: Sequence[Any], item_id: str = "a", source: str = "policy") -> RolloutGroup:
    rollouts = [_rollout(bool(r), item_id=item_id, index=k, source=source) for k, r in enumerate(outcomes)]
    return RolloutGroup(item_id, "1+1=", 0, tuple(rollouts))


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


@pytest.mark.parametrize("cls", STATEFUL, ids=lambda cls: cls.__name__)
def test_a_run_that_was_killed_half_way_is_the_same_bit_for_bit(
    training: Any, tmp_path: Path, cls: type[Method]
) -> None:
    same_after_a_kill(training, tmp_path, cls, steps=4, **STATEFUL[cls])


# --- clip_higher --------------------------------------------------------------------------------------------------


def test_clip_higher_raises_the_upper_clip_and_nothing_else() -> None:
    recipe = Recipe(kl=0.3, clip_low=0.1, clip_high=0.1, learning_rate=0.5)
    changed = settings_of(ClipHigher, recipe, {}).model_dump()
    assert {key for key, value in recipe.model_dump().items() if changed[key] != value} == {"clip_low", "clip_high"}
    logprobs = torch.log(torch.tensor([[1.25, 1.3, 0.79, 0.81]])).requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    batch = LossBatch(logprobs, torch.zeros(1, 4), None, None, advantages, torch.ones(1, 4))
    _method(ClipHigher).policy_loss(batch).sum().backward()
    assert (logprobs.grad != 0).tolist() == [[True, False, False, True]]  # type: ignore[union-attr]


# --- replay -------------------------------------------------------------------------------------------------------


def _counts(group: RolloutGroup) -> Counter[tuple[str, bool]]:
    return Counter((rollout.source, bool(rollout.verdict.correct)) for rollout in group)


def test_replay_draws_32_and_keeps_one_success_and_seven_failures(training: Any, tmp_path: Path) -> None:
    run = training(Replay, tmp_path)
    (plan,) = run.method.plan_rollouts(0, 0, ["a"], [])
    assert plan.n == 32
    item_id = run.services.items[0].item_id
    (kept,) = run.method.inject([_group([1] * 5 + [0] * 27, item_id)])
    assert _counts(kept) == {("policy", True): 1, ("policy", False): 7}
    (few,) = run.method.inject([_group([1] * 30 + [0] * 2, item_id)])
    assert _counts(few) == {("policy", True): 1, ("policy", False): 2}


def test_a_missing_success_comes_from_the_last_five_and_each_is_used_twice(training: Any, tmp_path: Path) -> None:
    run = training(Replay, tmp_path)
    item_id = run.services.items[0].item_id
    assert [len(g) for g in run.method.inject([_group([0] * 32, item_id)])] == [7], "nothing to replay yet"
    run.method.inject([_group([1] * 7 + [0] * 25, item_id)])
    used: Counter[str] = Counter()
    for step in range(1, 13):
        run.services.step = step
        run.method.load_state_dict(run.method.state_dict())  # as after a resume, every time
        (kept,) = run.method.inject([_group([0] * 32, item_id)])
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
        (kept,) = run.method.inject([_group([1] * 32 + [0] * 32, item_id)])
        assert len(kept) == 8
        right.append(sum(bool(r.verdict.correct) for r in kept))
    # Eight of 64 without replacement, half of them right: hypergeometric, mean 4 and variance 8/4 * 56/63.
    assert abs(np.mean(right) - 4) < 4 * (2 * 56 / 63 / 200) ** 0.5
    assert len(set(right)) > 4
    ids = [item.item_id for item in run.services.items[:20]]
    run.method.inject([_group([1] * 9 + [0] * 55, item_id) for item_id in ids])
    replays: Counter[str] = Counter()
    for step in range(200, 216):
        run.services.step = step
        kept = run.method.inject([_group([0] * 64, item_id) for item_id in ids])
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
    method = _method(RlZvp)
    method.augment([_group([1, 1], "right"), _group([0, 0], "wrong"), _group([1, 0], "mixed")])
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
    run.passes.backward(batch, run.passes.reference_logprobs(batch))
    one = seen[0]
    part = next(iter(run.passes._slices(batch)))
    with torch.no_grad():
        scores = torch.log_softmax(run.models.policy.model(input_ids=part.input_ids).logits[:, :-1], -1)
    wanted = -(scores.exp() * scores).sum(-1)
    assert one.entropy is not None
    torch.testing.assert_close(one.entropy[one.mask > 0], wanted[one.mask > 0], rtol=1e-4, atol=1e-5)


# --- outcome_exploration ------------------------------------------------------------------------------------------


def test_bonuses_are_those_of_counting_answers_by_hand() -> None:
    method = _method(OutcomeExploration, historical=0.5, batch=0.25)
    method.setup()
    answers = ["7", "7", "8", None]

    def group(given: Sequence[str | None]) -> RolloutGroup:
        return RolloutGroup("a", "1+1=", 0, tuple(_rollout(False, answer) for answer in given))

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
    right = RolloutGroup("a", "1+1=", 0, (_rollout(True, "8"), _rollout(False, "7")))
    extra = method.advantages(right) - Method(method.settings).advantages(right)
    np.testing.assert_allclose(extra, method.bonus(right))
    assert extra[0] > 0 > extra[1], "8 was given less often than 7"
    again = _method(OutcomeExploration, historical=0.5, batch=0.25)
    again.load_state_dict(method.state_dict())
    np.testing.assert_allclose(again.bonus(group(answers)), total - total.mean())


# --- knapsack -----------------------------------------------------------------------------------------------------


def _signal(rate: float, n: int) -> float:
    """Probability that n rollouts are neither all right nor all wrong, by enumerating them."""
    outcomes = itertools.product((0, 1), repeat=n)
    return sum(rate ** sum(one) * (1 - rate) ** (n - sum(one)) for one in outcomes if 0 < sum(one) < n)


@given(st.lists(st.floats(0.02, 0.98), min_size=1, max_size=4), st.integers(0, 8))
@settings(max_examples=30, deadline=None)
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
    method.inject([*(_group([1, 1], item) for item in solved), _group([1, 0], lost)])
    assert method.queue == solved
    usual = Method.select_items(method, 5)
    chosen = method.select_items(5)
    assert chosen[:18] == list(usual)[:18] and method.reviewed == solved[:2] and method.queue == solved[2:]
    assert set(solved[:2]) <= set(chosen) and len(chosen) <= 20
    method.inject([_group([1, 1], solved[0]), _group([0, 1], solved[1])])
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
        run.method.inject([_group([1, 1], "a")])
        joined += len(run.method.queue)
    assert abs(joined / 400 - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


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
        (group,) = run.method.inject([_group([0, 0], hard.item_id, source="hinted")])
        assert all(rollout.context_ids is None for rollout in group)
    assert all(steps.startswith(prefix) for prefix in prefixes)
    assert [len(prefix) for prefix in prefixes] == [-(-len(steps) * k // 4) for k in (1, 2, 3, 4, 4, 4)]
    run.method.inject([_group([0, 0], solved.item_id)])
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
    failed, solved = (_group(o, item.item_id) for o, item in zip(([0] * 8, [1] * 8), small_split.items, strict=False))
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
    own = _group([0] * 8)
    tiers = _group([0, 0, 0, 0, 0, 1, 1, 0], source="hinted")
    (group,) = run.method.inject([replace(own, rollouts=(*own.rollouts, *tiers.rollouts))])
    assert _counts(group) == {("policy", False): 7, ("hinted", True): 1}
    assert group.rollouts[-1].completion == "5" and group.rollouts[-1].context_ids is None
    nothing = _group([0] * 4, source="hinted")
    (group,) = run.method.inject([replace(own, rollouts=(*own.rollouts, *nothing.rollouts))])
    assert _counts(group) == {("policy", False): 8}


def test_a_hint_of_its_own_is_written_once_from_the_answer(training: Any, tmp_path: Path, small_split: Split) -> None:
    run = training(Hints, tmp_path, variant="self", exempt=0.0)
    item = small_split.items[0]
    failed = replace(_group([0] * 8, item.item_id), prompt=item.prompt)
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
    own, hinted = _group([0] * 8), _group([1, 0, 1, 0, 0, 0, 0], source="hinted")
    (group,) = run.method.inject([replace(own, rollouts=(*own.rollouts, *hinted.rollouts))])
    assert _counts(group) == {("policy", False): 1, ("hinted", True): 2, ("hinted", False): 5}


# --- regft --------------------------------------------------------------------------------------------------------


def test_hard_items_are_tried_with_most_of_the_solution_and_only_their_traces_are_learned(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    run = training(Regft, tmp_path)
    items = small_split.items[:2]
    hard, easy = _group([0] * 8, items[0].item_id), _group([1] * 8, items[1].item_id)
    (plan,) = run.method.plan_rollouts(0, 1, [], [hard, easy])
    steps = items[0].solution.split("\\boxed")[0]
    assert plan.item_id == hard.item_id and plan.n == 8
    assert plan.context == f"{steps[: round(0.8 * len(steps))]} {hard.prompt}"
    assert run.method.plan_rollouts(0, 2, [], [hard, easy]) == []
    hinted = _group([1, 0, 1, 0], hard.item_id, source="hinted")
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
