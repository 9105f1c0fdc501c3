"""A policy's weights, gradients and optimiser sharded over processes: torch's FSDP2 (Zhao et al. 2023, 2304.11277).

Each process holds its share of every tensor. A layer's weights are gathered for its own pass and dropped after it, and
its gradients are summed into the shares. So all processes make as many passes as each other. Where they cannot
(sampling) or need not (saving), the whole weights are gathered for as long as that takes: see `whole`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unlearnbench.policies.activation_checkpointing import layers_of


def shard(model: Any, processes: int) -> None:
    """Share a model out over all processes, which have joined; before an optimiser is made for it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (processes,))
    for module in (*layers_of(model), model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        module.set_gradient_divide_factor(1.0)  # the sum over processes: weights in the loss hold the denominator
        module.set_force_sum_reduction_for_comms(True)


def is_sharded(model: Any) -> bool:
    return bool(_shards(model))


def _shards(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "set_reshard_after_forward")]


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Meanwhile every process holds all weights, as ordinary tensors, and passes need no other process."""
    shards = _shards(model)
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
            module.set_reshard_after_forward(True, recurse=False)


def gathered(value: Tensor) -> Tensor:
    """The whole tensor of a share, in every process; an ordinary tensor as it is."""
    full: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return full


def scattered(value: Tensor, like: Any) -> Tensor:
    """Of a whole tensor the share that this process has of `like`; the tensor itself where that is not a share."""
    if not hasattr(like, "full_tensor") or value.dim() == 0:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements)


@torch.no_grad()
def restore(model: Any, stored: dict[str, Tensor]) -> None:
    """Put whole tensors into the shares of a model, by name."""
    for name, weight in model.named_parameters():
        if name in stored:
            weight.copy_(scattered(stored[name], weight))
