"""Sampling with transformers: our own decode loop around the model's forward pass.

Rollouts of one prompt that have drawn the same tokens so far share one row of the model's batch: the prompt is
computed once per group, and a prefix once however many rollouts begin with it. They part where their draws part, and
a row whose rollouts have all ended leaves the batch. This changes no distribution: the next token's depends on the
prefix alone, and every rollout draws from it with its own random numbers. Keys and values live in preallocated
buffers. Works for any causal language model of transformers with full attention layers.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from unlearnbench.errors import RunError
from unlearnbench.policies.fsdp import is_sharded
from unlearnbench.policies.policy import Policy
from unlearnbench.policies.reordered_weights import reordered_weights
from unlearnbench.policies.samplers.draw import draw
from unlearnbench.policies.samplers.sampler import Completions, Request
from unlearnbench.rng import lanes, uniforms

CACHE_CHUNK = 256  # tokens that the cache grows by, so that a high limit does not claim memory nobody uses
CACHE_BYTES = (1 << 29, 1 << 32)  # least and most that the keys and values of one batch may take
MOST_ROWS = 8192


class _PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, in buffers with room for `rows` prefixes of `tokens`, written in place.

    A prefix keeps its row of the buffers while its rollouts draw the same tokens; only what parts is copied.
    """

    def __init__(self, rows: int, tokens: int) -> None:
        super().__init__()
        self.room = rows, tokens
        self.used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows, end = len(key_states), self.used + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [self._buffer(states) for states in (key_states, value_states)]
        if end > self.room[1]:
            self.room = self.room[0], end + CACHE_CHUNK
            self.buffers = [self._grown(buffer, rows) for buffer in self.buffers]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, self.used : end] = states
        self.used = end
        self.keys, self.values = (buffer[:rows, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def _buffer(self, like: Tensor) -> Tensor:
        rows, tokens = self.room
        return like.new_empty(rows, like.shape[1], tokens, like.shape[3])

    def _grown(self, buffer: Tensor, rows: int) -> Tensor:
        grown = self._buffer(buffer)
        grown[:rows, :, : self.used] = buffer[:rows, :, : self.used]
        return grown

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        """Copy rows to other rows, none of which is copied itself."""
        for buffer in self.buffers:
            held = buffer[:, :, : self.used]
            held.index_copy_(0, targets, held.index_select(0, sources))


class TransformersSampler:
    """Draws completions from a policy in this process. `max_rows` bounds the rollouts decoded at once.

    With a `dtype` other than the policy's, a copy in that precision draws: in bfloat16 about twice as fast where the
    processor has instructions for it. The copy follows the policy whenever `weights_changed` is called.
    """

    exact = True

    def __init__(self, policy: Policy, max_rows: int | None = None, dtype: torch.dtype | None = None) -> None:
        self.policy = policy
        self.max_rows = max_rows
        self._stops = np.array(policy.stop_ids)
        self._model = policy.model
        if dtype is not None and dtype != policy.model.dtype:
            if is_sharded(policy.model):
                raise RunError("A policy that processes share is sampled in its own precision; drop --engine dtype.")
            self.exact = False
            self._model = copy.deepcopy(policy.model).to(dtype)

    def weights_changed(self) -> None:
        """Bring a copy up to date. Nothing else outlives a call."""
        if self._model is not self.policy.model:
            self._model.load_state_dict(self.policy.model.state_dict())

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], *, temperature: float, top_p: float, max_tokens: int
    ) -> list[Completions]:
        """Completions of every request, in order. The policy is in eval mode meanwhile and restored after."""
        was_training = self._model.training
        self._model.eval()
        try:
            parts: dict[int, list[Completions]] = {}
            rows = self.max_rows or self._affordable(requests, max_tokens)
            with reordered_weights(self._model):
                for batch in _batches(requests, rows):
                    pieces = self._decode([request for _, request in batch], temperature, top_p, max_tokens)
                    for (number, _), piece in zip(batch, pieces, strict=True):
                        parts.setdefault(number, []).append(piece)
        finally:
            self._model.train(was_training)
        return [_joined(parts[number]) for number in range(len(requests))]

    def _affordable(self, requests: Sequence[Request], max_tokens: int) -> int:
        """Rollouts whose keys and values fit in the memory that they may take, if no two of them share anything."""
        config = self._model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        longest = max((len(request.prompt_ids) for request in requests), default=0) + max_tokens
        size = torch.finfo(self._model.dtype).bits // 8
        rollout = 2 * config.num_hidden_layers * heads * width * size * longest
        return int(max(8, min(MOST_ROWS, _cache_bytes(self.policy.device) // rollout)))

    def _decode(
        self, requests: Sequence[Request], temperature: float, top_p: float, max_tokens: int
    ) -> list[Completions]:
        counts = [request.n for request in requests]
        total = sum(counts)
        tokens = np.full((total, max_tokens), -1, dtype=np.int32)
        logprobs = np.full((total, max_tokens), np.nan, dtype=np.float32)
        stopped = np.zeros(total, dtype=bool)

        # Rollouts that are still being written, their random numbers, and the row of the batch that holds the
        # prefix each has drawn so far: at first, its prompt.
        writing = np.arange(total)
        lane = np.concatenate([lanes(r.key, r.first + np.arange(r.n, dtype=np.int64)) for r in requests])
        row = np.repeat(np.arange(len(requests)), counts)
        logits, cache, padding = self._prefill([request.prompt_ids for request in requests], total, max_tokens)
        length = cache.get_seq_length()

        for position in range(max_tokens):
            drawn, chosen = draw(logits, row, uniforms(lane, position), temperature, top_p)
            tokens[writing, position] = drawn
            logprobs[writing, position] = chosen
            ended = np.isin(drawn, self._stops)
            stopped[writing[ended]] = True
            if ended.all() or position == max_tokens - 1:
                break
            row, order, step, sources, targets = _parted(row[~ended], drawn[~ended])
            writing, lane = writing[~ended][order], lane[~ended][order]
            if len(targets):
                parted = [torch.from_numpy(rows).to(logits.device) for rows in (sources, targets)]
                for layer in cache.layers:
                    layer.copy(*parted)
                if padding is not None:
                    padding[parted[1]] = padding[parted[0]]
            where = torch.tensor([length + position], device=logits.device)
            here = None if padding is None else padding[: len(step)]
            logits = self._forward(torch.from_numpy(step)[:, None].to(logits.device), cache, here, where)
        return _split(tokens, logprobs, stopped, counts)

    def _prefill(
        self, prompts: Sequence[NDArray[np.int32]], rows: int, max_tokens: int
    ) -> tuple[Tensor, Any, Tensor | None]:
        """Last logits (G, V), cache with room for `rows`, left padding of each (None if all prompts are as long)."""
        device = self.policy.device
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        padding = None
        if min(lengths) < width:
            padding = torch.zeros(rows, dtype=torch.long, device=device)
            padding[: len(prompts)] = torch.tensor([width - length for length in lengths], device=device)
        cache = DynamicCache(config=self._model.config)
        cache.layers = [_PreallocatedLayer(rows, width + min(max_tokens, CACHE_CHUNK)) for _ in cache.layers]
        here = None if padding is None else padding[: len(prompts)]
        logits = self._forward(ids.to(device), cache, here, torch.arange(width, device=device))
        return logits, cache, padding

    def _forward(self, ids: Tensor, cache: Any, padding: Tensor | None, positions: Tensor) -> Tensor:
        """Logits (rows, V) after the last of `ids`, whose columns are at `positions` of the padded sequence."""
        mask = None
        position_ids = positions[None].expand(len(ids), -1)
        if padding is not None:
            columns = torch.arange(int(positions[-1]) + 1, device=ids.device)
            mask = (columns[None] >= padding[:, None]).long()
            position_ids = (position_ids - padding[:, None]).clamp(min=0)
        out = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits


def _parted(row: NDArray[np.int64], drawn: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Rows of the batch after rollouts in rows `row` (n,) drew tokens `drawn` (n,): one a different prefix, 0 to R - 1.

    The first prefix that goes on from a row stays there where that is below R; the others take the rows left over.
    Returns, with the rollouts in order of their new rows, these rows (n,), that order (n,), each row's token (R,), and
    of the prefixes that moved the old rows and the new ones. No row is both.
    """
    vocabulary = int(drawn.max()) + 1
    prefixes, prefix = np.unique(row * vocabulary + drawn, return_inverse=True)
    parents, tokens = np.divmod(prefixes, vocabulary)
    stays = (np.diff(parents, prepend=-1) > 0) & (parents < len(prefixes))
    free = np.ones(len(prefixes), dtype=bool)
    free[parents[stays]] = False
    places = parents.copy()
    places[~stays] = np.flatnonzero(free)
    step = np.empty_like(tokens)
    step[places] = tokens
    row = places[prefix]
    order = np.argsort(row, kind="stable")
    return row[order], order, step, parents[~stays], places[~stays]


def _cache_bytes(device: torch.device) -> int:
    """What the keys and values of one batch may take: a third of the memory there is for each processor, or GPU.

    It depends on the machine alone and not on what is free, so that batches, and with them rounding, stay the same
    from run to run.
    """
    if device.type == "cuda":
        total, sharers = torch.cuda.get_device_properties(device).total_memory, 1
    else:
        total, sharers = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), os.cpu_count() or 1
    return int(min(max(total // (3 * sharers), CACHE_BYTES[0]), CACHE_BYTES[1]))


def _batches(requests: Sequence[Request], max_rows: int) -> Iterator[list[tuple[int, Request]]]:
    """Requests by prompt length (so that padding is rare), at most `max_rows` rollouts per batch."""
    order = sorted(range(len(requests)), key=lambda number: (len(requests[number].prompt_ids), number))
    batch: list[tuple[int, Request]] = []
    rows = 0
    for number in order:
        request = requests[number]
        first, left = request.first, request.n
        while left:
            if rows == max_rows:
                yield batch
                batch, rows = [], 0
            take = min(left, max_rows - rows)
            batch.append((number, Request(request.prompt_ids, take, request.key, first)))
            first, left, rows = first + take, left - take, rows + take
    if batch:
        yield batch


def _split(
    tokens: NDArray[np.int32], logprobs: NDArray[np.float32], stopped: NDArray[np.bool_], counts: Sequence[int]
) -> list[Completions]:
    """Hand the rollouts back to their requests, cut to the longest."""
    lengths = (tokens >= 0).sum(1).astype(np.int64)
    width = int(lengths.max(initial=1))
    bounds = np.concatenate([[0], np.cumsum(counts)])
    return [
        Completions(tokens[a:b, :width], logprobs[a:b, :width], lengths[a:b], stopped[a:b]) for a, b in pairwise(bounds)
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
