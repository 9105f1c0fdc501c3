"""Attention of rollouts laid end to end: each response with its prompt and itself, whatever the lengths.

Pieces of one length with contexts of one length are attended to in one call. Of about one length, too, padded: for
short ones a call takes longer than the scores that padding adds (`_plan`).

Scores are never held whole (torch's kernels see to that), and masks are bounded: queries come in chunks, a chunk sees
the keys up to its last token, and all chunks of all pieces look through the same mask, shifted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention

from unlearnbench.errors import PolicyError
from unlearnbench.policies.packing import Packed, Piece, Row, packed

NAME = "unlearnbench_rows"
QUERIES = 256
"""Queries of a piece that are attended to at once; more are no quicker."""
MASK_BYTES = 20 * QUERIES
"""Of masks, for each token of the longest response and its prompt: the widest, narrower ones, what they are made of."""

CALL = 200_000
"""What a call of attention takes, forward and backward, in products of a query's number with a key's."""

_plain: WeakSet[Any] = WeakSet()
"""Models that were found to let tokens meet in attention alone; it takes three passes of a row to find out."""
_pieces: ContextVar[_Pieces] = ContextVar("pieces")


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
    before = _pieces.set(_Pieces(pieces))
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
    """Attention of a pass, call by call: (1, heads, tokens, size) each, to (1, tokens, heads, size)."""
    heads, width = query.shape[1], query.shape[3]
    plan = _pieces.get().plan(heads * width, rest.get("sliding_window"), query.dtype, query.device)
    # Taken at once: the backward pass of many single pieces would fill as many whole tensors.
    queries = torch.split(_taken(query, plan.queries), [call.pieces * call.size for call in plan.calls])
    keys, values = (
        torch.split(_taken(whole, plan.keys), [call.pieces * call.every for call in plan.calls])
        for whole in (key, value)
    )
    found = []
    for call, own, seen, read in zip(plan.calls, queries, keys, values, strict=True):
        attended = _seen(
            own.view(call.pieces, call.size, -1, width).transpose(1, 2),
            seen.view(call.pieces, call.every, -1, width).transpose(1, 2),
            read.view(call.pieces, call.every, -1, width).transpose(1, 2),
            call.mask,
            rest.get("sliding_window"),
            scaling,
        )
        found.append(attended.transpose(1, 2).reshape(-1, heads * width))
    return embedding(plan.places, torch.cat(found)).view(1, -1, heads, width), None


def _taken(whole: Tensor, tokens: Tensor) -> Tensor:
    """(tokens, heads * size) of (1, heads, tokens, size). As an embedding it has a quick backward pass."""
    return embedding(tokens, whole[0].transpose(0, 1).flatten(1))


@dataclass(frozen=True)
class _Call:
    """One call of attention: `pieces` of at most `size` tokens, each seeing at most `every` with its context."""

    pieces: int
    size: int
    every: int
    mask: Tensor | None  # (pieces, 1, size, every), added to scores; None where all are as long


@dataclass(frozen=True)
class _Plan:
    """The calls of a layer, and which tokens of the pass their queries and keys are, one call after the other."""

    calls: list[_Call]
    queries: Tensor
    keys: Tensor
    places: Tensor  # (tokens,): where among the queries each token of the pass is


class _Pieces:
    """The pieces of a pass; what a layer's attention needs to know of them is found once for all layers."""

    def __init__(self, pieces: tuple[Piece, ...]) -> None:
        self.pieces = pieces
        self.plans: dict[tuple[Any, ...], _Plan] = {}

    def plan(self, width: int, window: int | None, dtype: torch.dtype, device: torch.device) -> _Plan:
        asked = (width, window, dtype, device)
        if asked not in self.plans:
            self.plans[asked] = _plan(self.pieces, *asked)
        return self.plans[asked]


def _plan(pieces: Sequence[Piece], width: int, window: int | None, dtype: torch.dtype, device: torch.device) -> _Plan:
    """Neighbours in length share a call where the scores that padding adds cost less than the calls that it saves."""
    starts = np.cumsum([0, *(piece.size for piece in pieces)])
    sizes = np.array([piece.size for piece in pieces])
    before = np.array([0 if piece.context is None else pieces[piece.context].size for piece in pieces])
    contexts = np.array([0 if piece.context is None else starts[piece.context] for piece in pieces])
    calls, queries, keys = [], [], []
    places = np.empty(starts[-1], dtype=np.int64)
    taken = 0
    for some in _sharing(sizes, before, width):
        size, every = int(sizes[some].max()), int((before + sizes)[some].max())
        own, seen = np.arange(size), np.arange(every)[None]
        last = sizes[some, None] - 1
        front = before[some, None]
        queries.append(starts[some, None] + np.minimum(own, last))
        keys.append(
            np.where(seen < front, contexts[some, None] + seen, starts[some, None] + np.clip(seen - front, 0, last))
        )
        for number, piece in enumerate(some):
            begin = taken + number * size
            places[starts[piece] : starts[piece + 1]] = np.arange(begin, begin + sizes[piece])
        taken += len(some) * size
        alike = (sizes[some] == size).all() and (front == every - size).all()
        calls.append(
            _Call(len(some), size, every, None if alike else _padded_mask(size, every, front, window, dtype, device))
        )

    def tensor(found: list[NDArray[np.int64]]) -> Tensor:
        return torch.from_numpy(np.concatenate([one.ravel() for one in found])).to(device)

    return _Plan(calls, tensor(queries), tensor(keys), tensor([places]))


def _sharing(sizes: NDArray[np.int64], before: NDArray[np.int64], width: int) -> Iterator[NDArray[np.int64]]:
    """Which pieces share a call."""
    order = np.lexsort((before, sizes))
    kinds = np.flatnonzero(np.diff(sizes[order], prepend=-1) | np.diff(before[order], prepend=-1))
    begin, least, widest, saved = 0, 0, 0, -1
    for start, stop in pairwise([*kinds.tolist(), len(order)]):
        size, front = int(sizes[order[start]]), int(before[order[start]])
        own = (stop - start) * size * (front + size)
        padded = (stop - begin) * size * max(widest, front + size)
        if (padded - least - own) * width > CALL * (saved + 1):
            yield order[begin:start]
            begin, least, widest, saved = start, 0, 0, -1
        least, widest, saved = least + own, max(widest, front + size), saved + 1
    yield order[begin:]


def _padded_mask(
    size: int, every: int, before: NDArray[np.int64], window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(pieces, 1, size, every), added to scores: minus infinity where a token does not see another."""
    at = (before + np.arange(size))[:, None, :, None]
    other = np.arange(every)
    seen = other <= at if window is None else (other <= at) & (other > at - window)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(
        torch.from_numpy(~seen).to(device), float("-inf")
    )


def _seen(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, window: int | None, scaling: float | None
) -> Tensor:
    """(pieces, heads, queries, size): without mask the queries are of the last tokens of those whose keys these are."""
    grouped = key.shape[1] != query.shape[1]
    size, every = query.shape[2], key.shape[2]
    if mask is not None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=grouped)
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
