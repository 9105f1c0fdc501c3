"""A policy: a causal language model with its tokenizer, from a folder or the Hub, and its exact revision."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from unlearnbench.errors import PolicyError, RunError, out_of_memory
from unlearnbench.policies.fsdp import gathered, is_sharded, restore
from unlearnbench.policies.weights import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from unlearnbench.records import Tokens

ADAPTER = ".lora_"
"""In the name of every weight of an adapter, and of no other."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@dataclass(frozen=True)
class Policy:
    """A model in float32 (CPU) or its own dtype, its tokenizer, and the tokens that end a rollout."""

    model: Any
    tokenizer: Any
    source: str
    prompt_format: Literal["raw", "chat"]
    stop_ids: tuple[int, ...]
    revision: str | None = None

    @property
    def parameters(self) -> int:
        """Number of distinct parameters, the N of PROTOCOL 3.10; an adapter, which is merged in the end, adds none."""
        return sum(weight.numel() for name, weight in self.model.named_parameters() if ADAPTER not in name)

    @property
    def adapted(self) -> bool:
        """Whether it has an adapter, which is what is trained and saved of it."""
        return hasattr(self.model, "peft_config")

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """By name, the weights that training changes: an adapter's, else all."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All weights under transformers' names, those of adapted layers merged; of shares one at a time gathered.

        Where processes share the policy all of them call it together.
        """
        layers = dict(self.model.named_modules()) if self.adapted else {}
        stored = self.model.state_dict()
        for name, share in stored.items():
            if ADAPTER in name:
                continue
            weight = gathered(share)
            layer, _, kind = name.rpartition(".")
            if self.adapted and kind == "weight" and layer.endswith(".base_layer"):
                layer = layer.removesuffix(".base_layer")
                a, b = (gathered(stored[f"{layer}.lora_{part}.default.weight"]) for part in "AB")
                change = (b @ a) * layers[layer].scaling["default"]
                weight = weight + (change.T if layers[layer].fan_in_fan_out else change)
            yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), weight

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

    A policy that is to be trained has float32 weights on every device (LOOP 11). Of a run that trained an adapter, the
    policy is the base that the adapter names with the adapter merged into it.

    Raises PolicyError where the folder is incomplete or holds no causal language model.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    local = Path(source).is_dir()
    if local and is_adapter(Path(source)):
        base, revision = _base(Path(source))
        return merged(Path(source), base, revision=revision, prompt_format=prompt_format, device=device)
    if not local and (str(source).startswith((".", "/")) or Path(source).exists()):
        raise PolicyError(f"There is no policy folder {source}; give a folder with config.json and safetensors.")
    if not local and "/" not in str(source):
        raise PolicyError(
            f"There is no policy folder {source} (a split's lies beside its split.yaml), and on the Hub a policy is "
            "named OWNER/NAME; give one of them."
        )
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
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
        if out_of_memory(problem):
            raise RunError(f"There is too little memory to load the policy {source}; use fewer --workers.") from problem
        detail = str(problem).strip().split("\n")[0][:200]
        place = "" if local else ": there is no such folder (a split's lies beside its split.yaml), and on the Hub"
        remedy = "it must hold config.json, a tokenizer and safetensors" if local else _from_the_hub(problem)
        raise PolicyError(f"The policy {source} cannot be loaded{place} ({detail.rstrip('.')}); {remedy}.") from problem
    model.to(where).eval()
    stops: set[int] = set()
    for ends in (getattr(model.generation_config, "eos_token_id", None), tokenizer.eos_token_id):
        stops |= {ends} if isinstance(ends, int) else set(ends or ())
    if not stops:
        raise PolicyError(f"The policy {source} names no end token; set eos_token_id in its generation_config.json.")
    return Policy(model, tokenizer, str(source), prompt_format, tuple(sorted(stops)), revision)


def _from_the_hub(problem: BaseException) -> str:
    """What to do about a policy that the Hub did not give."""
    from huggingface_hub.errors import GatedRepoError

    if isinstance(problem, GatedRepoError) or isinstance(problem.__cause__, GatedRepoError):
        return "accept its terms on its page there, then run: hf auth login"
    return "see that its name is right and that the Hub can be reached (`unlearnbench doctor`), or give a folder"


def is_adapter(folder: Path) -> bool:
    """Whether a folder has a LoRA adapter and no complete policy."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def _base(adapter: Path) -> tuple[str, str | None]:
    """The policy that an adapter was trained on, as its configuration names it, and its revision."""
    try:
        told = json.loads((adapter / ADAPTER_CONFIG).read_text())
        base, revision = told["base_model_name_or_path"], told.get("revision")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise PolicyError(
            f"The adapter {adapter} does not name its base in {ADAPTER_CONFIG}; save it again."
        ) from problem
    near = adapter / str(base)
    return (str(near.resolve()), None) if near.is_dir() else (str(base), revision)


def merged(
    adapter: Path,
    base: str | Path,
    *,
    revision: str | None = None,
    prompt_format: Literal["raw", "chat"] = "raw",
    device: str | torch.device | None = None,
) -> Policy:
    """The policy that a LoRA adapter makes of its base, in float32. Adapter weights are read from safetensors only.

    Raises PolicyError where the folder is incomplete or does not fit the base.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise PolicyError(f"The adapter {adapter} has no {ADAPTER_WEIGHTS}; save it again as safetensors.")
    policy = load_policy(base, revision=revision, prompt_format=prompt_format, device=device, trained=True)
    try:
        _fit_embeddings(policy.model, adapter / ADAPTER_WEIGHTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft calls what transformers has renamed
            adapted = PeftModel.from_pretrained(policy.model, str(adapter), local_files_only=True)
            _untie(adapted)
            model = adapted.merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as problem:
        detail = str(problem).strip().split("\n")[0][:200]
        raise PolicyError(
            f"The adapter {adapter} does not fit the policy {base} ({detail}); give its own base."
        ) from problem
    return replace(policy, model=model.eval())


def _fit_embeddings(model: Any, weights: Path) -> None:
    """Give a base as many embeddings as an adapter's file has, whose trainer may have added tokens."""
    from safetensors import safe_open

    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    own = [name.rpartition(".")[2] for name, module in model.named_modules() if any(module is one for one in layers)]
    ends = tuple(f".{name}.{kind}" for name in own for kind in ("weight", "base_layer.weight"))
    with safe_open(weights, framework="pt") as file:
        rows = max((file.get_slice(name).get_shape()[0] for name in file.keys() if name.endswith(ends)), default=0)  # noqa: SIM118
    if rows > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)


def _untie(adapted: Any) -> None:
    """Where one of embeddings and output layer is adapted, give each its own weights: merging would change both."""
    layers = (adapted.get_input_embeddings(), adapted.get_output_embeddings())
    if not any(hasattr(layer, "base_layer") for layer in layers):
        return
    inner, outer = (getattr(layer, "base_layer", layer) for layer in layers)
    if inner is not None and outer is not None and inner.weight is outer.weight:
        outer.weight = torch.nn.Parameter(outer.weight.detach().clone())
        adapted.config.tie_word_embeddings = False


def whole_weights(policy: Policy, *, keep: bool = True) -> dict[str, torch.Tensor] | None:
    """Of a policy that processes share what is to be saved, gathered to one that keeps it; else None."""
    if not is_sharded(policy.model):
        return None
    left_out = policy.model.state_dict().keys() - policy.trained().keys() if policy.adapted else set()
    left_out |= set(policy.model.all_tied_weights_keys)
    found = {}
    for name, share in policy.model.state_dict().items():
        if name not in left_out:
            weight = gathered(share)  # every process takes part
            if keep:
                found[name] = weight.cpu()
    return found


def save_policy(policy: Policy, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write model (safetensors), configuration and tokenizer, so that the folder is a complete policy.

    Of an adapted policy the adapter alone, as peft writes it; its configuration says where the base is. `weights` are
    what `whole_weights` gave.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if policy.adapted:
        _save_adapter(policy, folder, dict(policy.trained()) if weights is None else weights)
        return
    policy.model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
    origin = Path(policy.source)
    if origin.is_dir():  # byte for byte: re-serialising a tokenizer may change it
        for name in TOKENIZER_FILES:
            if (origin / name).is_file():
                shutil.copyfile(origin / name, folder / name)
    else:
        policy.tokenizer.save_pretrained(folder)


def _save_adapter(policy: Policy, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write the adapter. A base inside the run's folder is named from here, so that the folder may be moved."""
    from safetensors.torch import save_file

    config, base = policy.model.peft_config["default"], Path(policy.source)
    here = folder.resolve()
    inside = base.is_dir() and base.resolve().is_relative_to(here.parents[1])
    told = config.to_dict() | {
        "base_model_name_or_path": os.path.relpath(base.resolve(), here) if inside else policy.source,
        "revision": policy.revision,
        "inference_mode": True,
        "target_modules": sorted(config.target_modules),
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(told, indent=1, sort_keys=True, default=str) + "\n")
    tensors = {_in_file(name): weight.detach().contiguous() for name, weight in weights.items()}
    save_file(tensors, folder / ADAPTER_WEIGHTS, {"format": "pt"})


def _in_file(name: str) -> str:
    """The name of an adapter's weight in peft's file."""
    return name.replace(".default.", ".")


def restore_weights(policy: Policy, folder: Path) -> None:
    """Put the weights saved in a policy folder into a loaded policy. Raises PolicyError where they do not fit."""
    from safetensors.torch import load_file

    stored: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.name.startswith("adapter_model" if policy.adapted else "model"):
            stored |= load_file(path, device=str(policy.device))
    if policy.adapted:
        stored = {name: stored[_in_file(name)] for name in policy.trained() if _in_file(name) in stored}
    if is_sharded(policy.model):
        own = {name for name, _ in policy.model.named_parameters()}
        missing, unknown = own - stored.keys(), stored.keys() - own
        restore(policy.model, stored)
    else:
        missing, unknown = policy.model.load_state_dict(stored, strict=False)
    tied = set(policy.model.all_tied_weights_keys)
    if policy.adapted:
        tied |= policy.model.state_dict().keys() - policy.trained().keys()
    if unknown or set(missing) - tied:
        raise PolicyError(f"The weights in {folder} are not those of {policy.source}; remove the folder and run again.")
