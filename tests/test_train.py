"""The training loop on the shipped policy: exact resume, gradients, budget, hooks, and what a method may not do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from local_judge import judge_behind
from safetensors.torch import load_file

from unlearnbench import Method
from unlearnbench.errors import RunError, VerifierError
from unlearnbench.harness.judge import track_of
from unlearnbench.harness.privileged import asked
from unlearnbench.method import LossBatch, Plan, settings_of
from unlearnbench.methods.grpo import Grpo
from unlearnbench.methods.no_training import NoTraining
from unlearnbench.records import Recipe, RolloutGroup, Verdict
from unlearnbench.training.batch import fixed_logprobs, make_batch, token_logprobs
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.ledger import read_ledger, read_metrics


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Counting(Grpo):
    """Has state of its own, so that a resume must bring it back."""

    def setup(self) -> None:
        self.total = np.zeros(2)

    def advantages(self, rollouts: RolloutGroup) -> Any:
        self.total += 1.0
        return super().advantages(rollouts) * (1 + 0.001 * self.total[0])

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "nested": {"list": [1, "two", None], "pair": (1, 2)}}

    def load_state_dict(self, state: Any) -> None:
        assert state["nested"]["list"] == [1, "two", None]
        assert isinstance(state["total"], np.ndarray)
        assert state["nested"]["pair"] == (1, 2)
        self.total = state["total"]


def test_a_run_that_was_killed_and_resumed_equals_an_unbroken_one_bit_for_bit(training: Any, tmp_path: Path) -> None:
    whole = training(Counting, tmp_path / "whole")
    whole.run()
    whole.save(finished=True)

    broken = training(Counting, tmp_path / "broken", steps=5)  # a checkpoint after step 3; steps 4 and 5 are lost
    broken.run()
    resumed = training(Counting, tmp_path / "broken")
    assert resumed.state.step == 3
    assert resumed.method.total[0] > 0
    resumed.run()
    resumed.save(finished=True)

    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "broken"))
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "broken/metrics.jsonl").read_bytes()
    columns = ("step", "item_id", "rollout", "completion", "correct", "kept", "reward")
    assert read_ledger(tmp_path / "whole", columns).equals(read_ledger(tmp_path / "broken", columns))
    assert whole.meter.state() == resumed.meter.state()
    assert training(Counting, tmp_path / "whole").state.step == 6


def test_other_seeds_draw_other_rollouts_and_the_first_update_sees_the_samplers_probabilities(
    training: Any, tmp_path: Path
) -> None:
    runs = [training(Grpo, tmp_path / str(seed), steps=2, seed=seed) for seed in (1, 2)]
    for run in runs:
        run.run()
    one, two = (read_metrics(tmp_path / str(seed)) for seed in (1, 2))
    assert one != two
    mismatches = [line["sampler_mismatch"] for line in one + two if line["sampler_mismatch"] is not None]
    assert mismatches
    assert max(mismatches) < 1e-4


def test_processes_that_find_different_checkpoints_do_not_begin(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(Grpo, tmp_path, steps=1)
    run.run()
    run.save()
    monkeypatch.setattr(Processes, "everybody", lambda self, own: [own, None])  # the other one's folder is empty
    with pytest.raises(RunError, match="not all processes find the same checkpoint") as caught:
        training(Grpo, tmp_path, steps=2)  # resumes
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(Processes, "everybody", lambda self, own: [own, own])
    assert training(Grpo, tmp_path, steps=2).state.step == 1


def test_a_checkpoint_of_another_configuration_is_refused(training: Any, tmp_path: Path) -> None:
    run = training(Grpo, tmp_path, steps=1)
    run.run()
    run.save()
    run.checkpoints.spec = replace(run.spec, fingerprint="another")
    with pytest.raises(RunError, match="another configuration"):
        run.resume()


def _group(run: Any) -> list[RolloutGroup]:
    groups = run._choose(run._collect())
    assert groups
    return groups[:3]


def test_rollouts_that_are_the_same_have_the_reference_computed_once_and_bit_for_bit_the_same(
    training: Any, tmp_path: Path
) -> None:
    run = training(Grpo, tmp_path, drop_zero_signal=False)
    batch = run._batch(run._collect())
    different = len(torch.unique(batch.input_ids, dim=0))
    assert 1 < different < len(batch)  # easy items are among them
    rows: list[int] = []
    handle = run.models.reference.model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    fixed = fixed_logprobs(run.models.reference.model, batch, 1.0)
    handle.remove()
    with torch.no_grad():
        whole, _ = token_logprobs(run.models.reference.model, batch, 1.0)
    assert rows == [different]
    assert torch.equal(fixed, whole)


def test_the_gradient_is_that_of_the_formula_for_any_size_of_micro_batch(training: Any, tmp_path: Path) -> None:
    """Against one row at a time through plain autograd, written from the formula."""
    run = training(Grpo, tmp_path, kl=0.01, entropy=0.02, micro_batch_tokens=60)
    with torch.no_grad():
        for parameter in run.models.policy.model.parameters():  # away from the reference, so that KL and ratio act
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    groups = _group(run)
    run.models.policy.model.zero_grad(set_to_none=True)
    batch = run._batch(groups)
    shifted = [replace(r, logprobs=r.logprobs + 0.15) for g in groups for r in g]
    batch = make_batch(shifted, [a for g in groups for a in run.hooks.advantages(g)], "token_mean", torch.device("cpu"))
    run.passes.backward(batch, run.passes.reference_logprobs([batch])[0])
    ours = {name: p.grad.clone() for name, p in run.models.policy.model.named_parameters()}

    run.models.policy.model.zero_grad(set_to_none=True)
    count = sum(len(r.token_ids) for r in shifted)
    rows = iter(shifted)
    for group in groups:
        rewards = group.rewards
        advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
        for advantage in advantages:
            rollout = next(rows)
            ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.token_ids]).astype(np.int64))[None]
            start = len(rollout.prompt_ids) - 1
            scores = torch.log_softmax(run.models.policy.model(ids).logits[0, start:-1], -1)
            with torch.no_grad():
                reference = torch.log_softmax(run.models.reference.model(ids).logits[0, start:-1], -1)
            picked = scores.gather(-1, ids[0, start + 1 :, None])[:, 0]
            ratio = torch.exp(picked - torch.from_numpy(rollout.logprobs))
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            d = reference.gather(-1, ids[0, start + 1 :, None])[:, 0] - picked
            entropy = -(scores.exp() * scores).sum(-1)
            ((-surrogate + 0.01 * (d.exp() - d - 1) - 0.02 * entropy).sum() / count).backward()
    for name, parameter in run.models.policy.model.named_parameters():
        assert torch.allclose(ours[name], parameter.grad, atol=2e-6, rtol=2e-4), name


def test_sequence_mean_weighs_every_rollout_alike_and_token_mean_every_token(training: Any, tmp_path: Path) -> None:
    run = training(Grpo, tmp_path)
    rollouts = [r for g in _group(run) for r in g]
    zeros = [np.zeros(len(r.token_ids)) for r in rollouts]
    by_token = make_batch(rollouts, zeros, "token_mean", torch.device("cpu"))
    by_row = make_batch(rollouts, zeros, "sequence_mean", torch.device("cpu"))
    used = by_token.mask > 0
    assert torch.allclose(by_token.weights[used], torch.full((int(used.sum()),), 1 / int(used.sum())))
    assert torch.allclose(by_row.weights.sum(1), torch.full((len(rollouts),), 1 / len(rollouts)))
    for part in by_token.micro_batches(100):
        logprobs, _ = token_logprobs(run.models.policy.model, part, 1.0)
        assert torch.allclose(logprobs[part.mask > 0], part.behaviour[part.mask > 0], atol=1e-4)


def test_a_step_makes_rewarded_rollouts_likelier_and_a_flipped_sign_less_likely(training: Any, tmp_path: Path) -> None:
    class Flipped(Grpo):
        def advantages(self, rollouts: RolloutGroup) -> Any:
            return -super().advantages(rollouts)

    for cls, direction in ((Grpo, 1), (Flipped, -1)):
        run = training(cls, tmp_path / cls.__name__, updates_per_batch=1, learning_rate=1e-4, kl=0.0)
        groups = _group(run)
        rewarded = [r for g in groups for r in g if r.verdict.correct]
        before = np.mean([r.logprobs.sum() for r in rewarded])
        run._update(groups)
        batch = make_batch(rewarded, [np.zeros(len(r.token_ids)) for r in rewarded], "token_mean", torch.device("cpu"))
        logprobs, _ = token_logprobs(run.models.policy.model, batch, 1.0)
        after = float((logprobs.detach() * batch.mask).sum()) / len(rewarded)
        assert direction * (after - before) > 0


def test_the_budget_counts_every_token_and_ends_the_run_after_the_step_that_reaches_it(
    training: Any, tmp_path: Path
) -> None:
    run = training(Grpo, tmp_path, steps=None, flops=6 * 10**9)
    run.run()
    run.save(finished=True)
    rows = read_ledger(tmp_path, ("item_id", "token_ids", "kept"))
    generated = sum(len(tokens) for tokens in rows["token_ids"].to_pylist())
    prompts = {item_id: len(run.models.policy.encode(item.prompt)) for item_id, item in run.pool.items()}
    trained = sum(len(row["token_ids"]) + prompts[row["item_id"]] for row in rows.to_pylist() if row["kept"])
    meter = run.meter
    assert meter.generated == generated
    # once a plan of the recipe's group size; an item may be planned twice where an epoch ends within a step
    assert meter.prefilled * run.recipe.group_size == sum(prompts[name] for name in rows["item_id"].to_pylist())
    assert meter.trained == meter.forward == trained
    n = run.models.policy.parameters
    assert meter.flops == 2 * n * (meter.generated + meter.prefilled + meter.forward) + 6 * n * meter.trained
    lines = read_metrics(tmp_path)
    assert lines[-1]["flops"] >= 6 * 10**9 > (lines[-2]["flops"] if len(lines) > 1 else 0)


def test_groups_without_signal_are_dropped_before_anything_is_paid_for_them(training: Any, tmp_path: Path) -> None:
    run = training(Grpo, tmp_path)
    groups = run._collect()
    kept = {group.item_id for group in run._choose(groups)}
    for group in groups:
        assert (group.item_id in kept) == (group.rewards.max() > group.rewards.min())


def test_rollouts_that_the_verifier_failed_on_are_in_no_baseline_and_too_many_stop_the_run(
    training: Any, tmp_path: Path
) -> None:
    class Failing:
        def __init__(self, every: int, real: Any) -> None:
            self.every, self.real = every, real

        def verify_many(self, pairs: Any) -> list[Verdict]:
            verdicts = self.real.verify_many(pairs)
            return [Verdict(None, None, "verifier_error") if k % self.every == 0 else v for k, v in enumerate(verdicts)]

    def run_with(every: int) -> Any:
        run = training(Grpo, tmp_path / str(every))
        judge = judge_behind(run.judge)
        judge._verifier = Failing(every, judge._verifier)
        return run

    run = run_with(1000)  # one rollout of 96
    groups = run._collect()
    assert sum(r.verdict.correct is None for g in groups for r in g) == 1
    for group in run._choose(groups):
        assert all(r.verdict.correct is not None for r in group)
    with pytest.raises(VerifierError, match="failed on"):
        run_with(4)._collect()


def test_a_second_round_joins_its_rollouts_to_the_first(training: Any, tmp_path: Path) -> None:
    class Twice(Grpo):
        def plan_rollouts(self, step: int, round: int, selected: Any, groups: Any) -> Any:
            if round == 0:
                return [Plan(item_id, 4) for item_id in selected]
            dead = [g.item_id for g in groups if g.rewards.max() == 0]
            return [Plan(item_id, 4) for item_id in dead] if round == 1 else []

    run = training(Twice, tmp_path, steps=1)
    groups = run._collect()
    assert {len(group) for group in groups} == {4, 8}
    for group in groups:
        assert [r.index for r in group] == list(range(len(group)))
        if len(group) == 8:
            assert [r.round for r in group] == [0] * 4 + [1] * 4


def test_reading_a_privileged_field_raises_the_track(training: Any, tmp_path: Path) -> None:
    class Peeking(Grpo):
        def reward(self, rollout: Any) -> float:
            return float(rollout.verdict.answer == self.run.answer(rollout.item_id))

    run = training(Peeking, tmp_path, steps=1)
    assert track_of("verifier", asked(tmp_path)) == "verifier"
    run.run()
    assert track_of("verifier", asked(tmp_path)) == "answer"
    assert track_of("teacher", asked(tmp_path)) == "teacher"
    run.save()
    training(Peeking, tmp_path)
    assert asked(tmp_path) == ["answer"]


def test_services_are_metered_and_consistent(training: Any, tmp_path: Path) -> None:
    run = training(Grpo, tmp_path)
    prompt = run.services.items[0].prompt
    drawn = run.services.generate(prompt, 3, "a")
    assert run.meter.generated == drawn.lengths.sum()
    tokens = drawn.tokens[0, : drawn.lengths[0]]
    (again,) = run.services.logprobs(prompt, [tokens])
    assert np.abs(again - drawn.logprobs[0, : drawn.lengths[0]]).max() < 1e-4
    assert run.meter.forward == len(run.services.encode(prompt)) + len(tokens)
    assert (run.services.random("x").random(3) == run.services.random("x").random(3)).all()


def test_padding_never_reaches_the_loss(training: Any, tmp_path: Path) -> None:
    class Careless(Grpo):
        def policy_loss(self, batch: LossBatch) -> torch.Tensor:
            return super().policy_loss(batch) + torch.log(batch.mask) * 0.0  # NaN wherever the mask is 0

    run = training(Careless, tmp_path, steps=1)
    run.run()
    assert all(torch.isfinite(p).all() for p in run.models.policy.model.parameters())


def test_no_training_leaves_the_policy_as_it_is(training: Any, tmp_path: Path, small_split: Any) -> None:
    run = training(NoTraining, tmp_path)
    run.hooks.call("train", run)
    run.save(finished=True)
    assert _same(_weights(tmp_path), load_file(small_split.policy_path / "model.safetensors"))
    assert run.meter.flops == 0


def test_settings_come_from_recipe_then_class_then_command_line() -> None:
    class Own(Method):
        class Settings(Method.Settings):
            kl: float = 0.5
            bonus: float = 1.0

    recipe = Recipe(kl=0.1, learning_rate=3e-4)
    assert settings_of(Own, recipe, {}).model_dump()["kl"] == 0.5
    assert settings_of(Own, recipe, {"kl": 0.2, "bonus": 2}).model_dump()["kl"] == 0.2
    assert settings_of(Own, recipe, {}).model_dump()["learning_rate"] == 3e-4
    with pytest.raises(ValueError, match="bonsu"):
        settings_of(Own, recipe, {"bonsu": 1})
