"""Attention of rollouts laid end to end: each response with its prompt and itself, whatever the lengths.

Scores are never held whole (torch's kernels see to that), and masks are bounded: queries come in chunks, a chunk sees
the keys up to its last token, and all chunks of all pieces look through the same mask, shifted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from unlearnbench.errors import PolicyError
from unlearnbench.policies.packing import Packed, Piece, Row, packed

NAME = "unlearnbench_rows"
QUERIES = 256
"""Queries of a piece that are attended to at once; more are no quicker."""
MASK_BYTES = 20 * QUERIES
"""Of masks, for each token of the longest response and its prompt: the widest, narrower ones, what they are made of."""

_plain: WeakSet[Any] = WeakSet()
"""Models that were found to let tokens meet in attention alone; it takes three passes of a row to find out."""
_pieces: ContextVar[tuple[Piece, ...]] = ContextVar("pieces")


@contextmanager
def attending(model: Any, row: Row | None = None) -> Iterator[None]:
    """The model with attention piece by piece. Raises PolicyError if its attention cannot be replaced.

    If `row` is given and the model was not checked before, it is compared with itself on two copies of `row`.
    """
    from transformers import AttentionInterface

    own = model.config._attn_implementation
    AttentionInterface.register(NAME, _attend)
    try:
        expected = None if row is None or model in _plain else _alone(model, row)
        model.set_attn_implementation(NAME)
        if model.config._attn_implementation != NAME:
            raise PolicyError(f"{type(model).__name__} has its own attention, so its rows cannot be laid end to end.")
        if row is not None and expected is not None:
            _compare(model, row, expected)
            _plain.add(model)
        yield
    finally:
        model.set_attn_implementation(own)


@contextmanager
def in_pieces(pieces: tuple[Piece, ...]) -> Iterator[None]:
    """The pieces that attention sees in the passes of this context, inside of `attending`."""
    before = _pieces.set(pieces)
    try:
        yield
    finally:
        _pieces.reset(before)


def hidden_states(model: Any, laid: Packed, embeds: Tensor) -> Tensor:
    """(tokens, size): the last hidden states of a pass, inside of `attending`."""
    with in_pieces(laid.pieces):
        found = model.base_model(inputs_embeds=embeds, position_ids=laid.positions, use_cache=False).last_hidden_state
    hidden: Tensor = found[0]
    return hidden


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention of a pass, piece by piece: (1, heads, tokens, size) each, to (1, tokens, heads, size)."""
    window = rest.get("sliding_window")
    pieces = _pieces.get()
    # Cut at once: the backward pass of many single slices would fill as many whole tensors.
    sizes = [piece.size for piece in pieces]
    queries, keys, values = (torch.split(whole, sizes, 2) for whole in (query, key, value))
    alike: dict[tuple[int, int], list[int]] = {}
    for place, piece in enumerate(pieces):
        alike.setdefault((piece.size, 0 if piece.context is None else pieces[piece.context].size), []).append(place)
    found = [query[:, :, :0]] * len(pieces)
    for (_, before), places in alike.items():
        contexts = [context for place in places if (context := pieces[place].context) is not None]
        attended = _seen(
            _stacked(queries, places),
            torch.cat([_stacked(keys, contexts), _stacked(keys, places)], 2) if before else _stacked(keys, places),
            torch.cat([_stacked(values, contexts), _stacked(values, places)], 2)
            if before
            else _stacked(values, places),
            window,
            scaling,
        )
        for place, one in zip(places, torch.split(attended, 1), strict=True):
            found[place] = one
    return torch.cat(found, 2).transpose(1, 2), None


def _stacked(parts: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    return parts[places[0]] if len(places) == 1 else torch.cat([parts[place] for place in places])


def _seen(query: Tensor, key: Tensor, value: Tensor, window: int | None, scaling: float | None) -> Tensor:
    """(pieces, heads, queries, size): the queries are of the last tokens of those whose keys these are."""
    grouped = key.shape[1] != query.shape[1]
    size, every = query.shape[2], key.shape[2]
    if size == every and window is None:
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    found = []
    for start in range(0, size, QUERIES):
        stop = min(start + QUERIES, size)
        before = every - size + start  # tokens in front of the chunk
        first = 0 if window is None else max(0, before + 1 - window)
        last = every - size + stop
        whole = first == 0 and last == every  # a slice's backward pass fills a whole tensor
        found.append(
            scaled_dot_product_attention(
                query if size <= QUERIES else query[:, :, start:stop],
                key if whole else key[:, :, first:last],
                value if whole else value[:, :, first:last],
                attn_mask=_mask(stop - start, before - first, window, query.dtype, query.device),
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return found[0] if len(found) == 1 else torch.cat(found, 2)


def _mask(queries: int, before: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(queries, before + queries), added to scores: minus infinity where a token does not see another.

    What a token sees depends on the distance alone, so that every mask is a part of a wider one.
    """
    width = 1 << (before + QUERIES).bit_length()  # few widths, so that few masks are made
    left = width - QUERIES - before
    return _wide_mask(width, window, dtype, device)[:queries, left : left + before + queries]


@lru_cache(maxsize=16)
def _wide_mask(width: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(QUERIES, width): the last QUERIES of all tokens."""
    at = torch.arange(width - QUERIES, width, device=device)[:, None]
    other = torch.arange(width, device=device)[None]
    seen = other <= at if window is None else (other <= at) & (other > at - window)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))


@torch.no_grad()
def _alone(model: Any, row: Row) -> Tensor:
    """(predictions, size): what the model by itself gives for each response, in a pass of its own."""
    found = []
    for response in row.responses:
        ids = torch.tensor([[*row.prompt, *response]], device=model.device)
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        found.append(hidden[0, len(row.prompt) - 1 : -1])
    return torch.cat(found)


@torch.no_grad()
def _compare(model: Any, row: Row, expected: Tensor) -> None:
    """Raise PolicyError where rows end to end do not give what each response gives in a pass of its own.

    So it is with policies in which tokens meet elsewhere than in attention (convolutions, state spaces) or whose
    attention has more to it (sinks): their gradients would be wrong without a word.
    """
    turned = replace(row, responses=row.responses[::-1])
    laid = packed((row, turned), model.dtype, model.device)
    found = hidden_states(model, laid, model.get_input_embeddings()(laid.ids))[laid.sources]
    sizes = [len(response) for response in row.responses]
    expected = torch.cat([expected, *reversed(torch.split(expected, sizes))])
    slack = (1e-4 if model.dtype.itemsize >= 4 else 0.05) * float(expected.abs().max())
    if bool(torch.isfinite(expected).all()) and not torch.allclose(found, expected, rtol=0.0, atol=slack):
        raise PolicyError(
            f"{type(model).__name__} lets tokens meet elsewhere than in plain attention, which gradients do not know."
        )
