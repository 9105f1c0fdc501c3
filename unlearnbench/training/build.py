"""The models of a run: the policy that is trained, its start for the KL term, a sampler; and all that it can read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from unlearnbench.errors import MethodError, PolicyError
from unlearnbench.policies.activation_checkpointing import recompute_layers
from unlearnbench.policies.averaged import AveragedWeights
from unlearnbench.policies.fsdp import is_sharded, shard
from unlearnbench.policies.lora import adapt
from unlearnbench.policies.policy import Policy, is_adapter, load_policy
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.policies.samplers.sampler import Sampler
from unlearnbench.policies.samplers.sharded import WholeSampler
from unlearnbench.records import Recipe
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.judge import Judge
from unlearnbench.training.options import TrainerOptions


@dataclass(frozen=True)
class Models:
    """What a run computes with. With an adapter, `reference` is the same model without it."""

    policy: Policy
    reference: Policy
    sampler: Sampler

    @cached_property
    def sharded(self) -> bool:
        """Whether each process of the run holds a part of the weights (FSDP2)."""
        return is_sharded(self.policy.model)


def begin(
    start: Path | str,
    recipe: Recipe,
    options: TrainerOptions,
    processes: Processes,
    engine: Engine,
    *,
    revision: str | None,
    prompt_format: Literal["raw", "chat"],
    root: str,
) -> Models:
    """Load, adapt and shard them. `root` names the run's random streams.

    Raises PolicyError where the policy cannot be loaded, adapted, or trained with these options.
    """
    if recipe.lora is not None and is_adapter(Path(start)):  # what is saved would name the base without this adapter
        raise PolicyError(f"{start} is an adapter, and lora trains another one; start from its merged policy.")
    policy = load_policy(start, revision=revision, prompt_format=prompt_format, trained=True)
    if recipe.lora is not None:
        policy, reference = adapt(policy, recipe.lora, root)
    else:
        reference = load_policy(start, revision=revision, prompt_format=prompt_format)
    if options.gradient_checkpointing:
        recompute_layers(policy.model)
    sharded = options.shard is not None and processes.size > 1
    if sharded:
        for model in [policy.model] if recipe.lora else [policy.model, reference.model]:
            shard(model, processes.size)
    sampler = engine.sampler(policy, training=True)
    if sharded and engine.name == "transformers":  # another engine has weights of its own
        sampler = WholeSampler(sampler, policy.model)
    return Models(policy, reference, sampler)


READABLE = ("current", "reference", "average", "teacher")
"""Names of the policies that a run can read."""


class RunPolicies:
    """The policies of one run. The positive control's is loaded when it is first asked for; the judge notes that."""

    def __init__(self, models: Models, judge: Judge) -> None:
        self._models, self._judge = models, judge
        self._known = {"current": models.policy, "reference": models.reference}
        self._averaged: AveragedWeights | None = None

    @property
    def averaged(self) -> AveragedWeights:
        """The policy averaged over steps, from the first call on."""
        if self._averaged is None:
            if self._models.sharded:
                raise MethodError(
                    "an averaged policy needs whole weights in each process; train without --trainer shard=fsdp2"
                )
            self._averaged = AveragedWeights(self._models.policy)
        return self._averaged

    @contextmanager
    def reading(self, name: str) -> Iterator[Policy]:
        """The policy of that name, to be read meanwhile. Raises MethodError for a name that there is not."""
        if name == "average" and self._averaged is not None:
            with self._averaged.in_place():
                yield self._models.policy
            return
        if name == "teacher" and name not in self._known:
            ours = self._models.policy
            where = self._judge.ask(name)
            self._known[name] = load_policy(where, prompt_format=ours.prompt_format, device=ours.device)
        if name not in self._known:
            more = " (call self.run.averaged() in setup)" if name == "average" else ""
            raise MethodError(f"There is no policy {name!r}{more}; ask for {', '.join(READABLE)}.")
        yield self._known[name]

    def output_layer(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Weight (vocabulary, hidden size) and bias that turn the hidden states of a policy that was read into logits.

        Raises PolicyError where its output layer is not a linear one.
        """
        policy = self._models.policy if name == "average" else self._known[name]
        layer = policy.model.get_output_embeddings()
        if not isinstance(layer, torch.nn.Linear):
            raise PolicyError(f"The output layer of {policy.source} is not linear; train without logprob_chunk.")
        own: dict[str, Tensor] = dict(layer.named_parameters())
        if name == "average" and self._averaged is not None:
            own = self._averaged.of(own)
        return own["weight"].detach(), own["bias"].detach() if "bias" in own else None
