"""Rollouts as tensors: right-padded whole sequences, sorted by length, with one denominator for an update."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.policies.activation_checkpointing import chunked_logprobs
from unlearnbench.records import DRAWN, Rollout
from unlearnbench.training.options import DEFAULT, TrainerOptions


@dataclass(frozen=True)
class TokenBatch:
    """One row a rollout; column t of the (rows, tokens) tensors belongs to the prediction of token t + 1.

    Masks come from lengths, never from token values (LOOP 6); right padding needs no attention mask, because no
    real token attends to what follows it (LOOP 4).
    """

    input_ids: Tensor  # (rows, tokens + 1)
    lengths: Tensor  # (rows,): context and completion
    first: int  # the earliest column that any row predicts a completion token from
    mask: Tensor  # (rows, tokens): weight of the prediction in the loss, 0 in the context and the padding
    behaviour: Tensor  # (rows, tokens): NaN where unknown
    advantages: Tensor  # (rows, tokens)
    weights: Tensor  # (rows, tokens): mask over the update's denominator
    sources: tuple[str, ...]  # the source of each row's rollout
    comparable: Tensor  # (rows, 1): drawn by this version of the policy in the context of its loss

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def tokens(self) -> int:
        """Tokens in forward-backward, padding not counted."""
        return int(self.lengths.sum())

    def digest(self) -> str:
        """Tells this update from any other: a hash of tokens, weights and advantages."""
        content = hashlib.sha256()
        for part in (self.input_ids, self.weights, self.advantages, self.behaviour):
            content.update(part.cpu().numpy().tobytes())
        return content.hexdigest()

    def micro_batches(self, max_tokens: int) -> Iterator[TokenBatch]:
        """Slices of at most `max_tokens` tokens, padding included, cut to their own length."""
        start = 0
        while start < len(self):
            stop = start + 1
            while stop < len(self) and int(self.lengths[stop]) * (stop + 1 - start) <= max_tokens:
                stop += 1
            yield self._slice(start, stop)
            start = stop

    def without_weight(self) -> TokenBatch:
        """The same pass, which teaches nothing: for a process that would make one pass fewer than the others.

        The mask stays: a method may divide by its sum, and 0 times NaN is NaN.
        """
        return replace(self, weights=torch.zeros_like(self.weights), comparable=torch.zeros_like(self.comparable))

    def _slice(self, start: int, stop: int) -> TokenBatch:
        width = int(self.lengths[start:stop].max())
        used = self.mask[start:stop, : width - 1] > 0
        first = int(used.any(0).float().argmax()) if bool(used.any()) else 0
        return TokenBatch(
            self.input_ids[start:stop, :width],
            self.lengths[start:stop],
            first,
            mask=self.mask[start:stop, : width - 1],
            behaviour=self.behaviour[start:stop, : width - 1],
            advantages=self.advantages[start:stop, : width - 1],
            weights=self.weights[start:stop, : width - 1],
            sources=self.sources[start:stop],
            comparable=self.comparable[start:stop],
        )


def make_batch(
    rollouts: Sequence[Rollout],
    advantages: Sequence[NDArray[np.float64]],
    aggregation: Literal["token_mean", "sequence_mean", "constant"],
    device: torch.device,
    *,
    max_tokens: int = 1,
    version: int | None = None,
) -> TokenBatch:
    """Tensors of one optimiser update. `advantages[i]` has one value a token of rollout i.

    The denominator is fixed here, before any backward pass, so the gradient does not depend on how the update is cut
    into micro-batches (LOOP 7): all loss tokens of the update (`token_mean`), each rollout's tokens and then the
    number of rollouts (`sequence_mean`), or rollouts times `max_tokens` (`constant`; Liu et al. 2025, 2503.20783).
    `version` is that of the policy which is trained: what an older one drew is not compared with the sampler.
    """
    contexts = [r.prompt_ids if r.context_ids is None else r.context_ids for r in rollouts]
    total = [len(c) + len(r.token_ids) for c, r in zip(contexts, rollouts, strict=True)]
    order = sorted(range(len(rollouts)), key=lambda i: (total[i], i))
    shape = (len(rollouts), max(total) - 1)
    ids = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    mask = np.zeros(shape, dtype=np.float32)
    behaviour = np.zeros(shape, dtype=np.float32)
    spread = np.zeros(shape, dtype=np.float32)
    for row, i in enumerate(order):
        rollout, start = rollouts[i], len(contexts[i])
        ids[row, : total[i]] = np.concatenate([contexts[i], rollout.token_ids])
        span = slice(start - 1, total[i] - 1)
        mask[row, span] = 1.0 if rollout.mask is None else rollout.mask
        behaviour[row, span] = rollout.logprobs
        spread[row, span] = advantages[i]
    if aggregation == "token_mean":
        weights = mask / max(mask.sum(), 1e-9)
    elif aggregation == "sequence_mean":
        weights = mask / np.maximum(mask.sum(1, keepdims=True), 1e-9) / len(rollouts)
    else:
        weights = mask / (len(rollouts) * max_tokens)
    lengths = torch.tensor([total[i] for i in order])
    ordered = [rollouts[i] for i in order]
    alike = [
        r.context_ids is None and r.source in DRAWN and (version is None or r.policy_version == version)
        for r in ordered
    ]
    whole = TokenBatch(
        torch.from_numpy(ids).to(device),
        lengths,
        first=0,
        mask=torch.from_numpy(mask).to(device),
        behaviour=torch.from_numpy(behaviour).to(device),
        advantages=torch.from_numpy(spread).to(device),
        weights=torch.from_numpy(weights).to(device),
        sources=tuple(r.source for r in ordered),
        comparable=torch.tensor(alike, device=device)[:, None],
    )
    return whole._slice(0, len(whole))


def token_logprobs(
    model: Any,
    batch: TokenBatch,
    temperature: float,
    *,
    with_entropy: bool = False,
    options: TrainerOptions = DEFAULT,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities (rows, tokens) of each next token at a temperature, in float32, zero in shared context.

    Logits are computed only from the first column that any row's loss needs; some at a time if `options` say so.
    """
    width = batch.input_ids.shape[1]
    kept = width - batch.first
    with _precision(batch, options):
        if options.logprob_chunk is not None:
            found, apart = chunked_logprobs(
                model, batch.input_ids, kept, temperature, options.logprob_chunk, with_entropy=with_entropy
            )
            spread = (batch.first, 0)
            padded = torch.nn.functional.pad(found, spread)
            return padded, None if apart is None else torch.nn.functional.pad(apart, spread)
        out = model(input_ids=batch.input_ids, use_cache=False, logits_to_keep=kept)
    logits = out.logits[:, :-1].float() / temperature
    scores = torch.log_softmax(logits, dim=-1)
    targets = batch.input_ids[:, batch.first + 1 :, None]
    logprobs = torch.nn.functional.pad(scores.gather(-1, targets)[..., 0], (batch.first, 0))
    if not with_entropy:
        return logprobs, None
    entropy = -(scores.exp() * scores).sum(-1)
    return logprobs, torch.nn.functional.pad(entropy, (batch.first, 0))


def _precision(batch: TokenBatch, options: TrainerOptions) -> AbstractContextManager[Any]:
    """In which matrix products of a pass are taken (LOOP 11: the weights stay float32)."""
    if options.precision == "float32":
        return nullcontext()
    return torch.autocast(batch.input_ids.device.type, torch.bfloat16)


@torch.no_grad()
def fixed_logprobs(model: Any, batch: TokenBatch, temperature: float, *, options: TrainerOptions = DEFAULT) -> Tensor:
    """As `token_logprobs`, of a policy that is not trained: rows of the same tokens are computed once.

    Rollouts of an easy prompt are often the same. The width stays, so a row's values are those of the whole batch.
    """
    _, which = torch.unique(batch.input_ids, dim=0, return_inverse=True)
    rows = which.new_zeros(int(which.max()) + 1)
    rows[which] = torch.arange(len(which), device=which.device)
    logprobs, _ = token_logprobs(model, replace(batch, input_ids=batch.input_ids[rows]), temperature, options=options)
    return logprobs[which]
