"""Less memory for more arithmetic: what a pass would keep for its way back is computed again there.

Of layers only the inputs are kept (Chen et al. 2016, 1604.06174). Logits are made for some tokens at a time, since
those of 16,384 tokens over 150,000 entries would take 10 GB as numbers alone, and several times that in a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unlearnbench.errors import PolicyError

RESHAPED = (
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "logits_scaling",
    "logit_scale",
    "lm_head_multiplier",
)
"""Settings of architectures that do something to what comes out of the output layer, or to attention."""


def recompute_layers(model: Any) -> None:
    """Let the layers of a model of transformers keep nothing but their inputs. Raises PolicyError where it has none.

    Unlike the switch of transformers this does not ask for training mode, which would turn dropout on (LOOP 15); a pass
    without gradients is left as it is.
    """
    layers = layers_of(model)
    if not layers:
        raise PolicyError(
            f"{type(model).__name__} has no layers to compute again; train without gradient_checkpointing."
        )
    for layer in layers:
        layer.forward = partial(_again, layer.forward)


def layers_of(model: Any) -> list[Any]:
    """The decoder layers of a model of transformers."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _again(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def chunked_logprobs(
    model: Any, input_ids: Tensor, kept: int, temperature: float, chunk: int, *, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of the last `kept` - 1 tokens of each row, and entropies of what they were drawn from.

    Both (rows, kept - 1). The logits of more than `chunk` tokens never exist, forward or backward. The output layer
    gives these numbers in place of logits, inside the model's own pass, so that whatever surrounds that pass (an
    adapter, shards, autocast) surrounds them. Raises PolicyError where the model does more to its logits.
    """
    for name in RESHAPED:
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise PolicyError(
                f"This policy's logits pass through {name}, which logprob_chunk does not know; leave it out."
            )
    head = model.get_output_embeddings()
    project = head.forward
    targets = input_ids[:, input_ids.shape[1] - kept + 1 :]

    def told(hidden: Tensor, wanted: Tensor) -> Tensor:
        scores = torch.log_softmax(project(hidden).float() / temperature, dim=-1)
        logprobs = scores.gather(-1, wanted[:, None])[:, 0]
        return torch.stack((logprobs, -(scores.exp() * scores).sum(-1)) if with_entropy else (logprobs,), dim=-1)

    def in_chunks(hidden: Tensor) -> Tensor:
        flat, wanted = hidden[:, :-1].flatten(0, 1), targets.flatten()
        parts = [_again(told, flat[at : at + chunk], wanted[at : at + chunk]) for at in range(0, len(flat), chunk)]
        return torch.cat(parts).view(*targets.shape, -1).clone()  # shards watch it, which they cannot a view

    head.forward = in_chunks
    try:
        found = model(input_ids=input_ids, use_cache=False, logits_to_keep=kept).logits
    finally:
        del head.forward  # the class's own again
    return found[..., 0], found[..., 1] if with_entropy else None
