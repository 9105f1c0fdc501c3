"""Methods that read more than verdicts: what they train on, what that makes of their track, and their formulas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlearnbench.harness.judge import track_of
from unlearnbench.harness.privileged import asked
from unlearnbench.method import LossBatch
from unlearnbench.methods import BUILT_IN, load, locate
from unlearnbench.methods.answer_hint import AnswerHint
from unlearnbench.methods.distill import Distill
from unlearnbench.methods.mixed_policy import TRACE, MixedPolicy
from unlearnbench.methods.only_unlearnable import OnlyUnlearnable
from unlearnbench.methods.prefix import BOX, Prefix
from unlearnbench.methods.sft_then_rl import SftThenRl
from unlearnbench.methods.sft_unlearnable import SftUnlearnable
from unlearnbench.methods.similar_problems import SimilarProblems
from unlearnbench.methods.sub_problems import SubProblems
from unlearnbench.policies.policy import load_policy
from unlearnbench.records import RolloutGroup, Verdict
from unlearnbench.splits import Split
from unlearnbench.training.ledger import read_metrics

READS = {
    "answer_hint": {"answer"},
    "mixed_policy": {"solution"},
    "sft_then_rl": {"solution"},
    "distill": {"teacher"},
    "only_unlearnable": {"labels"},
    "sft_unlearnable": {"labels"},
    "similar_problems": {"labels", "similar"},
    "sub_problems": {"labels", "sub_problems"},
}


@pytest.mark.parametrize("name", READS)
def test_two_steps_of_a_method_move_the_policy_and_read_what_its_track_says(
    training: Any, tmp_path: Path, name: str
) -> None:
    run = training(load(locate(name)), tmp_path, steps=2, **({"rollouts": 8} if "unlearnable" in name else {}))
    run.run()
    assert set(asked(tmp_path)) == READS[name]
    assert track_of("verifier", asked(tmp_path)) == run.method.track
    assert run.meter.flops > 0
    assert all(np.isfinite(line["flops"]) for line in read_metrics(tmp_path))


def _won(run: Any, item_id: str, text: str, reward: float) -> Any:
    return replace(run.services.written(item_id, text, "policy", reward), verdict=Verdict(reward > 0, None, "match"))


def _group(run: Any, item_id: str, rewards: list[float]) -> RolloutGroup:
    rollouts = tuple(_won(run, item_id, f"{k}>\\boxed{{{k}}}", reward) for k, reward in enumerate(rewards))
    return RolloutGroup(item_id, run.services.item(item_id).prompt, 0, rollouts)


def test_a_hinted_success_is_learned_in_the_items_own_prompt_with_ratio_one(training: Any, tmp_path: Path) -> None:
    run = training(AnswerHint, tmp_path, prompts_per_step=40, hinted=16, steps=1)
    seen: dict[str, float] = {"policy": 0.0, "hinted": 0.0}

    def watched(batch: LossBatch) -> torch.Tensor:
        for row, source in enumerate(batch.sources):
            seen[source] = max(seen[source], float((batch.ratio.detach()[row] - 1).abs().max()))
        return AnswerHint.policy_loss(run.method, batch)

    groups = run._collect()
    hinted = [rollout for group in groups for rollout in group if rollout.source == "hinted"]
    assert hinted
    own = {item.item_id: run.models.policy.encode(item.prompt) for item in run.services.items}
    assert all((rollout.context_ids == own[rollout.item_id]).all() for rollout in hinted)
    assert all(len(rollout.prompt_ids) > len(own[rollout.item_id]) for rollout in hinted)
    kept = run._choose(groups)
    assert all(r.verdict.correct for group in kept for r in group if r.source == "hinted")
    run.method.policy_loss = watched
    won = [group for group in kept if any(rollout.source == "hinted" for rollout in group)]
    if won:  # the first update: nothing has moved yet
        run.recipe = run.recipe.model_copy(update={"updates_per_batch": 1})
        run._update(won)
        assert seen["hinted"] == 0.0


def test_a_prefix_grows_with_failure_shrinks_with_success_and_never_holds_the_answer(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    run = training(Prefix, tmp_path)
    item = small_split.items[0]
    steps = item.solution.split(BOX)[0]
    given = []
    for rewards in ([0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0, 1.0]):
        (plan,) = run.method.plan_rollouts(0, 0, [item.item_id], [])
        given.append(plan.prefix)
        run.method.inject([_group(run, item.item_id, rewards)])
    assert given[0] == ""
    assert given[4] == given[5] == steps
    assert len(given[6]) < len(steps)
    assert all(item.solution.startswith(prefix) and BOX not in prefix for prefix in given)
    run.method.load_state_dict(run.method.state_dict())
    assert run.method.plan_rollouts(0, 0, [item.item_id], [])[0].prefix == given[6]  # a third is not enough to shrink


def test_rollouts_after_a_prefix_start_there_and_their_loss_too(training: Any, tmp_path: Path) -> None:
    run = training(Prefix, tmp_path)
    ids = [item.item_id for item in run.services.items]
    run.method.given = dict.fromkeys(ids, 4)
    groups = run._collect()
    for rollout in (rollout for group in groups for rollout in group):
        prompt = run.models.policy.decode(rollout.prompt_ids)
        assert prompt.startswith(run.services.item(rollout.item_id).prompt)
        assert prompt.endswith(">")
        assert rollout.context_ids is None
        assert rollout.source == "prefixed"
    kept = [group for group in groups if run._has_signal(group)]
    if kept:
        assert run._update(kept)["sampler_mismatch"] < 1e-4


def test_shaped_weights_of_traces_have_the_gradient_of_the_formula(training: Any, tmp_path: Path) -> None:
    """The derivative of -A p/(p + g) by log p is -A g p/(p + g)^2, largest at p = g; LUFFY (2504.14945) eq. 5."""
    run = training(MixedPolicy, tmp_path)
    logprobs = torch.log(torch.tensor([[0.02, 0.1, 0.9], [0.5, 0.5, 0.5]], dtype=torch.float64)).requires_grad_()
    advantages = torch.tensor([[1.5] * 3, [-0.5] * 3], dtype=torch.float64)
    behaviour = torch.tensor([[0.0] * 3, [-0.7] * 3], dtype=torch.float64)
    batch = LossBatch(logprobs, behaviour, None, None, advantages, torch.ones(2, 3), (TRACE, "policy"))
    loss = run.method.policy_loss(batch)
    loss.sum().backward()
    pi = np.array([0.02, 0.1, 0.9])
    np.testing.assert_allclose(logprobs.grad[0].numpy(), -1.5 * 0.1 * pi / (pi + 0.1) ** 2, rtol=1e-9)
    ratio = np.exp(np.log(0.5) + 0.7)
    np.testing.assert_allclose(loss[1].detach().numpy(), 0.5 * ratio, rtol=1e-6)


def test_every_group_of_mixed_policy_holds_the_solution_as_a_success(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    run = training(MixedPolicy, tmp_path)
    (group,) = run.method.inject([_group(run, small_split.items[0].item_id, [0.0] * 3)])
    assert group.rollouts[-1].completion == small_split.items[0].solution
    assert group.rollouts[-1].token_ids[-1] in run.models.policy.stop_ids
    advantages = np.asarray(run.method.advantages(group))
    np.testing.assert_allclose(advantages, (np.array([0, 0, 0, 1]) - 0.25) / (0.5 + 1e-6))


def test_fine_tuning_first_learns_solutions_and_generates_nothing_then_reinforces(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    pool = len(training(SftThenRl, tmp_path / "pool").services.items)
    run = training(SftThenRl, tmp_path, epochs=1.0, steps=pool // 12 + 3)  # 12 prompts per step
    before = _likelihood(run, small_split)
    run.run()
    lines = read_metrics(tmp_path)
    sft = [line["rollouts"] == 0 for line in lines]
    assert sft == [True] * sum(sft) + [False] * (len(sft) - sum(sft))
    assert sum(sft) == -(-pool // 12)
    assert _likelihood(run, small_split) > before


def _likelihood(run: Any, split: Split) -> float:
    first = run.services.items[0].item_id
    item = next(problem for problem in (*split.items, *split.canaries) if problem.item_id == first)
    tokens = run.models.policy.encode_completion(item.solution)
    (values,) = run.services.logprobs(item.prompt, [tokens])
    return float(values.sum())


def test_distillation_pushes_each_token_towards_the_teacher(training: Any, tmp_path: Path, small_split: Split) -> None:
    run = training(Distill, tmp_path)
    group = run._collect()[0]
    rows = run.method.advantages(group)
    teacher = load_policy(small_split.path / "positive_control/policy")
    rollout = group.rollouts[0]
    ids = torch.tensor(np.concatenate([rollout.prompt_ids, rollout.token_ids]), dtype=torch.long)
    with torch.no_grad():
        scores = torch.log_softmax(teacher.model(input_ids=ids[None]).logits[0].float(), -1)
    start = len(rollout.prompt_ids)
    taught = [float(scores[start - 1 + t, token]) for t, token in enumerate(rollout.token_ids)]
    wanted = np.clip(np.array(taught) - rollout.logprobs, -5, 5)
    np.testing.assert_allclose(rows[0], wanted, atol=1e-4)
    forward = run.meter.forward
    assert forward == sum(len(r.prompt_ids) + len(r.token_ids) for r in group)


def test_only_unlearnable_items_are_trained_on(training: Any, tmp_path: Path, small_split: Split) -> None:
    run = training(OnlyUnlearnable, tmp_path)
    chosen = {item_id for step in range(20) for item_id in run.method.select_items(step)}
    assert chosen == set(small_split.ids("unlearnable"))
    assert [plan.n for plan in run.method.plan_rollouts(0, 0, ["a"], [])] == [64]


def test_own_successes_on_unlearnable_items_are_collected_learned_and_survive_a_resume(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    changes = {"rollouts": 64, "epochs": 2}
    whole = training(SftUnlearnable, tmp_path / "whole", steps=18, **changes)
    whole.run()
    whole.save()
    found = whole.method.successes
    assert found
    assert {item_id for item_id, _ in found} <= set(small_split.ids("unlearnable"))
    lines = read_metrics(tmp_path / "whole")
    learned = [line for line in lines if line["rollouts"] == 0]
    assert len(learned) == 2 * -(-len(found) // 12)
    broken = training(SftUnlearnable, tmp_path / "broken", steps=14, **changes)  # a checkpoint after step 12
    broken.run()
    resumed = training(SftUnlearnable, tmp_path / "broken", steps=18, **changes)
    assert resumed.state.step == 12
    resumed.run()
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "broken/metrics.jsonl").read_bytes()


@pytest.mark.parametrize(("method", "kind"), [(SimilarProblems, "similar"), (SubProblems, "step")])
def test_related_problems_join_the_pool_and_are_judged_by_their_own_answers(
    training: Any, tmp_path: Path, method: Any, kind: str
) -> None:
    run = training(method, tmp_path, steps=3)
    chosen = {item_id for step in range(12) for item_id in run.method.select_items(step)}
    added = {item_id for item_id in chosen if f"-{kind}-" in item_id}
    assert added
    assert chosen - added
    run.run()
    one = next(iter(added))
    assert run.services.verdict(one, f"\\boxed{{{run.services.answer(one)}}}").correct


def test_every_method_names_its_paper_and_changes_something() -> None:
    from unlearnbench.method import Method, overridden, settings_of
    from unlearnbench.records import Recipe

    for name in BUILT_IN:
        method = load(locate(name))
        assert method.source == "this project" or method.source.startswith("arXiv ")
        changed = overridden(method) or method.Settings is not Method.Settings or method.start != "base"
        assert changed or name == "grpo"
        assert settings_of(method, Recipe(), {}).steps == 120  # no method changes what the budget decides
    assert len(BUILT_IN) >= 24
