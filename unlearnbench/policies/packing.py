"""Rollouts laid end to end for a pass: each prompt once, then its responses, without padding.

A row is a prompt with different responses to it, all of one part of an item; a part whose rollouts are too long for one
pass has several. A pass holds many rows. Everything but attention acts on single tokens; what a token sees is given by
pieces: a prompt, or a response, whose tokens see those before them in the piece and all tokens of its prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ItemRollouts:
    """What one item's gradient is made of: responses in order, each with its weight (1 for a correct rollout)."""

    item_id: str
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and different responses to it, with each response's weight in the loss of one part of an item."""

    item: int
    part: int
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring tokens that see one another up to themselves, and all tokens of their context, another piece."""

    size: int
    context: int | None


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows end to end."""

    ids: Tensor  # (1, tokens)
    positions: Tensor  # (1, tokens)
    pieces: tuple[Piece, ...]
    spans: tuple[slice, ...]  # the tokens of each row
    sources: Tensor  # (predictions,): the token that predicts
    targets: Tensor  # (predictions,)
    weights: Tensor  # (predictions,): in the row's loss
    responses: Tensor  # (predictions,): which response, counted over all rows


def rows_of(place: int, item: ItemRollouts, parts: int, max_tokens: int) -> Iterator[Row]:
    """The rows of an item, of limited length in tokens, or one response with its prompt if that is longer.

    Raises ValueError where the rollouts make no equal parts.
    """
    given = item.weights or (1.0,) * len(item.responses)
    if not item.responses or len(item.responses) % parts:
        raise ValueError(f"item {item.item_id!r} has {len(item.responses)} rollouts, which make no {parts} equal parts")
    for part in range(parts):
        share: dict[tuple[int, ...], float] = {}  # equal responses are computed once
        responses = item.responses[part::parts]
        for response, weight in zip(responses, given[part::parts], strict=True):
            share[response] = share.get(response, 0.0) + weight / len(responses)
        for some in _fitting(tuple(share), max_tokens - len(item.prompt)):
            yield Row(place, part, item.prompt, some, tuple(share[response] for response in some))


def _fitting(responses: Sequence[tuple[int, ...]], room: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Neighbouring responses up to a total of tokens, or one response."""
    some: list[tuple[int, ...]] = []
    for response in responses:
        if some and sum(map(len, some)) + len(response) > room:
            yield tuple(some)
            some = []
        some.append(response)
    yield tuple(some)


def batches(rows: Sequence[Row], max_tokens: int) -> Iterator[Sequence[Row]]:
    """Rows in passes up to a total of tokens; one row per pass if that is 0."""
    start = held = 0
    for stop, row in enumerate(rows):
        if stop > start and held + row.length > max_tokens:
            yield rows[start:stop]
            start, held = stop, 0
        held += row.length
    yield rows[start:]


def packed(rows: Sequence[Row], dtype: torch.dtype, device: torch.device) -> Packed:
    """Rows laid end to end."""
    ids: list[int] = []
    positions: list[int] = []
    pieces: list[Piece] = []
    spans: list[slice] = []
    sources: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    responses: list[int] = []
    count = 0
    for row in rows:
        first, end = len(ids), len(ids) + len(row.prompt)
        prompt = len(pieces)
        pieces.append(Piece(len(row.prompt), None))
        ids += row.prompt
        positions += range(len(row.prompt))
        for response, weight in zip(row.responses, row.weights, strict=True):
            start, read = len(ids), len(response) - 1  # nothing is predicted from a response's last token
            if read:
                pieces.append(Piece(read, prompt))
            ids += response[:-1]
            positions += range(len(row.prompt), len(row.prompt) + read)
            sources += [end - 1, *range(start, start + read)]
            targets += response
            weights += [weight / len(response)] * len(response)
            responses += [count] * len(response)
            count += 1
        spans.append(slice(first, len(ids)))
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        tuple(pieces),
        tuple(spans),
        torch.tensor(sources, device=device),
        torch.tensor(targets, device=device),
        torch.tensor(weights, dtype=dtype, device=device),
        torch.tensor(responses, device=device),
    )
