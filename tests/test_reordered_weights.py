"""Products by weights in another layout: the same figures to rounding, and a policy that is left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from test_gradients import gpt2, qwen2
from torch import nn

from unlearnbench.policies import reordered_weights as module
from unlearnbench.policies.lora import adapt
from unlearnbench.policies.policy import Policy
from unlearnbench.policies.reordered_weights import copied_bytes, reordered_weights
from unlearnbench.records import Lora


@pytest.fixture(autouse=True)
def small_policies_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_PARAMETERS", 0)


def numbers(model: nn.Module) -> int:
    return sum(one.weight.numel() for one in model.modules() if type(one) is nn.Linear)


@pytest.mark.parametrize("shape", [(3, 5), (1, 200)])
def test_outputs_and_gradients_of_inputs_are_those_of_the_policy(shape: tuple[int, int]) -> None:
    model = qwen2(attention_bias=True)
    for weight in model.parameters():
        weight.requires_grad_(False)
    ids = torch.randint(0, int(model.config.vocab_size), shape, generator=torch.Generator().manual_seed(1))
    embeds = model.get_input_embeddings()(ids)
    found = []
    for context in (None, reordered_weights(model, backward=True)):
        given = embeds.clone().requires_grad_()
        if context is None:
            logits = model(inputs_embeds=given).logits
        else:
            with context:
                logits = model(inputs_embeds=given).logits
        logits.pow(2).sum().backward()
        assert given.grad is not None
        found.append((logits.detach(), given.grad))
    (logits, gradient), (ours, its) = found
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
    torch.testing.assert_close(its, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_layers_get_their_own_product_back_whatever_happens() -> None:
    model = qwen2()
    with pytest.raises(RuntimeError, match="halt"), reordered_weights(model):
        assert any("forward" in vars(one) for one in model.modules())
        raise RuntimeError("halt")
    assert not any("forward" in vars(one) for one in model.modules())


def test_an_adapter_is_applied_as_before() -> None:
    policy, _ = adapt(Policy(qwen2(), None, "x", "raw", (1,)), Lora(rank=4, alpha=8, targets="all-linear"), "root")
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(2))
        ids = torch.arange(12).view(2, 6)
        expected = policy.model(input_ids=ids).logits
        with reordered_weights(policy.model):
            torch.testing.assert_close(policy.model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_copies_are_made_only_where_they_help_and_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = qwen2()
    assert copied_bytes(model) == 4 * numbers(model)
    assert copied_bytes(model, backward=True) == 8 * numbers(model)
    assert copied_bytes(copy.deepcopy(model).to(torch.bfloat16)) == 0
    assert copied_bytes(gpt2()) == 0  # in float64
    assert copied_bytes(gpt2().float()) == 4 * numbers(gpt2())  # the output layer alone: the others are of another kind
    monkeypatch.setattr(module, "MOST_BYTES", 4 * numbers(model))
    assert copied_bytes(model) > 0
    assert copied_bytes(model, backward=True) == 0
    monkeypatch.setattr(module, "LEAST_PARAMETERS", sum(weight.numel() for weight in model.parameters()) + 1)
    assert copied_bytes(model) == 0
    with reordered_weights(model):
        assert not any("forward" in vars(one) for one in model.modules())
