"""Sampling with transformers: our own decode loop around the model's forward pass.

Quick on small policies because a decode step costs about the same for one row and for hundreds: all groups of a
round are decoded together, a group's prompt is computed once, keys and values live in preallocated buffers, and
finished rows leave the batch. Works for any causal language model of transformers with full attention layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from unlearnbench.draws import lanes, uniforms
from unlearnbench.policy import Policy
from unlearnbench.samplers import Completions, Request

CACHE_CHUNK = 256  # tokens that the cache grows by, so that a high limit does not claim memory nobody uses
KEEP_ROWS = 0.75  # rows are dropped once fewer than this share is still being written


class _PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in a buffer that is written in place instead of concatenated every token."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.used = 0
            self.buffers = [self._room(key_states, 0), self._room(value_states, 0)]
        end = self.used + key_states.shape[2]
        if end > self.buffers[0].shape[2]:
            self.buffers = [self._grown(buffer, end) for buffer in self.buffers]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.used : end] = states
        self.used = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def _room(self, like: Tensor, tokens: int) -> Tensor:
        rows, heads, _, width = like.shape
        return like.new_empty(rows, heads, tokens, width)

    def _grown(self, buffer: Tensor, tokens: int) -> Tensor:
        grown = self._room(buffer, tokens + CACHE_CHUNK)
        grown[:, :, : self.used] = buffer[:, :, : self.used]
        return grown

    def select(self, rows: Tensor, room: int) -> None:
        """Keep these rows (repeats allowed), with room for at least `room` more tokens."""
        total = self.used + min(room, CACHE_CHUNK)
        chosen = []
        for buffer in self.buffers:
            new = buffer.new_empty(len(rows), buffer.shape[1], total, buffer.shape[3])
            new[:, :, : self.used] = buffer[:, :, : self.used].index_select(0, rows)
            chosen.append(new)
        self.buffers = chosen
        self.keys, self.values = (buffer[:, :, : self.used] for buffer in self.buffers)


@dataclass
class _Rows:
    """The rows that are still being written: where their tokens go, and their lanes of randomness."""

    place: NDArray[np.int64]
    lane: NDArray[np.uint64]


class TransformersSampler:
    """Draws completions from a policy in this process. `max_rows` bounds the rows decoded at once."""

    def __init__(self, policy: Policy, max_rows: int = 1024) -> None:
        self.policy = policy
        self.max_rows = max_rows
        self._stops = torch.tensor(policy.stop_ids, device=policy.device)

    def weights_changed(self) -> None:
        """Nothing to drop: no cache outlives a call."""

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], *, temperature: float, top_p: float, max_tokens: int
    ) -> list[Completions]:
        """Completions of every request, in order. The policy is in eval mode meanwhile and restored after."""
        was_training = self.policy.model.training
        self.policy.model.eval()
        try:
            parts: dict[int, list[Completions]] = {}
            for batch in self._batches(requests):
                pieces = self._decode([request for _, request in batch], temperature, top_p, max_tokens)
                for (number, _), piece in zip(batch, pieces, strict=True):
                    parts.setdefault(number, []).append(piece)
        finally:
            self.policy.model.train(was_training)
        return [_joined(parts[number]) for number in range(len(requests))]

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Request]]]:
        """Requests by prompt length (so that padding is rare), at most `max_rows` rows a batch."""
        order = sorted(range(len(requests)), key=lambda number: (len(requests[number].prompt_ids), number))
        batch: list[tuple[int, Request]] = []
        rows = 0
        for number in order:
            request = requests[number]
            first, left = request.first, request.n
            while left:
                if rows == self.max_rows:
                    yield batch
                    batch, rows = [], 0
                take = min(left, self.max_rows - rows)
                batch.append((number, Request(request.prompt_ids, take, request.key, first)))
                first, left, rows = first + take, left - take, rows + take
        if batch:
            yield batch

    def _decode(
        self, requests: Sequence[Request], temperature: float, top_p: float, max_tokens: int
    ) -> list[Completions]:
        device = self.policy.device
        counts = [request.n for request in requests]
        total = sum(counts)
        owner = torch.repeat_interleave(torch.arange(len(requests)), torch.tensor(counts)).to(device)
        rows = _Rows(
            np.arange(total),
            np.concatenate([lanes(r.key, r.first + np.arange(r.n, dtype=np.int64)) for r in requests]),
        )
        tokens = np.full((total, max_tokens), -1, dtype=np.int32)
        logprobs = np.full((total, max_tokens), np.nan, dtype=np.float32)
        stopped = np.zeros(total, dtype=bool)

        logits, cache, padding = self._prefill([request.prompt_ids for request in requests])
        logits = logits.index_select(0, owner)
        for layer in cache.layers:
            layer.select(owner, max_tokens)
        padding = padding.index_select(0, owner) if padding is not None else None
        length = cache.get_seq_length()

        for position in range(max_tokens):
            drawn, chosen = _draw(logits, uniforms(rows.lane, position), temperature, top_p)
            done = torch.isin(drawn, self._stops)
            tokens[rows.place, position] = drawn.cpu().numpy()
            logprobs[rows.place, position] = chosen.cpu().numpy()
            finished = done.cpu().numpy()
            stopped[rows.place[finished]] = True
            writing = int((~finished).sum())
            if writing == 0 or position == max_tokens - 1:
                break
            # A finished row stays until enough have finished to pay for the copy; what it goes on to write is cut
            # off afterwards by its length.
            alive = ~stopped[rows.place]
            if alive.sum() == 0:
                break
            if alive.sum() < KEEP_ROWS * len(alive):
                keep = torch.from_numpy(np.flatnonzero(alive)).to(device)
                for layer in cache.layers:
                    layer.select(keep, max_tokens - position)
                drawn = drawn.index_select(0, keep)
                padding = padding.index_select(0, keep) if padding is not None else None
                rows = _Rows(rows.place[alive], rows.lane[alive])
            logits = self._step(drawn, cache, padding, length + position)
        return _split(tokens, logprobs, stopped, self.policy.stop_ids, counts)

    def _prefill(self, prompts: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Any, Tensor | None]:
        """Last logits (G, V), cache, and the left padding of each row (None where all prompts are equally long)."""
        device = self.policy.device
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        padding = None
        if min(lengths) < width:
            padding = torch.tensor([width - length for length in lengths], device=device)
        cache = DynamicCache(config=self.policy.model.config)
        cache.layers = [_PreallocatedLayer() for _ in cache.layers]
        logits = self._forward(ids.to(device), cache, padding, torch.arange(width, device=device))
        return logits, cache, padding

    def _step(self, drawn: Tensor, cache: Any, padding: Tensor | None, position: int) -> Tensor:
        return self._forward(drawn[:, None], cache, padding, torch.tensor([position], device=drawn.device))

    def _forward(self, ids: Tensor, cache: Any, padding: Tensor | None, positions: Tensor) -> Tensor:
        """Logits (rows, V) after the last of `ids`, whose columns stand at `positions` of the padded sequence."""
        mask = None
        position_ids = positions[None].expand(len(ids), -1)
        if padding is not None:
            columns = torch.arange(int(positions[-1]) + 1, device=ids.device)
            mask = (columns[None] >= padding[:, None]).long()
            position_ids = (position_ids - padding[:, None]).clamp(min=0)
        out = self.policy.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits


def _draw(logits: Tensor, uniform: NDArray[np.float64], temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Tokens (rows,) by inversion of the distribution function, and their log-softmax(logits / temperature).

    With top_p < 1 the draw is from the smallest set of most likely tokens whose probability reaches top_p
    (Holtzman et al. 2020, "The curious case of neural text degeneration").
    """
    scaled = torch.log_softmax(logits / temperature, dim=-1)
    probabilities = scaled.double().exp()
    order = None
    if top_p < 1:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    cumulative = probabilities.cumsum(-1)
    target = torch.from_numpy(uniform).to(logits.device)[:, None] * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, target, right=True).clamp(max=logits.shape[-1] - 1)
    drawn = index if order is None else order.gather(-1, index)
    return drawn[:, 0], scaled.gather(-1, drawn)[:, 0]


def _split(
    tokens: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    stopped: NDArray[np.bool_],
    stop_ids: Sequence[int],
    counts: Sequence[int],
) -> list[Completions]:
    """Cut each row after its end token and hand the rows back to their requests."""
    ends = np.isin(tokens, stop_ids)
    written = (tokens >= 0).sum(1)
    lengths = np.where(stopped, ends.argmax(1) + 1, written).astype(np.int64)
    beyond = np.arange(tokens.shape[1])[None] >= lengths[:, None]
    tokens[beyond] = -1
    logprobs[beyond] = np.nan
    width = int(lengths.max(initial=1))
    bounds = np.concatenate([[0], np.cumsum(counts)])
    return [
        Completions(tokens[a:b, :width], logprobs[a:b, :width], lengths[a:b], stopped[a:b])
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def _joined(parts: Sequence[Completions]) -> Completions:
    """The pieces of one request that was decoded in several batches."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.tokens.shape[1] for part in parts)

    def widened(array: NDArray[Any], fill: float) -> NDArray[Any]:
        return np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill)

    return Completions(
        np.concatenate([widened(part.tokens, -1) for part in parts]),
        np.concatenate([widened(part.logprobs, np.nan) for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.stopped for part in parts]),
    )
