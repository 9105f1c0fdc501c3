"""The divergence between policy and teacher over the vocabulary, and updates that have a teacher."""

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

from unlearnbench.method import LossBatch, Method, Teacher
from unlearnbench.records import RolloutGroup
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
@settings(max_examples=60)
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
    run.passes.backward(batch, run.passes.reference_logprobs([batch])[0])
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
