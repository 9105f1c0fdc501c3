"""Where a policy that is to be evaluated is: a folder, a LoRA adapter of the base, or a name on the Hub."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from unlearnbench.errors import PolicyError
from unlearnbench.harness import checkpoint_files
from unlearnbench.io.hub import quiet_hub
from unlearnbench.splits import Split, load_split, shipped_splits

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
"""Files fetched of a policy on the Hub: no code, no pickled weights."""

DECISIVE = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Endings of the files of a policy's folder that decide what is computed: weights, configuration, tokenizer."""


def find_checkpoint(name: str | Path, split: Split) -> Path:
    """The folder of a checkpoint, fetched from the Hub where `name` is not a folder.

    Raises PolicyError: it is not there, is of another architecture than the split's base policy, or has weights that
    are not finite.
    """
    folder = Path(name)
    if not folder.is_dir():
        if folder.exists() or str(name).startswith((".", "/", "~")) or str(name).count("/") != 1:
            raise PolicyError(f"There is no checkpoint {name}; give the folder of a saved policy, or OWNER/NAME.")
        folder = _fetched(str(name))
    folder = folder.resolve()
    from unlearnbench.policies.policy import is_adapter

    if not is_adapter(folder):
        if not (folder / "config.json").is_file():
            raise PolicyError(f"The checkpoint {folder} has no config.json; give the folder of a saved policy.")
        checkpoint_files.require_same_architecture(folder, split.policy_path)
    checkpoint_files.require_finite(folder)
    return folder


def checkpoint_notes(name: str | Path, split: Split) -> list[str]:
    """What is accepted of a checkpoint although it differs from the split's base policy: a sentence each."""
    folder = Path(name) if Path(name).is_dir() else _fetched(str(name))
    return checkpoint_files.notes(folder, split.policy_path)


def whole_policy(folder: Path, split: Split, out: Path) -> Path:
    """The folder of the policy itself. Of an adapter that is `out`, where it is written merged into the split's base;
    of a checkpoint without a tokenizer too, with the base's. A kill in the middle leaves no `out`.
    """
    from unlearnbench.policies.policy import is_adapter, merged, save_policy

    base = split.policy_path
    revision = split.config.base_policy.revision if isinstance(base, str) else None
    if not is_adapter(folder):
        if checkpoint_files.has_tokenizer(folder):
            return folder
        if not out.is_dir():
            checkpoint_files.with_tokenizer(folder, base, revision, out)
        return out
    if not out.is_dir():
        fresh = out.with_name(f".{out.name}.tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        # On the CPU: this process measures nothing, and would keep memory of a GPU until it ends.
        policy = merged(folder, base, revision=revision, prompt_format=split.config.prompt_format, device="cpu")
        save_policy(policy, fresh)
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
        named = here.parent if here.name == "checkpoint" else here
        plain = here.name not in ("checkpoint", "policy", "model")
        return [Place(folder, here.name if plain else f"{named.parent.name}/{named.name}")]
    if any(folder.glob("checkpoint/*.safetensors")):  # of a policy, or of an adapter
        return [Place(folder / "checkpoint", f"{here.parent.name}/{here.name}")]
    seeds = sorted({path.parent.parent for path in folder.glob("*/checkpoint/*.safetensors")})
    if not seeds:
        raise PolicyError(
            f"{folder} has neither a policy (config.json and safetensors) nor a run's checkpoints; give one of them."
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
