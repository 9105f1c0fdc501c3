"""The same policy with larger attention heads, for an engine whose attention kernels know only some sizes.

Zeros are appended to each head's queries, keys and values, and the queries grow by the square root of the ratio, so
that scaled products stay what they were. Rotary positions turn the pairs (i, i + size / 2) by an angle that falls
geometrically with i (Su et al. 2021, 2104.09864); a larger base makes the first pairs of the larger head turn as
those of the smaller one. Up to rounding the function is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from unlearnbench.errors import PolicyError

ARCHITECTURES = ("qwen2", "llama")


def head_size(config: Any) -> int:
    """Width of an attention head of a model of transformers."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def widened_config(config: Any, size: int) -> dict[str, Any]:
    """What differs in the configuration of the policy with heads of `size`. Raises PolicyError where none is known.

    The architecture is Llama's, which takes a head's size from its configuration: Qwen2 is Llama with biases on
    queries, keys and values.
    """
    rope = dict(getattr(config, "rope_parameters", None) or {})
    own = head_size(config)
    usual = rope.get("rope_type", "default") == "default" and rope.get("partial_rotary_factor", 1.0) == 1.0
    if config.model_type not in ARCHITECTURES or not usual or "rope_theta" not in rope:
        raise PolicyError(
            f"The engine has no attention kernel for heads of {own}, and {config.model_type} policies cannot be "
            "widened; sample with --sampler transformers."
        )
    bias = config.model_type == "qwen2" or bool(getattr(config, "attention_bias", False))
    return {
        "architectures": ["LlamaForCausalLM"],
        "head_dim": size,
        "qkv_bias": bias,
        "rope_parameters": {**rope, "rope_theta": rope["rope_theta"] ** (size / own)},
    }


def widened_weights(weights: Iterable[tuple[str, Tensor]], own: int, size: int) -> Iterator[tuple[str, Tensor]]:
    """Named weights of transformers' layout with heads of `own` as those of the same policy with heads of `size`."""
    place = torch.cat([torch.arange(own // 2), torch.arange(own // 2) + size // 2])  # where a head's numbers go
    for name, weight in weights:
        layer, _, kind = name.rpartition(".")
        layer = layer.rpartition(".")[2]
        if layer in ("q_proj", "k_proj", "v_proj"):
            rows = weight.view(-1, own, *weight.shape[1:])
            wide = rows.new_zeros(len(rows), size, *weight.shape[1:])
            wide[:, place.to(weight.device)] = rows * (math.sqrt(size / own) if layer == "q_proj" else 1.0)
            weight = wide.reshape(-1, *weight.shape[1:])
        elif layer == "o_proj" and kind == "weight":
            columns = weight.view(len(weight), -1, own)
            wide = columns.new_zeros(*columns.shape[:2], size)
            wide[:, :, place.to(weight.device)] = columns
            weight = wide.reshape(len(weight), -1)
        yield name, weight
