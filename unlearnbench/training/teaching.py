"""Distillation over the whole vocabulary: rollouts that a teacher reads in another context than the policy.

A micro-batch is read by the teacher first, without gradient; then, for each token that is taught, the divergence of the
two next-token distributions is taken where the policy's own log-probabilities are (`token_columns`). With
`logprob_chunk` only the teacher's hidden states are kept in between, so that neither side's logits of more than that
many tokens ever exist, forward or backward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unlearnbench.method import Teacher
from unlearnbench.policies.activation_checkpointing import Columns, hidden_states
from unlearnbench.training.batch import TokenBatch, autocast
from unlearnbench.training.build import RunPolicies
from unlearnbench.training.meter import Meter
from unlearnbench.training.options import TrainerOptions


def divergence(policy: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """Divergence (n,) of next-token distributions given as log-probabilities (n, vocabulary); see `method.Teacher`."""
    if alpha == 0.0:
        return (teacher.exp() * (teacher - policy)).sum(-1)
    if alpha == 1.0:
        return (policy.exp() * (policy - teacher)).sum(-1)
    share = torch.tensor(alpha, dtype=policy.dtype, device=policy.device)
    mixture = torch.logaddexp(policy + torch.log1p(-share), teacher + torch.log(share))
    ours = (policy.exp() * (policy - mixture)).sum(-1)
    theirs = (teacher.exp() * (teacher - mixture)).sum(-1)
    return (1 - share) * ours + share * theirs


@dataclass(frozen=True)
class Lesson:
    """What the teacher made of a micro-batch: enough to give its distribution at each token that is taught."""

    taught: Tensor
    """(rows * kept columns,), bool: tokens that the teacher has read and the loss weighs."""
    scores: Callable[[Tensor], Tensor]
    """Log-probabilities (n, vocabulary), float32, of n taught tokens, by their place among the taught ones (n,)."""
    alpha: float

    def columns(self, targets: Tensor) -> Columns:
        """The columns that a taught micro-batch has besides the policy's: the teacher's log-probability of each token
        of `targets` (rows * kept columns,), and the divergence; 0 where nothing is taught."""
        place = torch.cumsum(self.taught, 0) - 1

        def columns(scores: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
            chosen = self.taught[places]
            empty = scores.new_zeros(len(scores))
            if not bool(chosen.any()):
                return empty, empty + 0 * scores[:, 0]
            with torch.no_grad():
                theirs = self.scores(place[places][chosen])
            of_tokens = theirs.gather(-1, targets[places][chosen][:, None])[:, 0]
            apart = divergence(scores[chosen], theirs, self.alpha)
            where = chosen.nonzero()[:, 0]
            return empty.index_copy(0, where, of_tokens), empty.index_copy(0, where, apart)

        return columns


class Teaching:
    """The teacher's passes of one run. They are metered as forward tokens, by the size of the policy that reads."""

    def __init__(self, policies: RunPolicies, meter: Meter, temperature: float, options: TrainerOptions) -> None:
        self._policies, self._meter = policies, meter
        self._temperature, self._options = temperature, options

    def meter(self, teacher: Teacher, batch: TokenBatch) -> None:
        """Count what the teacher reads of an update, in every process all of it."""
        if batch.teacher is not None:
            with self._policies.reading(teacher.policy) as policy:
                share = policy.parameters / self._meter.parameters
            self._meter.forward += round(share * int(batch.teacher.lengths.sum()))

    @torch.no_grad()
    def lesson(self, teacher: Teacher, part: TokenBatch) -> Lesson:
        """Let the teacher read the rows of a micro-batch that have an input for it."""
        inputs = part.teacher
        assert inputs is not None
        rows = inputs.lengths > 0
        taught = (part.mask[:, part.first :] > 0) & rows[:, None]
        columns = torch.arange(part.first, part.mask.shape[1], device=part.mask.device)
        # Where the teacher's sequence predicts the same token of the completion.
        places = (columns + inputs.shift[rows, None]).clamp(0, max(inputs.ids.shape[1] - 2, 0))
        with self._policies.reading(teacher.policy) as policy:
            states = self._read(policy.model, inputs.ids[rows], places, taught[rows])
        in_chunks = self._options.logprob_chunk is not None
        layer = self._policies.output_layer(teacher.policy) if in_chunks else None

        def scores(which: Tensor) -> Tensor:
            found = states[which]
            if layer is not None:
                with autocast(found.device, self._options):
                    found = torch.nn.functional.linear(found, *layer)
            return torch.log_softmax(found.float() / self._temperature, dim=-1)

        return Lesson(taught.flatten(), scores, teacher.alpha)

    def _read(self, model: Any, ids: Tensor, places: Tensor, taught: Tensor) -> Tensor:
        """Logits, or hidden states where logits are made in chunks, of the taught tokens: (taught, width)."""
        if not bool(taught.any()):
            return torch.zeros(0, 1, device=ids.device)
        first = int(places[taught].min())
        kept = ids.shape[1] - first
        with autocast(ids.device, self._options):
            if self._options.logprob_chunk is None:
                found = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
            else:
                found = hidden_states(model, ids, kept)
        at = (places - first).clamp(min=0)[..., None].expand(-1, -1, found.shape[-1])
        taken: Tensor = found.gather(1, at)[taught]
        return taken
