"""Items' gradients against finite differences and against one backward pass per rollout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from unlearnbench.diagnosis.gradients import Adapter, Parameters, Weights, dimension, item_gradients
from unlearnbench.errors import PolicyError
from unlearnbench.policies.packed_attention import QUERIES
from unlearnbench.policies.packing import ItemRollouts

PARTS = 4


def gpt2(positions: int = 64) -> Any:
    """Two layers in float64; unlike most models its norms stay in float64 too."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_embd=16,
        n_head=2,
        vocab_size=40,
        n_positions=positions,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return GPT2LMHeadModel(config).double().eval()


def qwen2(**changes: Any) -> Any:
    """Two layers in float32, keys and values shared by two heads."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    settings |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 40, "max_position_embeddings": 64}
    return Qwen2ForCausalLM(Qwen2Config(**settings | changes)).eval()


def rollouts(items: int = 5, seed: int = 0, longest: int = 9) -> list[ItemRollouts]:
    """Items with 8 responses of 1 to `longest` tokens, one of them twice."""
    draw = np.random.default_rng(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in draw.integers(0, 40, count))

    made = []
    for number in range(items):
        responses = [tokens(draw.integers(1, longest + 1)) for _ in range(7)]
        made.append(ItemRollouts(f"i{number}", tokens(draw.integers(1, 7)), (*responses, responses[3])))
    return made


def gradients(model: Any, items: list[ItemRollouts], parameters: Parameters, **options: Any) -> NDArray[Any]:
    kind = np.float64 if model.dtype == torch.float64 else np.float32
    out = np.full((len(items), PARTS, dimension(model, parameters)), np.nan, dtype=kind)
    item_gradients(model, items, out, parameters=parameters, **options)
    return out


def loss(model: Any, item: ItemRollouts, part: int) -> torch.Tensor:
    """Minus the mean log-probability of one part's rollouts, each in a pass of its own."""
    total = torch.zeros((), dtype=model.dtype)
    responses = item.responses[part::PARTS]
    given = (item.weights or (1.0,) * len(item.responses))[part::PARTS]
    for response, weight in zip(responses, given, strict=True):
        ids = torch.tensor([[*item.prompt, *response]])
        scores = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1)
        chosen = scores.gather(-1, ids[0, 1:, None])[len(item.prompt) - 1 :, 0]
        total = total - weight * chosen.mean() / len(responses)
    return total


@contextmanager
def adapted(model: Any, adapter: Adapter) -> Iterator[list[torch.Tensor]]:
    """The model with the adapter in place, and its B matrices, all 0: an adapter written out as its definition."""
    draw = torch.Generator().manual_seed(adapter.seed)
    ups, handles = [], []
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in adapter.targets:
            continue
        inputs, outputs = module.weight.shape[::-1] if isinstance(module, torch.nn.Linear) else module.weight.shape
        down = (torch.rand(adapter.rank, inputs, generator=draw, dtype=torch.float64) * 2 - 1) / inputs**0.5
        down = down.to(model.dtype)
        up = torch.zeros(outputs, adapter.rank, dtype=model.dtype, requires_grad=True)

        def add(_: Any, given: Any, output: Any, down: torch.Tensor = down, up: torch.Tensor = up) -> Any:
            return output + adapter.alpha / adapter.rank * (given[0] @ down.T) @ up.T

        handles.append(module.register_forward_hook(add))
        ups.append(up)
    yield ups
    for handle in handles:
        handle.remove()


def one_by_one(model: Any, items: list[ItemRollouts], parameters: Parameters) -> NDArray[Any]:
    """The same by autograd, one rollout after the other."""
    found = []
    if isinstance(parameters, Adapter):
        with adapted(model, parameters) as ups:
            for item in items:
                for part in range(PARTS):
                    found.append(torch.autograd.grad(loss(model, item, part), ups))
    else:
        weights = [
            w for n, w in model.named_parameters() if not parameters.names or any(p in n for p in parameters.names)
        ]
        for item in items:
            for part in range(PARTS):
                found.append(torch.autograd.grad(loss(model, item, part), weights, allow_unused=True))
    rows = [torch.cat([g.flatten() for g in grads if g is not None]).numpy() for grads in found]
    return np.stack(rows).reshape(len(items), PARTS, -1)


@pytest.mark.parametrize(
    "parameters",
    [
        Adapter(targets=("c_attn",), rank=4),
        Adapter(targets=("c_attn", "c_fc"), rank=3, alpha=5.0, seed=7),
        Weights(),
        Weights(("h.1.mlp",)),
    ],
)
def test_packed_rows_equal_one_backward_per_rollout_in_float64(parameters: Parameters) -> None:
    model, items = gpt2(), rollouts()
    np.testing.assert_allclose(gradients(model, items, parameters), one_by_one(model, items, parameters), atol=1e-12)


@pytest.mark.parametrize("parameters", [Adapter(), Weights()])
def test_cosines_in_float32_are_those_of_autograd(parameters: Parameters) -> None:
    model, items = qwen2(), rollouts()
    ours, theirs = (
        found.mean(1) / np.linalg.norm(found.mean(1), axis=1, keepdims=True)
        for found in (gradients(model, items, parameters), one_by_one(model, items, parameters))
    )
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-5)


def test_adapter_gradient_by_finite_differences() -> None:
    model, items, adapter, step = gpt2(), rollouts(1), Adapter(targets=("c_attn",), rank=2), 1e-5
    found = gradients(model, items, adapter)[0]
    with adapted(model, adapter) as ups, torch.no_grad():
        sizes = [up.numel() for up in ups]
        for place in np.random.default_rng(3).integers(0, sum(sizes), 12):
            which = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
            flat = ups[which].view(-1)
            at = int(place) - sum(sizes[:which])
            sides = []
            for sign in (1, -1):
                flat[at] = sign * step
                sides.append(float(loss(model, items[0], 2)))
            flat[at] = 0.0
            assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(found[2, place], rel=1e-5, abs=1e-9)


def test_weights_of_rollouts_scale_their_share() -> None:
    model, adapter = gpt2(), Adapter(targets=("c_attn",), rank=2)
    plain = rollouts(2)
    weights = (1.0, -0.5, 2.0, 0.0, 0.25, 3.0, -1.0, 1.0)
    items = [ItemRollouts(item.item_id, item.prompt, item.responses, weights) for item in plain]
    np.testing.assert_allclose(gradients(model, items, adapter), one_by_one(model, items, adapter), atol=1e-12)


def test_batches_and_order_do_not_matter() -> None:
    model, items, adapter = gpt2(), rollouts(6, longest=20), Adapter(targets=("c_attn",), rank=2)
    whole = gradients(model, items, adapter, max_tokens=100_000)
    np.testing.assert_allclose(gradients(model, items, adapter, max_tokens=1), whole, atol=1e-13)
    np.testing.assert_allclose(gradients(model, items[::-1], adapter, max_tokens=90)[::-1], whole, atol=1e-13)
    np.testing.assert_allclose(gradients(model, items[2:4], adapter), whole[2:4], atol=1e-13)


def test_sliding_windows_are_kept() -> None:
    model, items = qwen2(use_sliding_window=True, sliding_window=4, max_window_layers=0), rollouts(3, longest=12)
    assert set(model.config.layer_types) == {"sliding_attention"}
    np.testing.assert_allclose(gradients(model, items, Adapter()), one_by_one(model, items, Adapter()), atol=1e-5)


def test_rollouts_longer_than_a_chunk_of_queries() -> None:
    """Several chunks, the last one short, with a prompt and without one that is worth a word; windows that cut both."""
    draw = np.random.default_rng(4)
    sizes = [(1, 2 * QUERIES + 7), (QUERIES + 9, 3), (5, QUERIES + 1), (300, QUERIES)]
    items = []
    for number, (prompt, length) in enumerate(sizes):
        ids = [tuple(int(token) for token in draw.integers(0, 40, size)) for size in (prompt, *[length] * PARTS)]
        items.append(ItemRollouts(str(number), ids[0], tuple(ids[1:])))
    model, adapter = gpt2(1024), Adapter(targets=("c_attn",), rank=2)
    np.testing.assert_allclose(gradients(model, items, adapter), one_by_one(model, items, adapter), atol=1e-12)
    model = qwen2(use_sliding_window=True, sliding_window=70, max_window_layers=0, max_position_embeddings=1024)
    np.testing.assert_allclose(gradients(model, items, Adapter()), one_by_one(model, items, Adapter()), atol=1e-5)


@pytest.mark.parametrize("parameters", [Adapter(targets=("c_attn",), rank=2), Weights()])
def test_a_part_too_long_for_a_pass_is_taken_in_several(parameters: Parameters) -> None:
    model, items = gpt2(), rollouts(3, longest=20)
    items.insert(0, ItemRollouts("short", (1, 2), ((3, 4),) * PARTS))  # the policy is tried on a row of half a pass
    lengths: list[int] = []
    watched = model.transformer.wte.register_forward_hook(lambda _, ids, __: lengths.append(ids[0].shape[1]))
    found = gradients(model, items, parameters, max_tokens=25)
    watched.remove()
    longest = max(len(item.prompt) + len(response) for item in items for response in item.responses)
    assert (
        max(lengths) <= max(25, longest) < max(len(item.prompt) + sum(map(len, item.responses[::4])) for item in items)
    )
    np.testing.assert_allclose(found, one_by_one(model, items, parameters), atol=1e-12)


def test_tokens_of_highest_entropy_alone() -> None:
    model, items, adapter = gpt2(), rollouts(1), Adapter(targets=("c_attn",), rank=2)
    item = ItemRollouts("one", items[0].prompt, items[0].responses[:4])
    found = gradients(model, [item], adapter, entropy_share=0.3)[0]
    for part, response in enumerate(item.responses):
        ids = torch.tensor([[*item.prompt, *response]])
        with adapted(model, adapter) as ups:
            scores = torch.log_softmax(model(input_ids=ids).logits[0, len(item.prompt) - 1 : -1], -1)
            entropy = -(scores.exp() * scores).sum(-1)
            kept = entropy.topk(max(1, round(0.3 * len(response)))).indices
            chosen = scores[kept].gather(-1, torch.tensor(response)[kept, None])
            (expected,) = (torch.cat([g.flatten() for g in torch.autograd.grad(-chosen.mean(), ups)]),)
        np.testing.assert_allclose(found[part], expected.numpy(), atol=1e-12)


def test_the_policy_is_left_as_it_was() -> None:
    model = qwen2()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for parameters in (Adapter(), Weights()):
        gradients(model, rollouts(2), parameters)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_that_are_not_finite_show_in_the_gradients() -> None:
    model = qwen2()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    assert not np.isfinite(gradients(model, rollouts(1), Adapter())).all()


def test_unknown_names_are_one_sentence() -> None:
    with pytest.raises(PolicyError, match=r"no module named query that an adapter fits; it has .*q_proj"):
        dimension(qwen2(), Adapter(targets=("q_proj", "query")))
    with pytest.raises(PolicyError, match="no weights whose name holds layer_9"):
        dimension(qwen2(), Weights(("layer_9",)))


def test_rollouts_must_make_equal_parts() -> None:
    item = ItemRollouts("odd", (1, 2), ((3,),) * 6)
    with pytest.raises(ValueError, match="6 rollouts, which make no 4 equal parts"):
        gradients(qwen2(), [item], Adapter())


def test_policies_whose_tokens_meet_elsewhere_are_refused() -> None:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    config = Lfm2Config(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        max_position_embeddings=64,
    )
    model = Lfm2ForCausalLM(config).eval()
    with pytest.raises(PolicyError, match="Lfm2ForCausalLM lets tokens meet elsewhere"):
        gradients(model, rollouts(2), Adapter())
