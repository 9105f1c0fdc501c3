"""Splits as a dataset repository: a folder laid out for the Hub, with its card, and its upload."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from unlearnbench.errors import RunError, SplitError
from unlearnbench.io import files
from unlearnbench.io.hub import hub_errors
from unlearnbench.splits import Split, find_split, shipped_splits
from unlearnbench.splits.cards import card_text, front_matter
from unlearnbench.splits.croissant import write_croissant
from unlearnbench.splits.manifest import waits
from unlearnbench.splits.split import shipped_folder, unbuilt


def publishable() -> list[str]:
    """Shipped splits whose texts travel with the package: what is published unless others are named."""
    return [name for name in shipped_splits() if not waits(shipped_folder(name))]


def export_splits(destination: Path, names: Sequence[str] = ()) -> list[str]:
    """Write splits as a folder that `load_dataset` and the Hub read, with Croissant metadata; returns their names.

    The folder appears when it is whole. Raises SplitError where something is there already, or a split is not built;
    RunError if the disk is full.
    """
    chosen = list(dict.fromkeys(names)) or publishable()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise SplitError(f"{destination} is not empty; name a new folder for the export")
    folders = []
    for name in chosen:
        folder = find_split(name)
        if waits(folder):
            raise SplitError(unbuilt(folder.name))
        folders.append(folder)
    draft = destination.with_name(f".{destination.name}.export.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for folder in folders:
            for file in _published(folder):
                target = draft / folder.name / file.relative_to(folder)
                with files.atomic(target) as copy, file.open("rb") as original:
                    shutil.copyfileobj(original, copy)
            write_croissant(Split(folder), draft / folder.name)
        files.write_text(draft / "README.md", front_matter(draft, "") + card_text())
        if destination.exists():
            destination.rmdir()
        draft.rename(destination)
    except OSError as error:
        raise RunError(f"cannot write {destination}: {error.strerror or error}; fix that and run it again") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return [folder.name for folder in folders]


def push_splits(repository: str, names: Sequence[str] = (), *, private: bool = False) -> str:
    """Upload splits to a dataset repository of the Hub (created if missing); returns the commit's address.

    Raises RunError of one sentence where the Hub cannot be reached or refuses; nothing there changes then, since an
    upload is one commit.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise RunError("there is no token to upload with; run `hf auth login`, or set HF_TOKEN")
    with tempfile.TemporaryDirectory(prefix="unlearnbench-") as place:
        folder = Path(place) / "export"
        chosen = export_splits(folder, names)
        with hub_errors(f"cannot push to {repository}", "see that the token may write there"):
            api = HfApi()
            api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
            message = f"UnlearnBench: {', '.join(chosen)}"
            done = api.upload_folder(
                repo_id=repository, folder_path=folder, repo_type="dataset", commit_message=message
            )
    return str(done.commit_url)


def _published(folder: Path) -> list[Path]:
    """A split's files, without what hides (a curation's work, downloads)."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
