"""Linear layers that multiply by copies of their weights in oneDNN's own layout, on processors.

torch leaves float32 products to a library that brings a weight into a layout of its own at each of them: half of the
time for the 64 rows of a decoding step on two threads, a sixth for the 1,024 of a pass. With copies that are ordered
once, sums are taken in another order, so results differ by rounding. Copies take as much memory as the weights, twice
as much where gradients pass through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 64
"""What the layout is chosen for; any number of rows can be multiplied."""
LEAST_PARAMETERS = 4_000_000
"""Of a policy that gains by it: for every new number of rows the library first compiles a product."""
MOST_BYTES = 1 << 31
"""Of all copies; a policy that would need more keeps its own weights."""


@contextmanager
def reordered_weights(model: Any, *, backward: bool = False) -> Iterator[None]:
    """Meanwhile a policy's linear layers multiply by reordered copies, where `copied_bytes` says that they are made.

    No gradient reaches their weights; one passes through the layers with `backward` alone.
    """
    layers = _layers(model) if copied_bytes(model, backward=backward) else []
    try:
        for layer in layers:
            weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
            back = _reordered(weight.T.contiguous()) if backward else None
            layer.forward = partial(_linear, _reordered(weight), back, bias)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def copied_bytes(model: Any, *, backward: bool = False) -> int:
    """What the copies of a policy take; 0 where it keeps its own weights."""
    weights = [layer.weight for layer in _layers(model)]
    size = (8 if backward else 4) * sum(weight.numel() for weight in weights)
    possible = (
        all(weight.device.type == "cpu" and weight.dtype == torch.float32 for weight in weights)
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
    large = sum(weight.numel() for weight in model.parameters()) >= LEAST_PARAMETERS
    return size if possible and large and size <= MOST_BYTES else 0


def _layers(model: Any) -> list[nn.Linear]:
    return [module for module in model.modules() if type(module) is nn.Linear]


def _reordered(weight: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
    return found


def _linear(weight: Tensor, back: Tensor | None, bias: Tensor | None, states: Tensor) -> Tensor:
    if back is None:
        return _product(states, weight, bias)
    found: Tensor = _Linear.apply(states, weight, back, bias)  # type: ignore[no-untyped-call]
    return found


def _product(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
    return found


class _Linear(torch.autograd.Function):
    """A product by frozen weights, with theirs and their transposed ones' copies."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, back: Tensor, bias: Tensor | None) -> Tensor:
        ctx.back = back
        return _product(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _product(gradients[0], ctx.back, None), None, None, None
