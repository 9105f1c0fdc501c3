"""Weights from a process that ran untrusted code: only safetensors, and only tensors that fit the base policy.

Configuration, tokenizer and generation settings come from the base. Needs no torch.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from unlearnbench.errors import PolicyError
from unlearnbench.io.files import write_json
from unlearnbench.records import Lora

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HEAD = "lm_head.weight"
CARRIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""What of a base's folder belongs to every policy trained from it."""
_HEADER = 100 << 20
_FLOATS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<u4"),
    "F16": np.dtype("<u2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<u8"),
}
_EXPONENT = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80, "F64": 0x7FF0000000000000}
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file, as its header has it."""

    dtype: str
    shape: tuple[int, ...]


def tensors_of(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """Names, dtypes and shapes of the safetensors in a folder whose names begin with `prefix`. Raises PolicyError."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob(f"{prefix}*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:  # it checks that header and data agree
                for name in file.keys():  # noqa: SIM118 - no mapping
                    if name in found:
                        raise PolicyError(f"The weights in {folder} have {name} in two files; save them again.")
                    part = file.get_slice(name)
                    found[name] = Tensor(part.get_dtype(), tuple(part.get_shape()))
        except (SafetensorError, OSError) as problem:
            raise PolicyError(f"The weights {path} are not a safetensors file ({problem}); save again.") from problem
    return found


def parameters_of(folder: Path) -> int:
    """Number of a policy's distinct parameters; an output layer that is the embedding again is none of them."""
    tied = _tied(folder)
    found = tensors_of(folder)
    embedded = any(name.endswith("embed_tokens.weight") for name in found)
    return sum(math.prod(tensor.shape) for name, tensor in found.items() if not (tied and embedded and name == HEAD))


def require_finite(folder: Path, prefix: str = "") -> None:
    """Raise PolicyError naming a tensor that holds NaN or infinity, if one does."""
    for path in sorted(folder.glob(f"{prefix}*.safetensors")):
        for name, dtype, words in _words(path):
            mask = words.dtype.type(_EXPONENT[dtype])
            if bool(np.any((words & mask) == mask)):
                raise PolicyError(f"The weights {path} hold values that are not finite in {name}; train again.")


def require_weights(folder: Path, base: Path) -> None:
    """Raise PolicyError unless weights are finite and have the base's names, shapes and dtypes (or float32)."""
    ours, wanted = tensors_of(folder, "model"), tensors_of(base)
    tied = _tied(base)
    for name in sorted(ours.keys() ^ wanted.keys()):
        # The base may repeat its embedding as output layer; one that only the run has would be loaded as another.
        if not (tied and name == HEAD and name in wanted):
            where, other = (folder, base) if name in ours else (base, folder)
            raise PolicyError(f"The weights in {where} have {name}, and those in {other} do not: another architecture.")
    for name in sorted(ours.keys() & wanted.keys()):
        mine, theirs = ours[name], wanted[name]
        if mine.shape != theirs.shape or mine.dtype not in (theirs.dtype, "F32"):
            raise PolicyError(
                f"The weights in {folder} have {name} as {mine.dtype} {list(mine.shape)} where the base policy has "
                f"{theirs.dtype} {list(theirs.shape)}: another architecture."
            )
    require_finite(folder, "model")


def require_adapter(folder: Path, base: Path, lora: Lora) -> None:
    """Raise PolicyError unless a folder's adapter has the rank of `lora` and fits layers of the base."""
    wanted = tensors_of(base)
    ours = tensors_of(folder, "adapter_model")
    if not ours:
        raise PolicyError(f"The adapter {folder} has no {ADAPTER_WEIGHTS}; save it again as safetensors.")
    for name, tensor in sorted(ours.items()):
        layer, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        weight = wanted.get(f"{layer}.weight")
        if weight is None or part not in ("A.weight", "B.weight") or tensor.dtype != "F32" or len(weight.shape) != 2:
            raise PolicyError(f"The adapter {folder} has {name}, which fits no layer of the base policy.")
        outputs, inputs = weight.shape
        fits = {"A.weight": (lora.rank, inputs), "B.weight": (outputs, lora.rank)}[part]
        swapped = {"A.weight": (lora.rank, outputs), "B.weight": (inputs, lora.rank)}[part]  # Conv1D layers (GPT-2)
        if tensor.shape not in (fits, swapped):
            raise PolicyError(f"The adapter {folder} has {name} of shape {list(tensor.shape)}, and needs {list(fits)}.")
    require_finite(folder, "adapter_model")


def take_over(
    source: Path,
    base: Path,
    target: Path,
    lora: Lora | None,
    state: Mapping[str, Any],
    hub: tuple[str, str | None] | None = None,
) -> None:
    """Make `target` a policy folder of the weights in `source`, once they are checked, and everything else of `base`.

    An adapter names its base by `hub`, name and revision on the Hub, or else by its folder. `state` becomes its
    state.json. The folder takes the place of an older one in one rename. Raises PolicyError.
    """
    if source.is_symlink() or source.parent.is_symlink() or not source.is_dir():
        raise PolicyError(f"There is no folder {source} with the weights that a run leaves; save them with loop.save.")
    fresh, old = target.with_name(f"{target.name}.new"), target.with_name(f"{target.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    prefix = "model" if lora is None else "adapter_model"
    most = _HEADER + 8 * sum(math.prod(tensor.shape) for tensor in tensors_of(base).values())
    for path in sorted(source.glob(f"{prefix}*.safetensors")):
        most -= _copy(path, fresh / path.name, most)  # checked as copied: what is checked cannot change afterwards
    if lora is None:
        require_weights(fresh, base)
        if not (fresh / "model.safetensors").is_file():  # in several files
            write_json(fresh / "model.safetensors.index.json", {"metadata": {}, "weight_map": _weight_map(fresh)})
        for name in CARRIED:
            if (base / name).is_file():
                shutil.copyfile(base / name, fresh / name)
    else:
        require_adapter(fresh, base, lora)
        write_json(fresh / ADAPTER_CONFIG, _adapter_config(source, base, target, lora, fresh, hub))
    write_json(fresh / "state.json", dict(state))
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _adapter_config(
    source: Path, base: Path, target: Path, lora: Lora, weights: Path, hub: tuple[str, str | None] | None
) -> dict[str, Any]:
    """peft's configuration of a checked adapter. A base in the run's folder is named relative to it."""
    import peft

    told = source / ADAPTER_CONFIG
    layers = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in tensors_of(weights)}
    here = target.resolve()
    inside = base.resolve().is_relative_to(here.parents[1])
    transposed = False
    if told.is_file() and not told.is_symlink() and told.stat().st_size < _CHUNK:
        with suppress(OSError, ValueError, AttributeError, RecursionError):
            transposed = json.loads(told.read_text()).get("fan_in_fan_out") is True
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=sorted({layer.rpartition(".")[2] for layer in layers}),
        task_type="CAUSAL_LM",
        fan_in_fan_out=transposed,
        inference_mode=True,
    ).to_dict()
    config["base_model_name_or_path"] = os.path.relpath(base.resolve(), here) if inside else str(base)
    if hub is not None:
        config["base_model_name_or_path"], config["revision"] = hub
    config["target_modules"] = sorted(config["target_modules"])
    return {name: value if _plain(value) else str(value) for name, value in sorted(config.items())}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool | list | dict)


def _weight_map(folder: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="np") as file:
            names |= dict.fromkeys(file.keys(), path.name)
    return names


def _tied(base: Path) -> bool:
    try:
        return json.loads((base / "config.json").read_text()).get("tie_word_embeddings", True) is True
    except (OSError, ValueError, AttributeError):
        return False


def _copy(source: Path, target: Path, most: int) -> int:
    """Copy a file that untrusted code has written, up to a size limit; returns its size. Raises PolicyError.

    No link is followed, out of the folder or to what only this process may read, and nothing is waited for.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as read:
            told = os.fstat(descriptor)
            if not stat.S_ISREG(told.st_mode):
                raise PolicyError(f"The weights {source} are no regular file; save them with loop.save.")
            if told.st_size > most:
                raise PolicyError(f"The weights {source} are larger than the base policy's; save them with loop.save.")
            with target.open("wb") as write:
                shutil.copyfileobj(read, write)
    except OSError as problem:
        raise PolicyError(f"The weights {source} cannot be copied ({problem.strerror}); save them again.") from problem
    return told.st_size


def _words(path: Path) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """The floating-point tensors of a file that safetensors has checked, as raw words, some at a time."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _HEADER:
            raise PolicyError(f"The weights {path} have a header of {size:,} bytes; save them again.")
        header = json.loads(file.read(size))
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] not in _FLOATS:
                continue
            kind = _FLOATS[entry["dtype"]]
            begin, end = entry["data_offsets"]
            file.seek(8 + size + begin)
            left = (end - begin) // kind.itemsize
            assert left == math.prod(entry["shape"])
            while left:
                count = min(left, _CHUNK)
                yield name, entry["dtype"], np.frombuffer(file.read(count * kind.itemsize), kind)
                left -= count
