"""The methods of track `verifier`: two steps of each through the loop, and each formula against another computation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlearnbench.harness.judge import track_of
from unlearnbench.harness.privileged import asked
from unlearnbench.method import LossBatch, Method, Visit, settings_of
from unlearnbench.methods import load, locate
from unlearnbench.methods.curriculum import Curriculum
from unlearnbench.methods.dapo import Dapo
from unlearnbench.methods.dars import Dars
from unlearnbench.methods.dr_grpo import DrGrpo
from unlearnbench.methods.format_reward import FormatReward
from unlearnbench.methods.grpo import Grpo
from unlearnbench.methods.gspo import Gspo
from unlearnbench.methods.maxrl import Maxrl
from unlearnbench.methods.negative_only import NegativeOnly
from unlearnbench.methods.no_kl import NoKl
from unlearnbench.methods.pass_at_k import PassAtK
from unlearnbench.methods.positive_only import PositiveOnly
from unlearnbench.methods.random_reward import RandomReward
from unlearnbench.methods.rloo import Rloo
from unlearnbench.methods.unlikeliness import Unlikeliness
from unlearnbench.records import Recipe, Rollout, RolloutGroup, Verdict
from unlearnbench.training.batch import make_batch, token_logprobs
from unlearnbench.training.ledger import read_ledger, read_metrics

METHODS = (
    "curriculum",
    "dapo",
    "dars",
    "dr_grpo",
    "format_reward",
    "gspo",
    "maxrl",
    "negative_only",
    "no_kl",
    "pass_at_k",
    "positive_only",
    "random_reward",
    "rloo",
    "unlikeliness",
)
RECIPE = Recipe(prompts_per_step=12, max_tokens=20)
RATES = (0.02, 0.3, 0.9)


def _method(cls: type[Method], **changes: Any) -> Any:
    return cls(settings_of(cls, RECIPE, changes))


def _rollout(right: bool, length: int = 3, logprob: float = -1.0, text: str = "") -> Rollout:
    tokens = np.arange(length, dtype=np.int32)
    logprobs = np.full(length, logprob, dtype=np.float32)
    verdict = Verdict(right, "1", "match" if right else "mismatch")
    return Rollout("a", 0, np.arange(2, dtype=np.int32), tokens, logprobs, text, "stop", verdict, float(right))


def _group(outcomes: Sequence[Any], item_id: str = "a") -> RolloutGroup:
    return RolloutGroup(item_id, "1+1=", 0, tuple(_rollout(bool(right)) for right in outcomes))


def _expected_gradient(advantages: Callable[[Sequence[int]], Any], n: int, p: float) -> tuple[float, float]:
    """Mean and variance of Σ A_i d log π(y_i)/dθ over all outcomes of n rollouts that are right with p = sigmoid(θ)."""
    values, weights = [], []
    for outcomes in itertools.product((0, 1), repeat=n):
        scores = np.array([1 - p if right else -p for right in outcomes])
        values.append(float((np.asarray(advantages(outcomes)) * scores).sum()))
        weights.append(np.prod([p if right else 1 - p for right in outcomes]))
    mean = float(np.dot(values, weights))
    return mean, float(np.dot((np.array(values) - mean) ** 2, weights))


@pytest.mark.parametrize("name", METHODS)
def test_two_steps_through_the_loop(name: str, training: Any, tmp_path: Path) -> None:
    cls = load(locate(name))
    assert cls.__name__ == "".join(part.capitalize() for part in name.split("_"))
    assert cls.source.startswith("arXiv ")
    run = training(cls, tmp_path, steps=2)
    before = [parameter.clone() for parameter in run.models.policy.model.parameters()]
    run.run()
    run.save(finished=True)
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [0, 1]
    assert all(np.isfinite(value) for line in lines for value in line.values() if value is not None)
    assert track_of(cls.track, asked(tmp_path)) == "verifier"
    updates = sum(line["updates"] for line in lines)
    changed = any(not torch.equal(a, b) for a, b in zip(before, run.models.policy.model.parameters(), strict=True))
    assert changed == (updates > 0)
    assert updates > 0 or name == "format_reward"  # a policy that always boxes its answer leaves that control no signal


# --- advantages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_pass_at_k_is_unbiased_for_the_gradient_of_pass_at_k_and_its_baseline_lowers_the_variance(
    k: int, p: float
) -> None:
    n, method = 6, _method(PassAtK, k=k)

    def plain(outcomes: Sequence[int]) -> list[float]:
        """The share of sets of k that hold a rollout and a right one: what has no baseline."""
        sets = list(itertools.combinations(range(n), k))
        return [sum(max(outcomes[j] for j in s) for s in sets if i in s) / len(sets) for i in range(n)]

    exact = k * (1 - p) ** (k - 1) * p * (1 - p)
    mean, variance = _expected_gradient(lambda outcomes: method.advantages(_group(outcomes)) / n, n, p)
    raw_mean, raw_variance = _expected_gradient(plain, n, p)
    assert mean == pytest.approx(exact, rel=1e-9)
    assert raw_mean == pytest.approx(exact, rel=1e-9)
    assert variance <= raw_variance * (1 + 1e-9)
    if 1 < k < n and p > 0.1:
        assert variance < 0.9 * raw_variance


def test_pass_at_k_averages_what_a_rollout_adds_to_each_set_of_k() -> None:
    for n, k in ((8, 4), (5, 2), (3, 4)):
        for outcomes in itertools.product((0, 1), repeat=n):
            size = min(n, k)
            sets = list(itertools.combinations(range(n), size))
            added = [
                sum(
                    max(outcomes[j] for j in s) - max((outcomes[j] for j in s if j != i), default=0)
                    for s in sets
                    if i in s
                )
                for i in range(n)
            ]
            got = _method(PassAtK, k=k).advantages(_group(outcomes))
            assert got == pytest.approx(n * np.array(added) / len(sets))


@pytest.mark.parametrize("p", RATES)
def test_maxrl_expects_the_gradient_of_the_log_likelihood_cut_off_at_one_less_than_its_rollouts(p: float) -> None:
    n, method = 6, _method(Maxrl)
    mean, _ = _expected_gradient(lambda outcomes: method.advantages(_group(outcomes)) / n, n, p)
    slope = p * (1 - p)
    series = sum((1 - p) ** (k - 1) * slope for k in range(1, n))  # d/dθ of -Σ (1 - p)^k / k
    assert mean == pytest.approx(series, rel=1e-9)

    def without_control(outcomes: Sequence[int]) -> Any:
        rewards = np.array(outcomes)
        return rewards / max(1, rewards.sum())

    mean, _ = _expected_gradient(without_control, n, p)
    assert mean == pytest.approx(series + (1 - p) ** (n - 1) * slope, rel=1e-9)


@pytest.mark.parametrize("p", RATES)
def test_rloo_is_unbiased_and_equals_the_leave_one_out_sum(p: float) -> None:
    n, method = 6, _method(Rloo)
    mean, _ = _expected_gradient(lambda outcomes: method.advantages(_group(outcomes)) / n, n, p)
    assert mean == pytest.approx(p * (1 - p), rel=1e-9)
    got = method.advantages(_group([1, 0, 0, 1]))
    assert got == pytest.approx([1 - 1 / 3, -2 / 3, -2 / 3, 1 - 1 / 3])


def test_rloo_has_the_gradient_of_plain_log_probability_however_far_the_policy_moved() -> None:
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], requires_grad=True)
    advantages = torch.tensor([[2.0, 2.0], [-1.0, -1.0]])
    batch = LossBatch(logprobs, logprobs.detach() - 5, None, None, advantages, torch.ones(2, 2))
    _method(Rloo).policy_loss(batch).sum().backward()
    assert torch.equal(logprobs.grad, -advantages)  # type: ignore[arg-type]


def test_dr_grpo_divides_by_neither_spread_nor_length(training: Any, tmp_path: Path) -> None:
    assert _method(DrGrpo).advantages(_group([1, 0, 0, 0])) == pytest.approx([0.75, -0.25, -0.25, -0.25])
    run = training(DrGrpo, tmp_path)
    batch = run._batch(run._choose(run._collect()))
    assert torch.allclose(batch.weights, batch.mask / (len(batch) * run.recipe.max_tokens))


def test_unlikeliness_lowers_a_success_by_the_share_of_its_group_that_is_less_likely() -> None:
    outcomes, logprobs = [1, 1, 0, 1], [-0.1, -0.5, -0.9, -0.5]  # ranks from below: 3, 1.5, 0, 1.5
    rollouts = tuple(_rollout(bool(r), k + 2, lp) for k, (r, lp) in enumerate(zip(outcomes, logprobs, strict=True)))
    group = RolloutGroup("a", "1+1=", 0, rollouts)
    rewards = np.array([1 - 0.25 * 3 / 4, 1 - 0.25 * 1.5 / 4, 0, 1 - 0.25 * 1.5 / 4])
    got = _method(Unlikeliness).advantages(group)
    assert got == pytest.approx((rewards - rewards.mean()) / rewards.std(ddof=1), rel=1e-5)
    assert got[1] == got[3] > got[0] > 0 > got[2]
    assert _method(Unlikeliness, beta_rank=0.0).advantages(group) == pytest.approx(_method(Grpo).advantages(group))


@pytest.mark.parametrize(("cls", "right"), [(NegativeOnly, False), (PositiveOnly, True)])
def test_one_sided_reinforcement_learns_from_its_side_alone(
    cls: type[Method], right: bool, training: Any, tmp_path: Path
) -> None:
    method = _method(cls)
    mixed, other = _group([1, 0, 1]), _group([not right] * 3)
    (kept,) = method.augment([mixed])
    assert [r.verdict.correct for r in kept] == [right] * (2 if right else 1)
    assert (method.advantages(kept) == (1.0 if right else -1.0)).all()
    assert method.keep(mixed)
    assert method.keep(_group([right] * 3))
    assert not method.keep(other)

    run = training(cls, tmp_path, updates_per_batch=1, kl=0.0)
    drawn = run._collect()
    groups = run._choose(drawn)
    assert {r.verdict.correct for group in groups for r in group} == {right}
    unmixed = {g.item_id for g in drawn if all(bool(r.verdict.correct) == right for r in g)}
    assert unmixed
    assert unmixed <= {group.item_id for group in groups}  # no baseline, so these teach too
    rollouts = [r for group in groups for r in group]
    batch = make_batch(rollouts, [np.zeros(len(r.token_ids)) for r in rollouts], "token_mean", torch.device("cpu"))
    before = float((batch.behaviour * batch.mask).sum())
    run._update(groups)
    logprobs, _ = token_logprobs(run.models.policy.model, batch, 1.0)
    after = float((logprobs.detach() * batch.mask).sum())
    assert (after > before) == right


# --- losses -------------------------------------------------------------------------------------------------------


def test_gspo_clips_whole_completions_as_a_plain_computation_does() -> None:
    generator = torch.Generator().manual_seed(1)
    lengths, first, width, rows = [1, 4, 7, 7, 3, 5], 2, 9, 6
    mask = torch.zeros(rows, width)
    for row, length in enumerate(lengths):
        mask[row, first : first + length] = 1
    behaviour = -torch.rand(rows, width, generator=generator) * mask
    drift = torch.tensor([0.0, 2e-4, 1e-3, -1e-3, 1e-3, -1e-3])[:, None]  # inside the range, and out on either side
    logprobs = ((behaviour + drift) * mask).requires_grad_()
    sign = torch.tensor([1.0, -2.0, 1.5, -0.5, -1.0, 2.0])[:, None]
    batch = LossBatch(logprobs, behaviour, None, None, sign * mask, mask)
    loss = _method(Gspo).policy_loss(batch)
    weights = mask / mask.sum(1, keepdim=True) / rows
    (weights * loss).sum().backward()

    copy = logprobs.detach().clone().requires_grad_()
    values = []
    for row, length in enumerate(lengths):
        span = slice(first, first + length)
        gap = torch.stack([copy[row, t] - behaviour[row, t] for t in range(first, first + length)]).sum()
        ratio = torch.exp(gap / length)
        advantage = float(sign[row])
        surrogate = torch.min(ratio * advantage, torch.clip(ratio, 1 - 3e-4, 1 + 4e-4) * advantage)
        assert torch.allclose(loss[row, span], -surrogate.expand(length))
        values.append(-surrogate)
    (sum(values) / rows).backward()  # type: ignore[union-attr]
    assert torch.allclose(logprobs.grad, copy.grad, atol=1e-9)  # type: ignore[arg-type]
    dead = [bool((logprobs.grad[row] == 0).all()) for row in range(rows)]  # type: ignore[index]
    assert dead == [False, False, True, True, False, False]


def test_dapo_lets_a_ratio_rise_further_than_it_lets_it_fall() -> None:
    logprobs = torch.log(torch.tensor([[1.25, 1.3, 0.79, 0.81]])).requires_grad_()
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    batch = LossBatch(logprobs, torch.zeros(1, 4), None, None, advantages, torch.ones(1, 4))
    method = _method(Dapo)
    method.policy_loss(batch).sum().backward()
    assert (logprobs.grad != 0).tolist() == [[True, False, False, True]]  # type: ignore[union-attr]
    assert method.auxiliary_loss(batch) is None


def test_no_kl_pays_for_no_pass_of_the_reference(training: Any, tmp_path: Path) -> None:
    runs = {cls: training(cls, tmp_path / cls.__name__, steps=1) for cls in (Grpo, NoKl)}
    for run in runs.values():
        run.run()
    assert runs[Grpo].meter.forward > 0 == runs[NoKl].meter.forward
    assert runs[Grpo].meter.trained == runs[NoKl].meter.trained


# --- rewards ------------------------------------------------------------------------------------------------------


def test_dapo_punishes_the_last_fifth_of_the_length() -> None:
    method = _method(Dapo)
    punished = {3: 0.0, 16: 0.0, 17: -0.25, 18: -0.5, 19: -0.75, 20: -1.0}  # 4 of 20 tokens
    for length, amount in punished.items():
        assert method.reward(_rollout(True, length)) == pytest.approx(1 + amount)
        assert method.reward(_rollout(False, length)) == pytest.approx(-1 + amount)
    assert _method(Dapo, overlong_share=0.0).reward(_rollout(True, 20)) == 1.0


def test_random_reward_is_a_fair_coin_that_knows_no_verdict_and_falls_the_same_again(
    training: Any, tmp_path: Path
) -> None:
    run = training(RandomReward, tmp_path)
    rollouts = [r for group in run._collect() for r in group]
    rewards = np.array([r.reward for r in rollouts])
    assert set(rewards) == {0.0, 1.0}
    assert abs(rewards.mean() - 0.5) < 4 * 0.5 / len(rewards) ** 0.5
    flipped = [replace(r, verdict=Verdict(not r.verdict.correct, "1", "match"), completion="other") for r in rollouts]
    assert [run.method.reward(r) for r in flipped] == rewards.tolist()
    run.services.step = 1
    assert [run.method.reward(r) for r in rollouts] != rewards.tolist()


def test_format_reward_asks_for_a_box_that_holds_something() -> None:
    method = _method(FormatReward)
    for text, reward in {
        r"1+1>\boxed{2}": 1.0,
        r"\boxed{ \frac{1}{2} }": 1.0,
        r"\boxed{}": 0.0,
        r"\boxed{ }": 0.0,
        r"\boxed{2": 0.0,
        "2": 0.0,
    }.items():
        assert method.reward(_rollout(False, text=text)) == reward, text
        assert method.reward(_rollout(True, text=text)) == reward, text


# --- what is drawn ------------------------------------------------------------------------------------------------


def test_dapo_draws_other_items_until_enough_groups_are_mixed(training: Any, tmp_path: Path) -> None:
    run = training(Dapo, tmp_path)
    groups = run._collect()
    names = [group.item_id for group in groups]
    first = set(names[: run.recipe.prompts_per_step])
    assert len(names) == len(set(names)) > len(first) == run.recipe.prompts_per_step
    assert run.method.position == len(names)
    kept = run._choose(groups)
    mixed = [g for g in groups if 0 < sum(bool(r.verdict.correct) for r in g) < len(g)]
    assert [g.item_id for g in kept] == [g.item_id for g in mixed]
    assert len(kept) >= run.recipe.prompts_per_step or len(names) == len(run.pool)
    rounds = {r.round for g in groups for r in g}
    assert len(rounds) > 1


def test_dapo_asks_for_as_many_items_as_the_rate_so_far_calls_for(training: Any, tmp_path: Path) -> None:
    run = training(Dapo, tmp_path)
    method, ids = run.method, [item.item_id for item in run.services.items]
    selected = method.select_items(0)
    groups = [_group([1, 0] if i < 8 else [0, 0], item_id) for i, item_id in enumerate(selected)]
    plans = method.plan_rollouts(0, 1, selected, groups)
    assert len(plans) == 6  # 4 of 12 are missing, at two in three
    assert not {plan.item_id for plan in plans} & set(selected)
    assert method.plan_rollouts(0, 2, selected, [_group([1, 0], item_id) for item_id in selected]) == []
    none = [_group([0, 0], item_id) for item_id in selected]
    rest = method.plan_rollouts(0, 1, selected, none)
    assert {plan.item_id for plan in rest} == set(ids) - set(selected)  # at most three times 12, and no item twice


def test_dapo_goes_on_in_the_epoch_after_a_kill(training: Any, tmp_path: Path) -> None:
    few = {"prompts_per_step": 4, "checkpoint_every": 1}
    whole = training(Dapo, tmp_path / "whole", steps=2, **few)
    whole.run()
    training(Dapo, tmp_path / "broken", steps=1, **few).run()
    resumed = training(Dapo, tmp_path / "broken", steps=2, **few)
    assert resumed.method.position > 4
    resumed.run()
    assert resumed.method.position == whole.method.position
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "broken/metrics.jsonl").read_bytes()


def _dars_total(method: Any, right: int, n: int = 8) -> int:
    plans = method.plan_rollouts(0, 1, ["a"], [_group([1] * right + [0] * (n - right))])
    return n + sum(int(plan.n) for plan in plans)


def test_dars_gives_hard_items_the_cumulative_advantage_of_a_half_solved_one() -> None:
    method = _method(Dars)
    assert [_dars_total(method, right) for right in range(9)] == [32, 18, 11, 9, 8, 8, 8, 8, 8]
    half = np.abs(method.advantages(_group([1] * 4 + [0] * 4))).sum()
    for right in (1, 2, 3):
        one = np.abs(method.advantages(_group([1] * right + [0] * (8 - right)))).sum() / 8
        assert abs(_dars_total(method, right) * one - half) <= one / 2
    hard = _method(Dars, schedule="hardness", most=48)
    assert [_dars_total(hard, right) for right in range(5)] == [48, 24, 12, 9, 8]
    for right in (1, 2, 3):
        one = np.abs(hard.advantages(_group([1] * right + [0] * (8 - right)))).sum() / 8
        assert abs(_dars_total(hard, right) * one - max(1, 1.5 * (1 - right / 8)) * half) <= one / 2


def test_dars_draws_what_it_gave_and_no_more(training: Any, tmp_path: Path) -> None:
    run = training(Dars, tmp_path, steps=1)
    for group in run._collect():
        first = [bool(r.verdict.correct) for r in group if r.round == 0]
        assert len(first) == 8
        assert len(group) == [32, 18, 11, 9, 8, 8, 8, 8, 8][sum(first)]
        assert {r.round for r in group} <= {0, 1}


def test_curriculum_prefers_items_that_succeed_half_of_the_time(training: Any, tmp_path: Path) -> None:
    run = training(Curriculum, tmp_path, prompts_per_step=8)
    method, ids = run.method, [item.item_id for item in run.services.items]
    half, never, always = ids[0::3], ids[1::3], ids[2::3]
    for group, right in ((half, 4), (never, 0), (always, 8)):
        for item_id in group:
            run.services.visits[item_id] = [Visit(0, 8, 8 - right), *(Visit(step, 8, right) for step in (1, 2, 3))]
    counts = dict.fromkeys(ids, 0)
    steps = 400
    for step in range(steps):
        run.services.step = step
        chosen = method.select_items(step)
        explored = list(dict.fromkeys(Method.select_items(method, step)[:4]))  # one may come twice where epochs meet
        assert len(set(chosen)) == len(chosen) == 8
        assert chosen[: len(explored)] == explored
        for item_id in chosen[len(explored) :]:
            counts[item_id] += 1
    share = sum(counts[item_id] for item_id in half) / sum(counts.values())
    weight, low = 0.25, 25 / 26 / 26  # p = 13 of 26, 1 of 26 or 25 of 26: the last three visits, smoothed
    expected = weight * len(half) / (weight * len(half) + low * (len(never) + len(always)))
    assert abs(share - expected) < 0.06  # without replacement, and the explored are left out
    assert min(counts.values()) > 0


def test_curriculum_counts_an_item_without_visits_as_half_solved(training: Any, tmp_path: Path) -> None:
    run = training(Curriculum, tmp_path, prompts_per_step=6, share=1.0)
    ids = [item.item_id for item in run.services.items]
    for item_id in ids[6:]:
        run.services.visits[item_id] = [Visit(step, 10**6, 0) for step in range(3)]
    assert set(run.method.select_items(5)) == set(ids[:6])


def test_controls_leave_the_verdicts_in_the_ledger_as_they_are(training: Any, tmp_path: Path) -> None:
    run = training(FormatReward, tmp_path, steps=1)
    run.run()
    run.save(finished=True)
    rows = read_ledger(tmp_path, ("completion", "correct", "reward")).to_pylist()
    assert any(row["reward"] == 1.0 and not row["correct"] for row in rows)
    assert all(
        row["reward"] == float("boxed{" in row["completion"]) for row in rows if "boxed{}" not in row["completion"]
    )
