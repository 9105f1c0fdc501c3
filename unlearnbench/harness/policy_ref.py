"""Where a finished policy is that somebody wants evaluated: a folder, a LoRA adapter of the base, or the Hub."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.errors import PolicyError
from unlearnbench.io.hub import quiet_hub
from unlearnbench.splits import Split, load_split, shipped_splits

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
"""What is fetched of a policy on the Hub: no code, no pickled weights."""

DECISIVE = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Endings of the files of a policy's folder that decide what is computed: weights, configuration, tokenizer."""


def find_checkpoint(name: str | Path, split: Split) -> Path:
    """The folder of a checkpoint, fetched from the Hub where `name` is no folder. Raises PolicyError."""
    folder = Path(name)
    if not folder.is_dir():
        if folder.exists() or str(name).startswith((".", "/", "~")) or str(name).count("/") != 1:
            raise PolicyError(f"There is no checkpoint {name}; give the folder of a saved policy, or OWNER/NAME.")
        folder = _fetched(str(name))
    folder = folder.resolve()
    from unlearnbench.policies.policy import is_adapter, require_same_architecture

    if is_adapter(folder):
        return folder
    if not (folder / "config.json").is_file():
        raise PolicyError(f"The checkpoint {folder} has no config.json; give the folder of a saved policy.")
    require_same_architecture(folder, split.policy_path)
    return folder


def whole_policy(folder: Path, split: Split, out: Path) -> Path:
    """The folder of the policy itself: of an adapter, `out`, where it is written merged into the split's base.

    A kill in the middle leaves no `out`.
    """
    from unlearnbench.policies.policy import is_adapter, merged, save_policy

    if not is_adapter(folder):
        return folder
    if not out.is_dir():
        base, fresh = split.policy_path, out.with_name(f".{out.name}.tmp")
        revision = split.config.base_policy.revision if isinstance(base, str) else None
        shutil.rmtree(fresh, ignore_errors=True)
        # On the CPU: this process measures nothing, and would hold memory of a GPU to its end.
        told = merged(folder, base, revision=revision, prompt_format=split.config.prompt_format, device="cpu")
        save_policy(told, fresh)
        fresh.rename(out)
    return out


def base_folder(split: Split) -> Path:
    """The folder of a split's base policy, fetched from the Hub where it is named. Raises PolicyError."""
    policy = split.policy_path
    return policy if isinstance(policy, Path) else _fetched(policy, split.config.base_policy.revision)


def _fetched(name: str, revision: str | None = None) -> Path:
    from huggingface_hub import errors, snapshot_download

    if Path(name).is_dir():
        return Path(name).resolve()
    quiet_hub()
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(WANTED)))
    except errors.GatedRepoError as problem:
        raise PolicyError(
            f"The policy {name} is gated on the Hub; accept its terms there, then run: hf auth login"
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise PolicyError(
            f"There is neither a folder {name} nor a policy of that name on the Hub; if it is private: hf auth login"
        ) from problem
    except (errors.LocalEntryNotFoundError, errors.HTTPError, OSError) as problem:  # type: ignore[attr-defined]
        raise PolicyError(
            f"There is no folder {name}, and the Hub cannot be reached for a policy of that name; give a folder, or "
            "see `unlearnbench doctor`"
        ) from problem


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
