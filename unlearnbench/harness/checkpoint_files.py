"""Whether the files of a checkpoint are a policy of a split: its weights, its architecture, its tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unlearnbench.errors import PolicyError, first_line

SAME = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads")
"""Fields of config.json that a checkpoint has in common with the split's base policy."""
MOST_ADDED = 1024
"""Rows that a checkpoint's vocabulary may have beyond the base's: a padding token, up to a multiple of 128, or so."""
TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "tokenizer_config.json")
"""Files of which a folder with a tokenizer has at least one."""


def require_finite(folder: Path) -> None:
    """Raise PolicyError, naming the weight, where a number in a folder's safetensors is NaN or infinite."""
    import torch
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is not a mapping
                    weight = file.get_tensor(name)
                    if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
                        bad = int((~torch.isfinite(weight)).sum())
                        raise PolicyError(
                            f"The checkpoint {folder} has {bad:,} numbers that are NaN or infinite, of "
                            f"{weight.numel():,}, in {name} ({path.name}); evaluate a checkpoint from before the "
                            "training diverged."
                        )
        except (SafetensorError, OSError) as problem:
            raise PolicyError(f"{path} cannot be read ({first_line(problem)}); save the checkpoint again.") from problem


def require_same_architecture(folder: Path, base: Path | str) -> None:
    """Raise PolicyError unless the checkpoint has the base's architecture and at least its vocabulary."""
    if not Path(base).is_dir():
        return
    ours, theirs = _config(Path(base)), _config(folder)
    for key in SAME:
        if ours.get(key) != theirs.get(key):
            raise _different(folder, key, theirs, ours)
    added = _vocabulary(theirs) - _vocabulary(ours)
    if not 0 <= added <= MOST_ADDED:
        raise _different(folder, "vocab_size", theirs, ours)
    if added and has_tokenizer(folder) and (moved := next(_moved(folder, Path(base)), None)):
        raise PolicyError(
            f"The checkpoint {folder} has another tokenizer than the split's base policy: its token {moved!r} has "
            "another number; evaluate a policy trained from the split's base, or choose its own split."
        )


def notes(folder: Path, base: Path | str) -> list[str]:
    """What was accepted of a checkpoint although it differs from the base: a sentence each."""
    found: list[str] = []
    if not (folder / "config.json").is_file():
        return found
    if not has_tokenizer(folder):
        found.append(f"{folder} has no tokenizer; the base policy's is used")
    if Path(base).is_dir() and (added := _vocabulary(_config(folder)) - _vocabulary(_config(Path(base)))):
        found.append(f"{folder} has {added} more tokens than the base policy, as padding adds; they are kept")
    return found


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER)


def with_tokenizer(folder: Path, base: Path | str, revision: str | None, out: Path) -> None:
    """Make `out` a folder of the checkpoint's files, linked, and the base policy's tokenizer."""
    from transformers import AutoTokenizer

    fresh = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    AutoTokenizer.from_pretrained(str(base), revision=None if Path(base).is_dir() else revision).save_pretrained(fresh)
    for path in folder.iterdir():
        if path.is_file() and not (fresh / path.name).exists():
            (fresh / path.name).symlink_to(path.resolve())
    if Path(base).is_dir():  # byte for byte: saving a tokenizer may change it
        for name in TOKENIZER:
            if (Path(base) / name).is_file():
                shutil.copyfile(Path(base) / name, fresh / name)
    fresh.rename(out)


def _moved(folder: Path, base: Path) -> Iterator[str]:
    """Tokens of the base whose number is another in the checkpoint's tokenizer."""
    from transformers import AutoTokenizer

    ours, theirs = (AutoTokenizer.from_pretrained(str(one)).get_vocab() for one in (base, folder))
    return (token for token, number in ours.items() if theirs.get(token) != number)


def _config(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as problem:
        raise PolicyError(
            f"The checkpoint {folder} has no readable config.json; give the folder of a saved policy."
        ) from problem
    return found


def _vocabulary(config: dict[str, Any]) -> int:
    return int(config.get("vocab_size") or 0)


def _different(folder: Path, key: str, theirs: dict[str, Any], ours: dict[str, Any]) -> PolicyError:
    return PolicyError(
        f"The checkpoint {folder} has {key} {theirs.get(key)} where the split's base policy has {ours.get(key)}; "
        "evaluate a policy trained from the split's base, or choose its own split."
    )
