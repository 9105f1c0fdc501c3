"""Forward and backward passes over an update's micro-batches, shared out among the processes of a run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice

import torch

from unlearnbench.errors import MethodError
from unlearnbench.method import LossBatch
from unlearnbench.policies.activation_checkpointing import Columns
from unlearnbench.policies.layout import reads_end_to_end
from unlearnbench.policies.policy import Policy
from unlearnbench.policies.reordered_weights import reordered_weights
from unlearnbench.records import Recipe
from unlearnbench.training.batch import TokenBatch, fixed_logprobs, grouped, joined, policy_columns, token_columns
from unlearnbench.training.build import Models, RunPolicies
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.hooks import Hooks
from unlearnbench.training.importance_sampling import truncated
from unlearnbench.training.meter import Meter
from unlearnbench.training.metrics import Metrics, UpdateSums
from unlearnbench.training.options import TrainerOptions
from unlearnbench.training.teaching import Teaching


class Passes:
    """The passes of one run. An update has one denominator, fixed in its weights before any pass (LOOP 7)."""

    def __init__(
        self,
        hooks: Hooks,
        models: Models,
        policies: RunPolicies,
        meter: Meter,
        processes: Processes,
        options: TrainerOptions,
    ) -> None:
        self.hooks, self.models, self.meter = hooks, models, meter
        self.recipe: Recipe = hooks.method.settings
        self.processes, self.options = processes, options
        self.teaching = Teaching(policies, meter, self.recipe.temperature, options)
        self.packed = _packed(models, options)

    def reference_logprobs(self, batches: Sequence[TokenBatch]) -> list[list[torch.Tensor | None]]:
        """For each update's batch those of its micro-batches, before any update; forward-only passes are metered."""
        if self.recipe.kl == 0:
            return [[None] * len(self._slices(batch)) for batch in batches]
        return [[*found] for found in self._before_updates(self.models.reference, batches)]

    def own_logprobs(self, batches: Sequence[TokenBatch]) -> list[list[torch.Tensor] | None]:
        """The same of the policy, but of the first batch, to compare another engine's log-probabilities with (LOOP 2).

        The first update has them anyway, and none needs them where the loop's own sampler drew.
        """
        if self.models.sampler.exact or not batches:
            return [None] * len(batches)
        return [None, *self._before_updates(self.models.policy, batches[1:])]

    def _before_updates(self, policy: Policy, batches: Sequence[TokenBatch]) -> list[list[torch.Tensor]]:
        self.meter.forward += sum(batch.tokens for batch in batches)
        slices = [self._slices(batch) for batch in batches]
        parts = [part for one in slices for part in one]
        passes = grouped(parts, self.recipe.micro_batch_tokens) if self.packed else [[part] for part in parts]
        with nullcontext() if self.models.sharded else reordered_weights(policy.model):
            found = iter([logprobs for some in passes for logprobs in self._fixed(policy, some)])
        return [list(islice(found, len(one))) for one in slices]

    def backward(
        self,
        batch: TokenBatch,
        references: Sequence[torch.Tensor | None],
        before: Sequence[torch.Tensor] | None = None,
    ) -> Metrics:
        """Accumulate the gradient of one update, and return what is logged of it."""
        self.meter.trained += batch.tokens
        self.teaching.meter(self.hooks.method.teacher, batch)
        sums = UpdateSums(self.recipe)
        for k, (part, reference) in enumerate(zip(self._slices(batch), references, strict=True)):
            logprobs, entropy, teacher, divergence = self._read(part)
            known = torch.isfinite(part.behaviour)
            behaviour = old = torch.where(known, part.behaviour, logprobs.detach())
            weights = part.weights
            if not self.models.sampler.exact:
                old, weights = truncated(part, behaviour, logprobs.detach() if before is None else before[k])
            loss_batch = LossBatch(
                logprobs,
                old,
                reference,
                entropy,
                part.advantages,
                part.mask,
                part.sources,
                part.item_ids,
                teacher,
                divergence,
            )
            losses = self.hooks.loss("policy_loss", loss_batch)
            extra = self.hooks.loss("auxiliary_loss", loss_batch)
            assert losses is not None
            loss = (weights * (losses if extra is None else losses + extra)).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            sums.add(loss, part, loss_batch, behaviour)
        return sums.over(self.processes)

    def _read(
        self, part: TokenBatch
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """What the policy, and the teacher where there is one, make of a micro-batch: see LossBatch.

        Log-probabilities, entropies, the teacher's log-probabilities, divergences; each (rows, tokens).
        """
        with_entropy = self.recipe.entropy > 0 or self.hooks.method.entropies
        columns = policy_columns(part, with_entropy=with_entropy)
        if part.teacher is not None:
            if self.models.sharded:
                raise MethodError(
                    f"{self.hooks.name} gives rollouts a teacher, which needs whole weights in each process; train "
                    "without --trainer shard=fsdp2"
                )
            lesson = self.teaching.lesson(self.hooks.method.teacher, part)
            columns = _both(columns, lesson.columns(part.input_ids[:, part.first + 1 :].flatten()))
        found = token_columns(self.models.policy.model, part, self.recipe.temperature, columns, self.options)
        taught = (found[-2].detach(), found[-1]) if part.teacher is not None else (None, None)
        return found[0], found[1] if with_entropy else None, *taught

    def _slices(self, batch: TokenBatch) -> list[TokenBatch]:
        """This process's micro-batches of an update; of several processes each has some."""
        size, most = self.processes.size, self.recipe.micro_batch_tokens
        if size > 1:
            most = min(most, -(-batch.input_ids.numel() // (2 * size)))
        parts = list(replace(batch, packed=self.packed).micro_batches(most))
        if self.models.sharded:  # a pass is made by all processes or by none
            parts += [parts[-1].without_weight()] * (-len(parts) % size)
        return self.processes.own(parts)

    def _fixed(self, policy: Policy, parts: Sequence[TokenBatch]) -> list[torch.Tensor]:
        """Of micro-batches that one pass reads."""
        found = fixed_logprobs(policy.model, joined(parts), self.recipe.temperature, options=self.options)
        return [
            rows[:, : part.mask.shape[1]]
            for part, rows in zip(parts, torch.split(found, [len(part) for part in parts]), strict=True)
        ]


def _packed(models: Models, options: TrainerOptions) -> bool:
    """Whether passes read rows end to end (LOOP 5). Layers that are computed again would need the layout once more."""
    policy = models.policy
    possible = policy.device.type == "cpu" and not options.gradient_checkpointing and not models.sharded
    return possible and reads_end_to_end(policy.model)


def _both(one: Columns, other: Columns) -> Columns:
    return lambda scores, places: (*one(scores, places), *other(scores, places))
