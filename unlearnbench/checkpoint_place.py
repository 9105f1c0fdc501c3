"""Where a finished policy is that somebody wants evaluated: a folder, a LoRA adapter of the base, or the Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

from unlearnbench.errors import PolicyError
from unlearnbench.fetch import quiet_hub
from unlearnbench.splits import Split

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
"""What is fetched of a policy on the Hub: no code, no pickled weights."""


def find_checkpoint(name: str | Path, split: Split) -> Path:
    """The folder of a checkpoint, fetched from the Hub where `name` is no folder. Raises PolicyError."""
    folder = Path(name)
    if not folder.is_dir():
        if folder.exists() or str(name).startswith((".", "/", "~")) or str(name).count("/") != 1:
            raise PolicyError(f"There is no checkpoint {name}; give the folder of a saved policy, or OWNER/NAME.")
        folder = _fetched(str(name))
    folder = folder.resolve()
    from unlearnbench.policy import is_adapter, require_same_architecture

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
    from unlearnbench.policy import is_adapter, merged, save_policy

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


def _fetched(name: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    quiet_hub()
    try:
        return Path(snapshot_download(name, allow_patterns=list(WANTED)))
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
