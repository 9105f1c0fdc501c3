"""Where the policies of a diagnosis are, and what tells one from another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.errors import PolicyError
from unlearnbench.splits import load_split, shipped_splits

DECISIVE = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Endings of the files of a policy's folder that decide what is computed: weights, configuration, tokenizer."""


@dataclass(frozen=True)
class Place:
    """Where a policy is: a folder, or a name on the Hub; and what to call it."""

    source: Path | str
    label: str


def resolve(policy: str | Path) -> list[Place]:
    """The policies that a name or folder means: one, or of a run's folder the checkpoint of every seed."""
    folder = Path(policy)
    if not folder.is_dir():
        if isinstance(policy, str) and policy in shipped_splits():
            return [Place(load_split(policy).policy_path, f"{policy}-base")]
        return [Place(str(policy), str(policy))]
    here = folder.resolve()
    if any(folder.glob("*.safetensors")):
        told = here.parent if here.name == "checkpoint" else here
        plain = here.name not in ("checkpoint", "policy", "model")
        return [Place(folder, here.name if plain else f"{told.parent.name}/{told.name}")]
    if any(folder.glob("checkpoint/*.safetensors")):  # of a policy, or of an adapter
        return [Place(folder / "checkpoint", f"{here.parent.name}/{here.name}")]
    seeds = sorted({path.parent.parent for path in folder.glob("*/checkpoint/*.safetensors")})
    if not seeds:
        raise PolicyError(
            f"{folder} holds neither a policy (config.json and safetensors) nor a run's checkpoints; give one of them."
        )
    return [Place(path / "checkpoint", f"{here.name}/{path.name}") for path in seeds]


def fingerprint(folder: Path) -> str:
    """sha256 over names and contents of all files that decide what a policy of this folder computes."""
    digest = hashlib.sha256()
    own = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
    for path in sorted(path for path in own if path.suffix in DECISIVE and path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
