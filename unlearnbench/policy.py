"""A policy: a causal language model with its tokenizer, from a folder or the Hub, and its exact revision."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from unlearnbench.errors import PolicyError
from unlearnbench.records import Tokens

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class Policy:
    """A model in float32 (CPU) or its own dtype, its tokenizer, and the tokens that end a rollout."""

    model: Any
    tokenizer: Any
    source: str
    prompt_format: Literal["raw", "chat"]
    stop_ids: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Number of distinct parameters, the N of PROTOCOL 3.9."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    def encode(self, prompt: str, prefix: str = "") -> Tokens:
        """Token ids of the context that a prompt is answered in, shape (L,), and of the answer's first words."""
        if self.prompt_format == "chat":
            ids = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
            )
        else:
            ids = self.tokenizer.encode(prompt, add_special_tokens=False)
        if not ids:
            raise PolicyError(f"The tokenizer of {self.source} turns a prompt into no tokens; choose another policy.")
        if prefix:
            ids = [*ids, *self.tokenizer.encode(prefix, add_special_tokens=False)]
        return np.asarray(ids, dtype=np.int32)

    def encode_completion(self, text: str) -> Tokens:
        """Token ids of a text as a completion that ends there, shape (T,)."""
        own = self.tokenizer.eos_token_id
        end = own if own in self.stop_ids else self.stop_ids[0]
        ids = [*self.tokenizer.encode(text, add_special_tokens=False), end]
        return np.asarray(ids, dtype=np.int32)

    def decode(self, token_ids: Sequence[int] | Tokens) -> str:
        """Text of a completion, without the token that ended it."""
        ids = [int(token) for token in token_ids]
        if ids and ids[-1] in self.stop_ids:
            ids.pop()
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def load_policy(
    source: str | Path,
    *,
    revision: str | None = None,
    prompt_format: Literal["raw", "chat"] = "raw",
    device: str | torch.device | None = None,
    trained: bool = False,
) -> Policy:
    """Load a policy from a folder or, by name, from the Hub. Weights are read from safetensors only.

    A policy that is to be trained has float32 weights on every device (LOOP 11).

    Raises PolicyError where the folder is incomplete or holds no causal language model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    local = Path(source).is_dir()
    if not local and (str(source).startswith((".", "/")) or Path(source).exists()):
        raise PolicyError(f"There is no policy folder {source}; give a folder with config.json and safetensors.")
    where = "cuda" if device is None and torch.cuda.is_available() else (device or "cpu")
    options: dict[str, Any] = {"local_files_only": True} if local else {"revision": revision}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), **options)
        model = AutoModelForCausalLM.from_pretrained(
            str(source),
            use_safetensors=True,
            dtype=torch.float32 if trained or torch.device(where).type == "cpu" else "auto",
            attn_implementation="sdpa",
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as problem:
        detail = str(problem).strip().split("\n")[0][:200]
        raise PolicyError(
            f"The policy {source} cannot be loaded ({detail}); it must hold config.json, a tokenizer and safetensors."
        ) from problem
    model.to(where).eval()
    stops: set[int] = set()
    for ends in (getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id):
        stops |= {ends} if isinstance(ends, int) else set(ends or ())
    if not stops:
        raise PolicyError(f"The policy {source} names no end token; set eos_token_id in its generation_config.json.")
    return Policy(model, tokenizer, str(source), prompt_format, tuple(sorted(stops)))


def merge_adapter(
    folder: Path,
    base: str | Path,
    out: Path,
    *,
    revision: str | None = None,
    prompt_format: Literal["raw", "chat"] = "raw",
) -> None:
    """Write the policy that a LoRA adapter makes of its base to `out`. Adapter weights are read from safetensors only.

    Raises PolicyError where the folder is incomplete or does not fit the base.
    """
    from peft import PeftModel

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise PolicyError(f"The adapter {folder} has no {ADAPTER_WEIGHTS}; save it again as safetensors.")
    policy = load_policy(base, revision=revision, prompt_format=prompt_format)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers has renamed
            merged = PeftModel.from_pretrained(policy.model, str(folder), local_files_only=True).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as problem:
        detail = str(problem).strip().split("\n")[0][:200]
        raise PolicyError(
            f"The adapter {folder} does not fit the policy {base} ({detail}); give its own base."
        ) from problem
    save_policy(replace(policy, model=merged), out)


def save_policy(policy: Policy, folder: Path) -> None:
    """Write model (safetensors), configuration and tokenizer, so that the folder is a policy by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    policy.model.save_pretrained(folder, safe_serialization=True)
    origin = Path(policy.source)
    if origin.is_dir():  # byte for byte: re-serialising a tokenizer may change it
        for name in TOKENIZER_FILES:
            if (origin / name).is_file():
                shutil.copyfile(origin / name, folder / name)
    else:
        policy.tokenizer.save_pretrained(folder)


def restore_weights(policy: Policy, folder: Path) -> None:
    """Put the weights saved in a policy folder into a loaded policy. Raises PolicyError where they do not fit."""
    from safetensors.torch import load_file

    stored: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.startswith("model"):
            stored |= load_file(path, device=str(policy.device))
    missing, unknown = policy.model.load_state_dict(stored, strict=False)
    tied = set(policy.model.all_tied_weights_keys)
    if unknown or set(missing) - tied:
        raise PolicyError(f"The weights in {folder} are not those of {policy.source}; remove the folder and run again.")


def require_same_architecture(folder: Path, base: Path | str) -> None:
    """Raise PolicyError unless both folders' configurations describe the same architecture and vocabulary."""
    if not Path(base).is_dir():
        return
    try:
        ours, theirs = (json.loads((Path(p) / "config.json").read_text()) for p in (base, folder))
    except (OSError, ValueError) as problem:
        raise PolicyError(
            f"The checkpoint {folder} has no readable config.json; give the folder of a saved policy."
        ) from problem
    keys = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    for key in keys:
        if ours.get(key) != theirs.get(key):
            raise PolicyError(
                f"The checkpoint {folder} has {key} {theirs.get(key)} where the split's base policy has "
                f"{ours.get(key)}; evaluate a policy trained from the split's base, or choose its own split."
            )
