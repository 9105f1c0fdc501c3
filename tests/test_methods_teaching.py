"""Methods whose teacher is the policy itself or its average: SDPO, OPSD, DRIFT, and the averaged policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed_run import bytes_of_run, run_whole_and_killed

from unlearnbench.errors import MethodError, PolicyError
from unlearnbench.method import LossBatch, Method, settings_of
from unlearnbench.methods.drift import Drift, gates
from unlearnbench.methods.opsd import Opsd
from unlearnbench.methods.self_distill import SelfDistill
from unlearnbench.records import Recipe, RolloutGroup, Verdict
from unlearnbench.splits import Split
from unlearnbench.training.build import Models
from unlearnbench.training.ledger import read_metrics

# --- the policy averaged over steps -------------------------------------------------------------------------------


def test_the_average_is_the_recursion_of_the_weights(training: Any, tmp_path: Path) -> None:
    run = training(SelfDistill, tmp_path, steps=3, rate=0.3, read=False)
    name, weight = next(iter(run.models.policy.trained().items()))
    wanted = weight.detach().clone()
    follow = run.method.on_step_end

    def watched(step: int, metrics: Any) -> None:
        nonlocal wanted
        wanted = 0.7 * wanted + 0.3 * weight.detach()
        follow(step, metrics)

    run.method.on_step_end = watched
    run.run()
    average = run.services.averaged().state_dict()
    torch.testing.assert_close(average[name], wanted)
    assert not torch.equal(average[name], weight)
    prompt = run.services.items[0].prompt
    tokens = run.services.written(run.services.items[0].item_id, "1", "x").token_ids
    (ours,) = run.services.logprobs(prompt, [tokens], policy="average")
    with torch.no_grad():
        for key, value in run.models.reference.model.named_parameters():
            value.copy_(average[key])
    np.testing.assert_allclose(ours, run.services.logprobs(prompt, [tokens], policy="reference")[0], atol=1e-6)


def test_who_asks_for_an_average_that_there_is_not_is_told_how_to_have_one(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(Method, tmp_path)
    with pytest.raises(MethodError, match=r"no policy 'average' \(call self.run.averaged\(\) in setup\)"):
        run.services.logprobs("1", [np.array([1])], policy="average")
    with pytest.raises(PolicyError, match="has other weights than the policy"):
        run.services.averaged().load_state_dict({})
    monkeypatch.setattr(Models, "sharded", property(lambda _: True))
    with pytest.raises(MethodError, match="without --trainer shard=fsdp2"):
        training(Method, tmp_path / "b").services.averaged()


@pytest.mark.parametrize(("cls", "changes"), [(SelfDistill, {"read": False}), (Drift, {"read": False}), (Opsd, {})])
def test_a_self_taught_run_that_was_killed_is_the_same_bit_for_bit(
    training: Any, tmp_path: Path, cls: type[Method], changes: dict[str, Any]
) -> None:
    whole, _ = run_whole_and_killed(training, tmp_path, cls, **changes)
    assert (tmp_path / "whole" / "checkpoint" / "model.safetensors").is_file()
    assert bytes_of_run(tmp_path / "broken") == bytes_of_run(tmp_path / "whole")
    if cls is not Opsd:
        assert any(line.get("divergence") for line in read_metrics(tmp_path / "whole"))
        assert whole.services.averaged().state_dict()


def test_an_adapter_is_averaged_and_read_as_one(training: Any, tmp_path: Path) -> None:
    run = training(SelfDistill, tmp_path, steps=2, lora={"rank": 2}, read=False, rate=0.5)
    run.run()
    average = run.services.averaged().state_dict()
    assert average.keys() == run.models.policy.trained().keys()
    assert all(".lora_" in name for name in average)
    assert any(line.get("divergence") for line in read_metrics(tmp_path))


# --- SDPO ---------------------------------------------------------------------------------------------------------


def _drawn_group(run: Any, item_id: str, texts: Sequence[str], right: Sequence[bool]) -> RolloutGroup:
    rollouts = []
    prompt = run.services.item(item_id).prompt
    for text, correct in zip(texts, right, strict=True):
        one = run.services.written(item_id, text, "policy", float(correct))
        (logprobs,) = run.services.logprobs(prompt, [one.token_ids])
        rollouts.append(replace(one, logprobs=logprobs, verdict=Verdict(correct, text, "match")))
    return RolloutGroup(item_id, prompt, 0, tuple(rollouts))


def test_every_rollout_is_shown_the_first_other_success(training: Any, tmp_path: Path) -> None:
    run = training(SelfDistill, tmp_path, read=False, context="{success}&{prompt}")
    item_id = run.services.items[0].item_id
    group = _drawn_group(run, item_id, ["1", "2", "3", "4"], [False, True, False, True])
    (taught,) = run.method.augment([group])
    shown = [run.models.policy.decode(r.teacher_ids) for r in taught]
    assert shown == [f"{text}&{group.prompt}" for text in ("2", "4", "2", "2")]
    alone = _drawn_group(run, item_id, ["1", "2"], [False, True])
    (taught,) = run.method.augment([alone])
    assert [r.teacher_ids is None for r in taught] == [False, True]


def test_only_a_teacher_that_has_read_the_success_teaches(training: Any, tmp_path: Path) -> None:
    run = training(SelfDistill, tmp_path)
    item_id = run.services.items[0].item_id
    group = _drawn_group(run, item_id, ["1", "2+2>\\boxed{4}"], [False, True])
    told: list[tuple[str, str]] = []

    def answers(inside: float) -> Any:
        def logprobs(context: str, completions: Any, policy: str = "current") -> list[Any]:
            told.append((context, policy))
            return [np.full(len(tokens), inside) for tokens in completions]

        return logprobs

    without = float(np.mean(group.rollouts[1].logprobs))
    for inside, taught in ((without + 0.1, True), (without - 0.1, False)):
        run.services.logprobs = answers(inside)
        (one,) = run.method.augment([group])
        assert (one.rollouts[0].teacher_ids is not None) == taught
    assert set(told) == {(f"2+2>\\boxed{{4}} {group.prompt}", "average")}


def test_sdpo_mixes_both_losses_and_cuts_the_ratio_off() -> None:
    method = SelfDistill(settings_of(SelfDistill, Recipe(kl=0.5, entropy=0.0), {"mix": 0.75}))
    logprobs = torch.log(torch.tensor([[0.5, 0.9]])).requires_grad_()
    behaviour = torch.log(torch.tensor([[0.5, 0.3]]))  # ratios 1 and 3
    reference = torch.log(torch.tensor([[0.25, 0.9]]))
    apart = torch.tensor([[0.2, 0.4]])
    ones = torch.ones(1, 2)
    batch = LossBatch(logprobs, behaviour, reference, None, 2 * ones, ones, divergence=apart)
    plain = Method(method.settings)
    torch.testing.assert_close(method.policy_loss(batch), 0.75 * plain.policy_loss(batch))
    kl = plain.auxiliary_loss(batch)
    assert kl is not None
    torch.testing.assert_close(method.auxiliary_loss(batch), kl + 0.25 * torch.tensor([[1.0, 2.0]]) * apart)
    torch.testing.assert_close(method.auxiliary_loss(replace(batch, divergence=None)), kl)


# --- OPSD ---------------------------------------------------------------------------------------------------------


def test_opsd_learns_where_the_solution_was_read_and_from_nothing_else(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    solutions = {item.item_id: item.solution for item in small_split.items}
    run = training(Opsd, tmp_path, read=False)
    groups = run._choose(run._collect())
    assert len(groups) == run.recipe.prompts_per_step, "rewards play no part"
    for rollout in (r for group in groups for r in group if group.item_id in solutions):
        wanted = f"{solutions[rollout.item_id]} {run.services.item(rollout.item_id).prompt}"
        assert run.models.policy.decode(rollout.teacher_ids) == wanted
    assert run._update(groups)["divergence"] > 0

    careful = training(Opsd, tmp_path / "careful")
    chosen = {g.item_id: len(careful.method.augment([g])) for g in careful._collect()}
    for item_id, kept in chosen.items():
        if item_id not in solutions:
            continue
        tokens = careful.models.policy.encode_completion(solutions[item_id])
        prompt = careful.services.item(item_id).prompt
        (without,) = careful.services.logprobs(prompt, [tokens], policy="reference")
        (inside,) = careful.services.logprobs(f"{solutions[item_id]} {prompt}", [tokens], policy="reference")
        assert kept == (inside.sum() > without.sum())


# --- DRIFT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.3, 0.5, 0.7, 0.95])
def test_drifts_gates_are_those_of_the_authors_pseudocode(rate: float) -> None:
    p = torch.tensor([rate])
    hard, easy = torch.sigmoid((0.3 - p) / 0.08), torch.sigmoid((p - 0.7) / 0.08)
    medium = (1 - hard) * (1 - easy)
    total = hard + medium + easy
    np.testing.assert_allclose(gates(rate), torch.cat([hard / total, medium / total, easy / total]), rtol=1e-5)


def _drift(training: Any, folder: Path, **changes: Any) -> Any:
    return training(Drift, folder, **{"read": False, "warm_up": 0.0, **changes})


def test_drifts_pass_rate_decays_by_step_and_starts_from_one_half(training: Any, tmp_path: Path) -> None:
    run = _drift(training, tmp_path)
    method, item_id = run.method, run.services.items[0].item_id
    assert method.pass_rate(item_id) == 0.5
    method.inject([_drawn_group(run, item_id, list("12345678"), [True] * 2 + [False] * 6)])
    assert method.pass_rate(item_id) == pytest.approx(0.5 * 3 / 10 + 0.5 * 0.5)  # confidence 8 / 16
    run.services.step = 3
    method.inject([_drawn_group(run, item_id, list("12345678"), [True] * 8)])
    won, lost = 0.85**3 * 2 + 8, 0.85**3 * 6
    n = won + lost
    assert method.pass_rate(item_id) == pytest.approx(n / (n + 8) * (won + 1) / (n + 2) + 8 / (n + 8) * 0.5)


def test_drift_routes_failures_to_the_teacher_and_successes_to_grpo(training: Any, tmp_path: Path) -> None:
    run = _drift(training, tmp_path, kl=0.0)
    method = run.method
    ids = [item.item_id for item in run.services.items[:3]]
    mixed = _drawn_group(run, ids[0], list("1234"), [True, True, False, False])
    failed = _drawn_group(run, ids[1], list("12"), [False, False])
    past = _drawn_group(run, ids[2], list("12"), [True, False])
    method.inject([mixed, failed, past])
    assert not method.keep(failed), "nothing can be shown yet"
    method.augment([past])
    later = _drawn_group(run, ids[2], list("34"), [False, False])
    method.inject([later])
    assert method.keep(later), "its past success can be"
    first, second = method.augment([mixed, later])
    assert [run.models.policy.decode(r.teacher_ids)[:1] for r in second] == ["1", "1"]

    usual = np.asarray(Method.advantages(method, mixed))
    weight = float(np.dot([0.3, 1.0, 0.05], gates(method.pass_rate(ids[0]))))
    np.testing.assert_allclose(method.advantages(first), usual * np.array([weight, weight, 0, 0]))
    np.testing.assert_allclose(method.advantages(second), [0.0, 0.0])

    ones = torch.ones(3, 2)
    batch = LossBatch(
        torch.full((3, 2), -1.0, requires_grad=True),
        torch.full((3, 2), -1.0),
        None,
        None,
        torch.tensor([[0.5] * 2, [0.0] * 2, [-0.5] * 2]),  # a success, a failure that is shown one, one that is not
        ones,
        item_ids=(ids[0], ids[0], ids[1]),
        teacher=torch.tensor([[-1.5, -1.1], [-2.0, -2.0], [0.0, 0.0]]),
        divergence=torch.tensor([[0.4, 0.4], [0.4, 0.4], [0.0, 0.0]]),
    )
    taught = method.auxiliary_loss(batch)
    shares = gates(method.pass_rate(ids[0]))
    torch.testing.assert_close(
        taught, torch.tensor([[0.0] * 2, [0.4 * float(shares @ [1, 0, 0.35])] * 2, [0.0] * 2]), rtol=1e-5, atol=1e-7
    )
    loss = method.policy_loss(batch)
    more = float(shares[1]) * (np.exp(0.5 - 0.2) - 1)
    torch.testing.assert_close(loss[0], torch.tensor([-0.5 * (1 + float(more)), -0.5]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss[2], torch.tensor([0.5, 0.5]))


def test_drift_distils_all_that_has_a_demonstration_while_it_warms_up(training: Any, tmp_path: Path) -> None:
    run = _drift(training, tmp_path, warm_up=0.5)
    group = _drawn_group(run, run.services.items[0].item_id, list("123"), [True, True, False])
    run.method.inject([group])
    (taught,) = run.method.augment([group])
    assert not np.any(run.method.advantages(taught))
    run.services.progress = 0.5
    assert np.any(run.method.advantages(taught))


def test_drift_remembers_the_last_four_successes_of_an_item(training: Any, tmp_path: Path) -> None:
    run = _drift(training, tmp_path)
    item_id = run.services.items[0].item_id
    for texts in ("12", "345"):
        group = _drawn_group(run, item_id, list(texts), [True] * len(texts))
        run.method.inject([group])
        run.method.augment([group])
    assert [r.completion for r in run.method.past[item_id]] == list("2345")
    state = run.method.state_dict()
    again = _drift(training, tmp_path / "again")
    again.method.load_state_dict(state)
    assert [r.completion for r in again.method.past[item_id]] == list("2345")
    assert again.method.counts == run.method.counts
