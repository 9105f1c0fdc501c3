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

from unlearnbench.policies.activation_checkpointing import Columns, chunked_columns
from unlearnbench.policies.layout import Layout, end_to_end, padded
from unlearnbench.records import DRAWN, Rollout
from unlearnbench.training.options import DEFAULT, TrainerOptions


@dataclass(frozen=True)
class TeacherInputs:
    """The rows of a batch as a teacher reads them: the same completions in other contexts, right-padded."""

    ids: Tensor  # (rows, their longest)
    lengths: Tensor  # (rows,): context and completion; 0 for a row that has no teacher
    shift: Tensor  # (rows,): how many tokens the teacher's context has more than the row's own

    def rows(self, start: int, stop: int) -> TeacherInputs:
        lengths = self.lengths[start:stop]
        return TeacherInputs(self.ids[start:stop, : int(lengths.max())], lengths, self.shift[start:stop])


@dataclass(frozen=True)
class TokenBatch:
    """One row per rollout; column t of the (rows, tokens) tensors belongs to the prediction of token t + 1.

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
    item_ids: tuple[str, ...] = ()  # the item of each row's rollout
    teacher: TeacherInputs | None = None  # where some rollout of the update has a teacher's context
    packed: bool = False  # whether a pass reads its rows end to end, shared contexts once

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def tokens(self) -> int:
        """Tokens in forward-backward, padding not counted."""
        return int(self.lengths.sum())

    def digest(self) -> str:
        """Identifies this update: a hash of tokens, weights and advantages."""
        content = hashlib.sha256()
        taught = () if self.teacher is None else (self.teacher.ids, self.teacher.lengths)
        for part in (self.input_ids, self.weights, self.advantages, self.behaviour, *taught):
            content.update(part.cpu().numpy().tobytes())
        return content.hexdigest()

    def micro_batches(self, max_tokens: int) -> Iterator[TokenBatch]:
        """Slices of at most `max_tokens` tokens, padding included, cut to their own length.

        Where a teacher's sequences are longer than the rows' own, it is theirs that are at most so many.
        """
        lengths = self.lengths.tolist()
        if self.teacher is not None:
            lengths = [max(own, taught) for own, taught in zip(lengths, self.teacher.lengths.tolist(), strict=True)]
        start = 0
        while start < len(self):
            stop, longest = start + 1, lengths[start]
            while stop < len(self) and max(longest, lengths[stop]) * (stop + 1 - start) <= max_tokens:
                longest = max(longest, lengths[stop])
                stop += 1
            yield self._slice(start, stop)
            start = stop

    def layout(self) -> Layout:
        """How a pass reads the rows; places count over the columns from `first` on."""
        if self.packed:
            return end_to_end(self.input_ids, self.lengths, self.mask, self.first)
        return padded(self.input_ids, self.input_ids.shape[1] - self.first)

    def spread(self, column: Tensor, layout: Layout) -> Tensor:
        """A figure of each prediction of a layout, put where it belongs: (rows, tokens)."""
        rows, width = len(self), self.input_ids.shape[1] - 1 - self.first
        if self.packed:
            column = column.new_zeros(rows * width).index_copy(0, layout.places, column)
        return torch.nn.functional.pad(column.view(rows, width), (self.first, 0))

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
            item_ids=self.item_ids[start:stop],
            teacher=None if self.teacher is None else self.teacher.rows(start, stop),
            packed=self.packed,
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
    """Tensors of one optimiser update. `advantages[i]` has one value per token of rollout i.

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
        item_ids=tuple(r.item_id for r in ordered),
        teacher=_teacher_inputs(ordered, [len(contexts[i]) for i in order], device),
    )
    return whole._slice(0, len(whole))


def grouped(parts: Sequence[TokenBatch], max_tokens: int) -> Iterator[list[TokenBatch]]:
    """Neighbouring micro-batches that are together no larger than one may be: of at most `max_tokens`, or one."""
    group: list[TokenBatch] = []
    for part in parts:
        longest = max(one.input_ids.shape[1] for one in (*group, part))
        if group and longest * sum(len(one) for one in (*group, part)) > max_tokens:
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def joined(parts: Sequence[TokenBatch]) -> TokenBatch:
    """The rows of several micro-batches, one below the other, padded to the longest. Teachers are left out."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.input_ids.shape[1] for part in parts)

    def below(columns: Sequence[Tensor], width: int) -> Tensor:
        return torch.cat([torch.nn.functional.pad(one, (0, width - one.shape[1])) for one in columns])

    return TokenBatch(
        below([part.input_ids for part in parts], width),
        torch.cat([part.lengths for part in parts]),
        min(part.first for part in parts),
        mask=below([part.mask for part in parts], width - 1),
        behaviour=below([part.behaviour for part in parts], width - 1),
        advantages=below([part.advantages for part in parts], width - 1),
        weights=below([part.weights for part in parts], width - 1),
        sources=tuple(source for part in parts for source in part.sources),
        comparable=torch.cat([part.comparable for part in parts]),
        item_ids=tuple(item for part in parts for item in part.item_ids),
        packed=parts[0].packed,
    )


def _teacher_inputs(rollouts: Sequence[Rollout], own: Sequence[int], device: torch.device) -> TeacherInputs | None:
    """The teacher's input for the rows, given the lengths of their own contexts; None if no row has a teacher."""
    if all(rollout.teacher_ids is None for rollout in rollouts):
        return None
    rows = [[] if r.teacher_ids is None else [*r.teacher_ids, *r.token_ids] for r in rollouts]
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    shift = [0 if r.teacher_ids is None else len(r.teacher_ids) - n for r, n in zip(rollouts, own, strict=True)]
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return TeacherInputs(torch.from_numpy(ids).to(device), lengths, torch.tensor(shift, device=device))


def token_columns(
    model: Any, batch: TokenBatch, temperature: float, columns: Columns, options: TrainerOptions = DEFAULT
) -> list[Tensor]:
    """What `columns` returns for each next-token prediction at a temperature, each (rows, tokens), 0 in shared context.

    Logits are computed only from the first column that any row's loss needs, or of a packed batch for the tokens of the
    loss alone; some at a time if `options` say so.
    """
    layout = batch.layout()
    with autocast(batch.input_ids.device, options):
        if options.logprob_chunk is not None:
            found = chunked_columns(model, layout, temperature, options.logprob_chunk, columns)
            return [batch.spread(column, layout) for column in found]
        logits = layout.predicting(layout.logits(model))
    scores = torch.log_softmax(logits.float() / temperature, dim=-1)
    return [batch.spread(column, layout) for column in columns(scores, layout.places)]


def policy_columns(batch: TokenBatch, *, with_entropy: bool) -> Columns:
    """The log-probability of each next token and, if asked for, the entropy of the distribution it is drawn from."""
    targets = batch.input_ids[:, batch.first + 1 :].flatten()

    def columns(scores: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        logprobs = scores.gather(-1, targets[places, None])[:, 0]
        return (logprobs, -(scores.exp() * scores).sum(-1)) if with_entropy else (logprobs,)

    return columns


def token_logprobs(
    model: Any,
    batch: TokenBatch,
    temperature: float,
    *,
    with_entropy: bool = False,
    options: TrainerOptions = DEFAULT,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities (rows, tokens) of each next token at a temperature, and entropies if asked for, in float32."""
    found = token_columns(model, batch, temperature, policy_columns(batch, with_entropy=with_entropy), options)
    return found[0], found[1] if with_entropy else None


def autocast(device: torch.device, options: TrainerOptions) -> AbstractContextManager[Any]:
    """In which matrix products of a pass are taken (LOOP 11: the weights stay float32)."""
    return nullcontext() if options.precision == "float32" else torch.autocast(device.type, torch.bfloat16)


@torch.no_grad()
def fixed_logprobs(model: Any, batch: TokenBatch, temperature: float, *, options: TrainerOptions = DEFAULT) -> Tensor:
    """As `token_logprobs`, of a policy that is not trained: rows of the same tokens are computed once.

    Rollouts of an easy prompt are often the same. The width stays, so a row's values are those of the whole batch.
    """
    if batch.packed:  # where equal rows are computed once anyway
        return token_logprobs(model, batch, temperature, options=options)[0]
    _, which = torch.unique(batch.input_ids, dim=0, return_inverse=True)
    rows = which.new_zeros(int(which.max()) + 1)
    rows[which] = torch.arange(len(which), device=which.device)
    logprobs, _ = token_logprobs(model, replace(batch, input_ids=batch.input_ids[rows]), temperature, options=options)
    return logprobs[which]
