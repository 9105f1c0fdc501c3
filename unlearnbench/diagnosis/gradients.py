"""The policy gradient of each item, exactly, with respect to a random LoRA adapter or to the weights themselves.

An item's vector is minus the gradient of the mean log-probability of its rollouts' tokens, first over the tokens of a
rollout and then over rollouts: the policy loss at ratio 1 and advantage 1 (PROTOCOL 5; arXiv 2605.16787, section 5). An
adapter's B is 0 at the start, so the gradient of A is exactly 0 and that of B is, for a module y = W x + s B A x,

    dL/dB = s * sum over tokens of (dL/dy) (A x)^T.

So the policy stays frozen: hooks take A x on the way forward and dL/dy on the way back, and one product per row gives
its gradient. A row is a prompt with rollouts of one part of an item (`packing`); a pass lays many rows end to end.
Parts (4 by default) hold as many rollouts each; their differences are what noise is known by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.errors import PolicyError
from unlearnbench.policies.packed_attention import MASK_BYTES, attending, hidden_states
from unlearnbench.policies.packing import ItemRollouts, Packed, Row, batches, packed, rows_of
from unlearnbench.policies.reordered_weights import copied_bytes, reordered_weights

RANK, ALPHA = 16, 32.0
TARGETS = ("q_proj", "v_proj")
"""What the paper's script adapts: the default of its LoRA library."""
LOGITS = 1 << 22
"""Logits that are held at once."""
_UNSUPPORTED = (
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "logits_scaling",
    "logit_scale",
    "lm_head_multiplier",
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter at its start: B is 0, A uniform in +-1/sqrt(inputs) from a seed."""

    seed: int = 0
    rank: int = RANK
    alpha: float = ALPHA
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True, slots=True)
class Weights:
    """The policy's own parameters whose name holds one of `names`; all of them if it is empty."""

    names: tuple[str, ...] = ()


Parameters = Adapter | Weights


def dimension(model: Any, parameters: Parameters) -> int:
    """Length of an item's vector. Raises PolicyError where no module or weight has one of the names."""
    if isinstance(parameters, Adapter):
        return sum(_outputs(module) * parameters.rank for _, module in _targets(model, parameters.targets))
    return sum(weight.numel() for _, weight in _chosen(model, parameters))


def item_gradients(
    model: Any,
    items: Sequence[ItemRollouts],
    out: NDArray[np.float32],
    *,
    parameters: Parameters | None = None,
    max_tokens: int = 1024,
    entropy_share: float = 1.0,
    done: Callable[[int], None] | None = None,
) -> None:
    """Fill `out` (items, parts, dimension) with each part's gradient; an item's vector is the mean over its parts.

    Responses are dealt to the parts in turn, so each part has as many (their number must divide by the parts). A pass
    holds at most `max_tokens` tokens, or one response with its prompt. With `entropy_share` below 1 only that share of
    each response's tokens counts, those of highest entropy. `done(i)` is called after item i is complete. Not-finite
    values are left in `out` for the caller to see. Raises PolicyError where the policy cannot be used so.
    """
    parameters = parameters or Adapter()
    if out.shape[0] != len(items) or out.shape[2] != dimension(model, parameters):
        raise ValueError(f"out has shape {out.shape}, not ({len(items)}, parts, {dimension(model, parameters)})")
    for name in _UNSUPPORTED:
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise PolicyError(f"This policy's logits pass through {name}, which gradients do not know; choose another.")
    out[:] = 0
    rows = [row for i, item in enumerate(items) for row in rows_of(i, item, out.shape[1], max_tokens)]
    if not rows:
        return
    waiting = np.bincount([row.item for row in rows], minlength=len(items))
    frozen = {weight: weight.requires_grad for weight in model.parameters()}
    try:
        for weight in frozen:
            weight.requires_grad_(False)
        taker: _AdapterGradients | _WeightGradients
        products: AbstractContextManager[None]
        if isinstance(parameters, Adapter):
            taker, passes = _AdapterGradients(model, parameters), batches(rows, max_tokens)
            products = reordered_weights(model, backward=True)
        else:
            taker, passes, products = _WeightGradients(model, parameters), batches(rows, 0), nullcontext()
        tried = next((row for row in rows if 2 * row.length <= max_tokens), min(rows, key=lambda row: row.length))
        with attending(model, tried), taker, products:
            for batch in passes:
                found = taker.of(batch, entropy_share)
                for row, gradient in zip(batch, found, strict=True):
                    out[row.item, row.part] += gradient
                    waiting[row.item] -= 1
                    if done and waiting[row.item] == 0:
                        done(row.item)
    finally:
        for weight, wanted in frozen.items():
            weight.requires_grad_(wanted)
            weight.grad = None


def pass_bytes(model: Any) -> dict[str, int]:
    """About what a pass takes: `token` bytes for each of its tokens, `copied` for each token of a prompt once more for
    each response to it, `masked` for each token of the longest response with its prompt, and `fixed`.
    """
    config = model.config
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    width = groups * int(getattr(config, "head_dim", None) or hidden // heads)
    return {
        "token": 4 * layers * (14 * hidden + 5 * inner) + 8 * hidden,
        "copied": 4 * (2 * layers + 4) * width,  # keys and values; on the way back some of one layer again
        "masked": MASK_BYTES,
        "fixed": 4 * 4 * max(LOGITS, int(config.vocab_size)) + copied_bytes(model, backward=True),
    }


# --- passes ---------------------------------------------------------------------------------------------------------


def _backward(model: Any, laid: Packed, entropy_share: float, embeds_need_grad: bool) -> None:
    """One forward and backward pass of the loss of all rows: minus the weighted log-probabilities of their tokens."""
    embeds = model.get_input_embeddings()(laid.ids)
    if embeds_need_grad:  # nothing else in a frozen policy asks for gradients
        embeds = embeds.detach().requires_grad_()
    predicting = hidden_states(model, laid, embeds)[laid.sources]
    head = model.get_output_embeddings()
    weights = laid.weights
    if entropy_share < 1.0:
        weights = weights * _highest_entropy(predicting.detach(), head, laid.responses, entropy_share)
    # Logits are made a slice at a time, so that a large vocabulary costs no memory.
    held = predicting.detach().requires_grad_()
    size = max(1, LOGITS // int(model.config.vocab_size))
    for states, targets, share in zip(
        *(torch.split(whole, size) for whole in (held, laid.targets, weights)), strict=True
    ):
        losses = torch.nn.functional.cross_entropy(
            head(states).float() if model.dtype.itemsize < 4 else head(states), targets, reduction="none"
        )
        (losses * share).sum().backward()
    predicting.backward(held.grad)  # type: ignore[no-untyped-call]


@torch.no_grad()
def _highest_entropy(states: Tensor, head: Any, responses: Tensor, share: float) -> Tensor:
    """1 for the tokens of highest entropy, at least one of each response, rescaled so that means stay means."""
    size = max(1, LOGITS // int(head.weight.shape[0]))
    entropy = torch.cat([_entropy(head(part)) for part in torch.split(states, size)])
    kept = torch.zeros_like(entropy)
    for response in torch.unique(responses):
        place = (responses == response).nonzero()[:, 0]
        count = max(1, round(share * len(place)))
        kept[place[entropy[place].topk(count).indices]] = len(place) / count
    return kept


def _entropy(logits: Tensor) -> Tensor:
    scores = torch.log_softmax(logits, dim=-1)
    return -(scores.exp() * scores).sum(-1)


class _AdapterGradients:
    """Gradients of an adapter's B matrices, row by row of a pass, from hooks on its modules."""

    def __init__(self, model: Any, adapter: Adapter) -> None:
        self._model = model
        self._scale = adapter.alpha / adapter.rank
        generator = torch.Generator().manual_seed(adapter.seed)
        self._downs: list[tuple[Any, Tensor, slice]] = []
        start = 0
        for _, module in _targets(model, adapter.targets):
            inputs, outputs = _inputs(module), _outputs(module)
            down = (torch.rand(adapter.rank, inputs, generator=generator, dtype=torch.float64) * 2 - 1) / inputs**0.5
            stop = start + outputs * adapter.rank
            self._downs.append((module, down.to(model.device, model.dtype), slice(start, stop)))
            start = stop
        self._dimension = start
        self._found = torch.zeros(0, start)
        self._spans: tuple[slice, ...] = ()

    def __enter__(self) -> _AdapterGradients:
        self._handles = [module.register_forward_hook(self._hook(down, where)) for module, down, where in self._downs]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def of(self, rows: Sequence[Row], entropy_share: float) -> NDArray[np.float32]:
        """(rows, dimension)."""
        laid = packed(rows, self._model.dtype, self._model.device)
        self._spans = laid.spans
        self._found = torch.zeros(len(rows), self._dimension, dtype=self._model.dtype, device=self._model.device)
        _backward(self._model, laid, entropy_share, embeds_need_grad=False)
        found: NDArray[np.float32] = self._found.cpu().numpy()
        return found

    def _hook(self, down: Tensor, where: slice) -> Callable[[Any, Any, Tensor], None]:
        def forward(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            reduced = self._scale * (inputs[0][0].detach() @ down.T)  # (tokens, rank)
            if not output.requires_grad:  # the first module: what is before it needs no gradient
                output.requires_grad_()

            def backward(gradient: Tensor) -> None:
                for row, span in enumerate(self._spans):
                    found = self._found[row, where].view(-1, reduced.shape[1])
                    torch.matmul(gradient[0, span].T, reduced[span], out=found)

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward


class _WeightGradients:
    """Gradients of the policy's own weights; a pass has one row."""

    def __init__(self, model: Any, weights: Weights) -> None:
        self._model = model
        self._weights = [weight for _, weight in _chosen(model, weights)]

    def __enter__(self) -> _WeightGradients:
        for weight in self._weights:
            weight.requires_grad_(True)
        return self

    def __exit__(self, *_: object) -> None:
        for weight in self._weights:
            weight.requires_grad_(False)

    def of(self, rows: Sequence[Row], entropy_share: float) -> NDArray[np.float32]:
        """(1, dimension)."""
        for weight in self._weights:
            weight.grad = None
        needs = not any(weight is self._model.get_input_embeddings().weight for weight in self._weights)
        laid = packed(rows, self._model.dtype, self._model.device)
        _backward(self._model, laid, entropy_share, embeds_need_grad=needs)
        parts = [
            torch.zeros(weight.numel()) if weight.grad is None else weight.grad.flatten().cpu()
            for weight in self._weights
        ]
        found: NDArray[np.float32] = torch.cat(parts)[None].numpy()
        return found


def _targets(model: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    leaves = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)}
    leaves -= {name.rpartition(".")[2] for name, module in model.named_modules() if module is _head(model)}
    if missing := [name for name in names if name not in leaves]:
        raise PolicyError(
            f"This policy has no module named {' or '.join(missing)} that an adapter fits; it has "
            f"{', '.join(sorted(leaves))}."
        )
    return [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in names]


def _head(model: Any) -> Any:
    return model.get_output_embeddings()


def _is_linear(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.ndim == 2 and not isinstance(module, torch.nn.Embedding)


def _inputs(module: Any) -> int:
    return int(module.in_features if hasattr(module, "in_features") else module.weight.shape[0])


def _outputs(module: Any) -> int:
    return int(module.out_features if hasattr(module, "out_features") else module.weight.shape[1])


def _chosen(model: Any, weights: Weights) -> list[tuple[str, Any]]:
    """Parameters in the model's order, shared ones once."""
    for part in weights.names:
        if not any(part in name for name, _ in model.named_parameters()):
            raise PolicyError(f"This policy has no weights whose name holds {part}.")
    return [
        (name, weight)
        for name, weight in model.named_parameters()
        if not weights.names or any(part in name for part in weights.names)
    ]
