"""The items of `micro` around a policy of a language model's size with random weights, in place of a download.

Speed and memory depend on a policy's shape, not on what it knows. Its rollouts are random text that ends by chance, so
most are cut off at the limit.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlearnbench.records import PolicyRef, Pool
from unlearnbench.splits import Split, load_split
from unlearnbench.splits.write import write_config

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "106m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "qwen2.5-0.5b": {
        "vocab_size": 151_936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32_768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    },
    "tiny": {
        "vocab_size": 1000,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}
"""Qwen2's architecture: SmolLM2-135M's layers with the vocabulary of micro; Qwen2.5-0.5B; one to try a script with."""


def split_of(shape: str, folder: Path, *, longest: int | None = None, **recipe: Any) -> Split:
    """A split in this folder with a policy of that shape, and these values in its recipe. The seed is fixed.

    `longest` is the limit in tokens of an evaluation's rollouts, micro's by default.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    micro = load_split("micro")
    assert isinstance(micro.policy_path, Path)
    policy = folder / "policy"
    shutil.copytree(micro.policy_path, policy, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(0)
    own = Qwen2Config.from_pretrained(policy).to_dict()
    changes = {"layer_types": None, "max_position_embeddings": 2048, **SHAPES[shape]}
    model = Qwen2ForCausalLM(Qwen2Config.from_dict(own | changes))
    model.save_pretrained(policy)
    for name in ("items.parquet", "canaries.json"):
        shutil.copyfile(micro.path / name, folder / name)
    parameters = sum(weight.numel() for weight in model.parameters())
    protocol = micro.config.protocol
    sampling = protocol.sampling.model_copy(update={"max_tokens": longest or protocol.sampling.max_tokens})
    base = PolicyRef(path=str(policy.resolve()), parameters=parameters)
    changed = {
        "name": f"random-{shape}",
        "base_policy": base,
        "protocol": protocol.model_copy(update={"sampling": sampling}),
        "recipe": micro.config.recipe.model_copy(update=recipe),
        "pool": Pool(items="items.parquet", canaries="canaries.json"),
        "files": {},
        "budget": None,
    }
    write_config(folder, micro.config.model_copy(update=changed))
    return Split(folder)
