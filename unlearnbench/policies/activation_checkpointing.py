"""Less memory for more arithmetic: activations are recomputed in the backward pass instead of kept.

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
from unlearnbench.policies.layout import Layout, padded

RESHAPED = (
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "logits_scaling",
    "logit_scale",
    "lm_head_multiplier",
)
"""Settings of architectures that do something to what comes out of the output layer, or to attention."""


def recompute_layers(model: Any) -> None:
    """Let the layers of a transformers model keep only their inputs. Raises PolicyError if no layers are found.

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


Columns = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""Figures (n,) of each of n tokens, from log-softmax scores (n, vocabulary) and the tokens' places (n,) among the
flattened (rows, columns) predictions of a micro-batch."""


def chunked_columns(model: Any, layout: Layout, temperature: float, chunk: int, columns: Columns) -> tuple[Tensor, ...]:
    """What `columns` returns for the predictions of a layout, each (predictions,).

    The logits of more than `chunk` tokens never exist, forward or backward. The output layer returns these figures in
    place of logits, inside the model's own pass, so that whatever surrounds that pass (an adapter, shards, autocast)
    surrounds them. Raises PolicyError where the model does more to its logits.
    """
    _require_plain(model)
    head = model.get_output_embeddings()
    project = head.forward

    def figures(hidden: Tensor, places: Tensor) -> Tensor:
        scores = torch.log_softmax(project(hidden).float() / temperature, dim=-1)
        return torch.stack(columns(scores, places), dim=-1)

    def in_chunks(hidden: Tensor) -> Tensor:
        parts = zip(torch.split(layout.predicting(hidden), chunk), torch.split(layout.places, chunk), strict=True)
        found = torch.cat([_again(figures, *part) for part in parts])
        return found[None].clone()  # shards watch it, which they cannot a view

    return tuple(_with_output(model, layout, in_chunks)[0].unbind(-1))


def hidden_states(model: Any, input_ids: Tensor, kept: int) -> Tensor:
    """What a model would make logits of, for the last `kept` tokens of each row: (rows, kept, hidden size).

    Raises PolicyError where the model does more to its logits than its output layer.
    """
    _require_plain(model)
    return _with_output(model, padded(input_ids, kept), lambda hidden: hidden)


def _with_output(model: Any, layout: Layout, output: Callable[[Tensor], Tensor]) -> Tensor:
    """What a pass gives with another function in place of the output layer's."""
    head = model.get_output_embeddings()
    head.forward = output
    try:
        return layout.logits(model)
    finally:
        del head.forward  # the class's own again


def _require_plain(model: Any) -> None:
    for name in RESHAPED:
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise PolicyError(
                f"This policy's logits pass through {name}, which logprob_chunk does not know; leave it out."
            )
