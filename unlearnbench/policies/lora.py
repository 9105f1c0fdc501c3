"""LoRA: an adapter is trained and the policy's own weights are frozen (Hu et al. 2021, 2106.09685).

An adapted layer computes W x + alpha / rank B A x. B is 0 at the start, so the adapted policy begins as the policy
itself; A is uniform in +-1/sqrt(inputs), from the run's seed and the layer's name. The adapter is peft's, and so is its
file format. The start of the run is the same model with its adapter switched off: no second copy of the weights.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from unlearnbench.errors import PolicyError
from unlearnbench.policies.policy import ADAPTER, Policy
from unlearnbench.records import Lora
from unlearnbench.rng import stream


class WithoutAdapter(torch.nn.Module):
    """An adapted model as it was before it was trained."""

    def __init__(self, adapted: Any) -> None:
        super().__init__()
        self.adapted = adapted
        self.config = adapted.config

    def forward(self, **inputs: Any) -> Any:
        from peft.helpers import rescale_adapter_scale

        # Not peft's `disable_adapter`: it freezes the adapter meanwhile, and shards remember what was frozen.
        with rescale_adapter_scale(self.adapted, 0.0):
            return self.adapted(**inputs)

    def get_output_embeddings(self) -> Any:
        return self.adapted.get_output_embeddings()

    def set_attn_implementation(self, name: str) -> None:
        self.adapted.set_attn_implementation(name)


def adapt(policy: Policy, lora: Lora, root: str) -> tuple[Policy, Policy]:
    """The policy with an adapter to be trained, and its start; they share all memory.

    `root` names the run's random streams. Raises PolicyError where `lora.targets` fit no layer of the policy.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # peft calls what transformers has renamed, and warns of what is refused below
            adapted: Any = get_peft_model(policy.model, config)
    except ValueError as problem:
        raise PolicyError(
            f"No layer of {policy.source} is called as lora.targets says, {lora.targets}; name linear layers such as "
            "q_proj, or all-linear."
        ) from problem
    others = [name for name, _ in adapted.named_parameters() if ".lora_embedding_" in name]
    if others or hasattr(adapted.get_output_embeddings(), "base_layer"):
        raise PolicyError(
            f"lora.targets {lora.targets} has an embedding or the output layer of {policy.source} in it, which an "
            "adapter may share with each other; name other linear layers, or all-linear."
        )
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if ".lora_A." in name:
                random = np.random.Generator(np.random.Philox(key=stream(root, "lora", name)))
                bound = 1 / math.sqrt(weight.shape[1])
                weight.copy_(torch.from_numpy(random.uniform(-bound, bound, tuple(weight.shape))))
            elif ADAPTER in name:
                weight.zero_()
    adapted.eval()
    return replace(policy, model=adapted), replace(policy, model=WithoutAdapter(adapted))
