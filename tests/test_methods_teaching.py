"""Teachers: the divergence over the vocabulary, the averaged policy, and methods whose teacher is the policy itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unlearnbench.errors import MethodError, PolicyError
from unlearnbench.method import LossBatch, Method, Teacher, settings_of
from unlearnbench.methods.drift import Drift, gates
from unlearnbench.methods.opsd import Opsd
from unlearnbench.methods.self_distill import SelfDistill
from unlearnbench.records import Recipe, RolloutGroup, Verdict
from unlearnbench.splits import Split
from unlearnbench.training.build import Models
from unlearnbench.training.ledger import read_metrics
from unlearnbench.training.options import TrainerOptions
from unlearnbench.training.teaching import divergence

LOGITS = arrays(np.float64, (3, 5), elements=st.floats(-8, 8))


class Taught(Method):
    """Every other rollout is read in another context; the loss is the divergence alone."""

    context = "5 {prompt}"
    seen: list[LossBatch]

    def augment(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        def taught(group: RolloutGroup) -> RolloutGroup:
            ids = self.run.encode(self.context.format(prompt=group.prompt))
            rollouts = [replace(r, teacher_ids=ids if k % 2 else None) for k, r in enumerate(group)]
            return replace(group, rollouts=tuple(rollouts))

        return [taught(group) for group in groups]

    def policy_loss(self, batch: LossBatch) -> torch.Tensor:
        self.seen = [*getattr(self, "seen", []), batch]
        assert batch.divergence is not None
        return batch.divergence

    def auxiliary_loss(self, batch: LossBatch) -> None:
        return None


# --- the divergence -----------------------------------------------------------------------------------------------


@given(LOGITS, LOGITS, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_divergences_are_those_of_the_definition(ours: Any, theirs: Any, alpha: float) -> None:
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (ours, theirs))

    def kl(a: Any, b: Any) -> Any:
        return (a * (np.log(a) - np.log(b))).sum(1)

    m = (1 - alpha) * p + alpha * q
    wanted = {0.0: kl(q, p), 1.0: kl(p, q)}.get(alpha, (1 - alpha) * kl(p, m) + alpha * kl(q, m))
    got = divergence(torch.from_numpy(np.log(p)), torch.from_numpy(np.log(q)), alpha)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-6, atol=1e-9)
    assert (got >= -1e-9).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_gradient_of_a_divergence_is_that_of_finite_differences(alpha: float) -> None:
    generator = torch.Generator().manual_seed(3)
    theirs = torch.log_softmax(torch.randn(4, 6, generator=generator, dtype=torch.float64), -1)
    ours = torch.randn(4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: divergence(torch.log_softmax(x, -1), theirs, alpha), (ours,))


def _dense(policy: Any, teacher: Any, rollout: Any, alpha: float, temperature: float) -> tuple[Any, Any]:
    """Divergence and the teacher's log-probability of each token of one rollout, by whole rows without padding."""

    def scores(model: Any, context: Any) -> Any:
        ids = torch.tensor(np.concatenate([context, rollout.token_ids]), dtype=torch.long)[None]
        logits = model(input_ids=ids).logits[0, len(context) - 1 : -1]
        return torch.log_softmax(logits.float() / temperature, -1)

    own = rollout.prompt_ids if rollout.context_ids is None else rollout.context_ids
    p = scores(policy, own)
    with torch.no_grad():
        q = scores(teacher, rollout.teacher_ids)
    m = (1 - alpha) * p.exp() + alpha * q.exp()
    if alpha in (0.0, 1.0):
        a, b = (q, p) if alpha == 0.0 else (p, q)
        values = (a.exp() * (a - b)).sum(-1)
    else:
        values = (1 - alpha) * (p.exp() * (p - m.log())).sum(-1) + alpha * (q.exp() * (q - m.log())).sum(-1)
    return values, q.gather(-1, torch.tensor(rollout.token_ids, dtype=torch.long)[:, None])[:, 0]


def _taught_update(run: Any, groups: Sequence[RolloutGroup]) -> tuple[Any, list[LossBatch]]:
    """The batch of an update, its passes made, and what the loss was given."""
    run.method.seen = []
    batch = run._batch(groups)
    run.models.policy.model.zero_grad(set_to_none=True)
    run.passes.backward(batch, run.passes.reference_logprobs(batch))
    return batch, run.method.seen


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize(("name", "alpha"), [("current", 1.0), ("reference", 0.5), ("average", 0.0)])
def test_a_taught_update_is_that_of_whole_rows(
    training: Any, tmp_path: Path, name: Any, alpha: float, chunk: int | None
) -> None:
    run = training(Taught, tmp_path, kl=0.0, micro_batch_tokens=400, drop_zero_signal=False, temperature=0.9)
    run.passes.teaching._options = run.passes.options = TrainerOptions(logprob_chunk=chunk)
    run.method.teacher = Teacher(name, alpha)
    groups = run._choose(run._collect())[:6]
    run.services.averaged()
    teacher = {"reference": run.models.reference.model}.get(name, run.models.policy.model)
    with torch.no_grad():
        for weight in run.models.policy.model.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    if name == "average":
        import copy

        run.services.averaged().update(0.25)
        teacher = copy.deepcopy(run.models.reference.model)
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), run.models.policy.model.parameters(), strict=True):
                old.copy_(0.75 * old + 0.25 * new)
    before, forward = [w.clone() for w in run.models.policy.model.parameters()], run.meter.forward
    _, seen = _taught_update(run, groups)
    assert len(seen) > 1, "several micro-batches"
    assert all(torch.equal(a, b) for a, b in zip(before, run.models.policy.model.parameters(), strict=True))
    grads = {n: p.grad.clone() for n, p in run.models.policy.model.named_parameters()}

    rollouts = [r for group in groups for r in group]
    taught = [r for r in rollouts if r.teacher_ids is not None]
    assert run.meter.forward - forward == sum(len(r.teacher_ids) + len(r.token_ids) for r in taught)

    run.models.policy.model.zero_grad(set_to_none=True)
    dense = [_dense(run.models.policy.model, teacher, r, alpha, 0.9) for r in taught]
    total = sum(len(r.token_ids) for r in rollouts)  # the denominator counts rollouts without a teacher, too
    (sum(values.sum() for values, _ in dense) / total).backward()
    for parameter, weight in run.models.policy.model.named_parameters():
        torch.testing.assert_close(grads[parameter], weight.grad, rtol=2e-3, atol=2e-6)

    found: dict[str, list[Any]] = {}
    for one in seen:
        assert one.divergence is not None and one.teacher is not None
        for row, item_id in enumerate(one.item_ids):
            used = one.mask[row] > 0
            found.setdefault(item_id, []).append((one.divergence[row][used].detach(), one.teacher[row][used]))
    for rollout, (values, of_tokens) in zip(taught, dense, strict=True):
        same = [pair for pair in found[rollout.item_id] if len(pair[0]) == len(values)]
        gaps = [(a - values.detach()).abs().max() + (b - of_tokens).abs().max() for a, b in same]
        assert min(map(float, gaps)) < 1e-4
    untaught = len(rollouts) - len(taught)
    assert sum(not bool(a.any()) and not bool(b.any()) for pairs in found.values() for a, b in pairs) == untaught


def test_the_loss_of_a_taught_update_falls_along_its_gradient(training: Any, tmp_path: Path) -> None:
    """The slope along the gradient is its squared length, by central differences."""
    run = training(Taught, tmp_path, kl=0.0, drop_zero_signal=False)
    run.method.teacher = Teacher("reference", 0.5)
    groups = run._choose(run._collect())[:4]

    def loss() -> float:
        batch, seen = _taught_update(run, groups)
        parts = zip(run.passes._slices(batch), seen, strict=True)
        return sum(float((part.weights * one.divergence).sum().detach()) for part, one in parts)

    loss()
    grads = [p.grad.clone() for p in run.models.policy.model.parameters()]
    length = float(sum((g**2).sum() for g in grads)) ** 0.5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, g in zip(run.models.policy.model.parameters(), grads, strict=True):
                p += sign * 2e-3 / length * g
        values.append(loss())
        with torch.no_grad():
            for p, g in zip(run.models.policy.model.parameters(), grads, strict=True):
                p -= sign * 2e-3 / length * g
    assert (values[0] - values[1]) / 4e-3 == pytest.approx(length, rel=0.02)


def test_in_chunks_no_more_logits_exist_than_the_chunk_holds(
    training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(Taught, tmp_path, kl=0.0, drop_zero_signal=False)
    run.passes.teaching._options = run.passes.options = TrainerOptions(logprob_chunk=16)
    run.method.teacher = Teacher("average", 0.5)
    run.services.averaged()
    groups = run._choose(run._collect())
    vocabulary = run.models.policy.model.get_output_embeddings().weight.shape[0]
    rows: list[int] = []
    plain = torch.nn.functional.linear

    def watched(hidden: Any, weight: Any, bias: Any = None) -> Any:
        if weight.shape[0] == vocabulary:
            rows.append(hidden.numel() // hidden.shape[-1])
        return plain(hidden, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    batch, _ = _taught_update(run, groups)
    assert batch.mask.sum() > 500
    assert 0 < max(rows) <= 16


def test_nothing_changes_for_an_update_without_teacher(training: Any, tmp_path: Path) -> None:
    run = training(Method, tmp_path)
    run.run()
    batch = run._batch(run._choose(run._collect()))
    assert batch.teacher is None
    assert all("divergence" not in line for line in read_metrics(tmp_path))


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


class _Killed(Exception):
    pass


def kill_after(run: Any, steps: int) -> None:
    """End a run as a kill does, after the checkpoint of that step."""

    def progress(step: int, *_: Any) -> None:
        if step == steps:
            raise _Killed

    run.progress = progress
    with pytest.raises(_Killed):
        run.run()


def same_after_a_kill(training: Any, folder: Path, cls: type[Method], steps: int = 6, **changes: Any) -> Any:
    """A run that is killed half way and resumed leaves the files and weights of an unbroken one, byte for byte."""
    whole = training(cls, folder / "whole", steps=steps, checkpoint_every=steps // 2, **changes)
    whole.run()
    kill_after(training(cls, folder / "broken", steps=steps, checkpoint_every=steps // 2, **changes), steps // 2)
    resumed = training(cls, folder / "broken", steps=steps, checkpoint_every=steps // 2, **changes)
    assert resumed.state.step == steps // 2
    resumed.run()
    for name in ("metrics.jsonl", "checkpoint/model.safetensors", "checkpoint/method.safetensors"):
        one, other = (folder / place / name for place in ("whole", "broken"))
        assert one.is_file() == other.is_file()
        assert not one.is_file() or one.read_bytes() == other.read_bytes(), name
    return whole


@pytest.mark.parametrize(("cls", "changes"), [(SelfDistill, {"read": False}), (Drift, {"read": False}), (Opsd, {})])
def test_a_self_taught_run_that_was_killed_is_the_same_bit_for_bit(
    training: Any, tmp_path: Path, cls: type[Method], changes: dict[str, Any]
) -> None:
    whole = same_after_a_kill(training, tmp_path, cls, **changes)
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
