"""Training passes that read rows end to end: the same figures and gradients as padded rows, to rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_gradients import gpt2, qwen2

from unlearnbench.methods.grpo import Grpo
from unlearnbench.methods.opsd import Opsd
from unlearnbench.policies import packed_attention
from unlearnbench.policies.layout import reads_end_to_end
from unlearnbench.policies.packed_attention import CALL
from unlearnbench.records import Rollout, Verdict
from unlearnbench.training import passes
from unlearnbench.training.batch import TokenBatch, fixed_logprobs, grouped, joined, make_batch, token_logprobs
from unlearnbench.training.options import TrainerOptions

VOCABULARY = 23


def rollout(context: list[int], tokens: list[int], mask: list[float] | None = None) -> Rollout:
    return Rollout(
        item_id="x",
        index=0,
        prompt_ids=np.array(context, dtype=np.int32),
        token_ids=np.array(tokens, dtype=np.int32),
        logprobs=np.full(len(tokens), -1.0, dtype=np.float32),
        completion="",
        finish="stop",
        verdict=Verdict(True, None, "match"),
        reward=1.0,
        mask=None if mask is None else np.array(mask, dtype=np.float32),
    )


def batch_of(rollouts: list[Rollout]) -> TokenBatch:
    advantages = [np.linspace(-1.0, 2.0, len(one.token_ids)) for one in rollouts]
    return make_batch(rollouts, advantages, "token_mean", torch.device("cpu"))


def figures(model: Any, batch: TokenBatch, options: TrainerOptions) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Log-probabilities and entropies where the loss has weight, and the gradients of a loss of both."""
    model.zero_grad()
    logprobs, entropy = token_logprobs(model, batch, 0.7, with_entropy=True, options=options)
    assert entropy is not None
    assert logprobs.shape == entropy.shape == batch.mask.shape
    (batch.weights * (batch.advantages * logprobs.exp() + 0.3 * entropy)).sum().backward()  # type: ignore[no-untyped-call]
    weighed = batch.mask > 0
    gradients = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    return [logprobs[weighed].detach(), entropy[weighed].detach()], gradients


tokens = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=7)


@st.composite
def groups(draw: st.DrawFn) -> list[Rollout]:
    """Rollouts of a few contexts, some of them equal, some with tokens that the loss leaves out."""
    made = []
    for context in draw(st.lists(tokens, min_size=1, max_size=3)):
        for response in draw(st.lists(tokens, min_size=1, max_size=4)):
            mask = draw(
                st.none() | st.lists(st.sampled_from([0.0, 1.0]), min_size=len(response), max_size=len(response))
            )
            made += [rollout(context, response, mask)] * draw(st.integers(1, 2))
    return [*made, rollout([1, 2], [3, 4, 5])]


@pytest.mark.parametrize(
    ("chunk", "call"), [(None, CALL), (3, CALL), (None, 0), (None, 400)], ids=["", "chunks", "pad-none", "pad-some"]
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(rollouts=groups())
def test_figures_and_gradients_are_those_of_padded_rows(chunk: int | None, call: int, rollouts: list[Rollout]) -> None:
    model = qwen2(vocab_size=VOCABULARY).double()
    options = TrainerOptions(logprob_chunk=chunk)
    batch = batch_of(rollouts)
    expected, gradients = figures(model, batch, TrainerOptions())
    with patch.object(packed_attention, "CALL", call):  # how far pieces of other lengths are padded to share a call
        found, ours = figures(model, replace(batch, packed=True), options)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=0, atol=2e-6)  # log-probabilities are float32
    for one, two in zip(gradients, ours, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-7)
    fixed = fixed_logprobs(model, replace(batch, packed=True), 0.7)
    torch.testing.assert_close(fixed[batch.mask > 0], expected[0], rtol=0, atol=2e-6)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(rollouts=groups(), others=groups(), size=st.integers(1, 80))
def test_micro_batches_that_share_a_pass_get_the_figures_of_their_own(
    rollouts: list[Rollout], others: list[Rollout], size: int
) -> None:
    model = qwen2(vocab_size=VOCABULARY).double()
    parts = [
        part for one in (rollouts, others) for part in replace(batch_of(one), packed=True).micro_batches(max_tokens=40)
    ]
    shared = list(grouped(parts, size))
    assert [part for some in shared for part in some] == parts
    assert all(len(some) == 1 or joined(some).input_ids.numel() <= size for some in shared)
    for some in shared:
        found = fixed_logprobs(model, joined(some), 0.7)
        for part, rows in zip(some, torch.split(found, [len(part) for part in some]), strict=True):
            weighed = part.mask > 0
            own = rows[:, : part.mask.shape[1]][weighed]
            torch.testing.assert_close(own, fixed_logprobs(model, part, 0.7)[weighed], rtol=0, atol=2e-6)


@pytest.mark.parametrize("make", [gpt2, lambda: qwen2(use_sliding_window=True, sliding_window=3, max_window_layers=0)])
def test_other_positions_and_windows(make: Any) -> None:
    model = make()
    assert reads_end_to_end(model)
    own = model.config._attn_implementation
    rng = np.random.default_rng(0)
    rollouts = [rollout([k, 1, 2, 3], rng.integers(0, 20, size).tolist()) for k in (1, 2) for size in (1, 5, 9, 9)]
    batch = batch_of(rollouts)
    expected, gradients = figures(model, batch, TrainerOptions())
    found, ours = figures(model, replace(batch, packed=True), TrainerOptions())
    for one, two in zip(expected + gradients, found + ours, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-4, atol=2e-6)
    assert model.config._attn_implementation == own  # a sampler's calls are as before


def test_a_policy_whose_tokens_meet_elsewhere_keeps_its_rows_padded() -> None:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    config = Lfm2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        layer_types=["conv", "full_attention"],
        pad_token_id=0,
    )
    assert not reads_end_to_end(Lfm2ForCausalLM(config).eval())


def test_shared_contexts_and_equal_rows_are_computed_once() -> None:
    batch = batch_of([rollout([1, 2, 3], [4, 5]), rollout([1, 2, 3], [4, 5]), rollout([1, 2, 3], [6, 7, 8])])
    layout = replace(batch, packed=True).layout()
    assert layout.ids.tolist() == [[1, 2, 3, 4, 6, 7]]  # the last token of a row predicts nothing
    assert len(layout.places) == 7  # but every row has its own figures


@pytest.mark.parametrize("method", [Grpo, Opsd])
@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4, "alpha": 8, "targets": "all-linear"}}])
def test_a_step_with_rows_end_to_end_is_that_with_padded_rows(
    method: type[Grpo], changes: dict[str, Any], training: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients, and weights after a step: reference, teacher, adapter and fused optimiser included."""
    gradients: dict[str, list[torch.Tensor]] = {}
    weights: dict[str, list[torch.Tensor]] = {}
    for name, possible in (("padded", False), ("packed", True)):
        monkeypatch.setattr(passes, "reads_end_to_end", lambda model, possible=possible: possible)
        settings = {"learning_rate": 1e-3, "kl": 0.1, "drop_zero_signal": False, **changes}
        run = training(method, tmp_path / name, steps=1, **settings)
        assert run.passes.packed == possible
        batch = run._batch(run._choose(run._collect()))
        run.passes.backward(batch, run.passes.reference_logprobs([batch])[0])
        gradients[name] = [weight.grad.clone() for weight in run.trained]
        for weight, gradient in zip(run.trained, gradients["padded"], strict=True):
            weight.grad = gradient  # Adam divides by its size, so that rounding of a tiny one would show
        run.optimiser.step()
        weights[name] = [weight.detach() for weight in run.trained]
    assert max(float(one.abs().max()) for one in gradients["padded"]) > 1e-3
    for alone, together in zip(gradients["padded"], gradients["packed"], strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-6)
    for alone, together in zip(weights["padded"], weights["packed"], strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-8)


def test_a_fused_optimiser_resumes_from_its_checkpoint(training: Any, tmp_path: Path) -> None:
    unbroken = training(Grpo, tmp_path / "unbroken", steps=2)
    unbroken.run()
    first = training(Grpo, tmp_path / "broken", steps=1)
    first.run()
    first.save()
    second = training(Grpo, tmp_path / "broken", steps=2)
    second.run()
    assert second.state.step == 2
    for one, two in zip(unbroken.trained, second.trained, strict=True):
        assert torch.equal(one, two)
