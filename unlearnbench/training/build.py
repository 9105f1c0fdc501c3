"""The models of a run: the policy that is trained, its start for the KL term, and a sampler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unlearnbench.errors import PolicyError
from unlearnbench.policies.activation_checkpointing import recompute_layers
from unlearnbench.policies.fsdp import is_sharded, shard
from unlearnbench.policies.lora import adapt
from unlearnbench.policies.policy import Policy, is_adapter, load_policy
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.policies.samplers.sampler import Sampler
from unlearnbench.policies.samplers.sharded import WholeSampler
from unlearnbench.records import Recipe
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.options import TrainerOptions


@dataclass(frozen=True)
class Models:
    """What a run computes with. With an adapter, `reference` is the same model without it."""

    policy: Policy
    reference: Policy
    sampler: Sampler

    @property
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
