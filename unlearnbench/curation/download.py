"""Files from elsewhere: the source data of a split from the Hub or a local copy, released files by their hash.

Whatever goes wrong (no network, no such file, no permission, a full disk, another content) is one sentence that says
what to do; what has arrived stays where it is, and the same command goes on from there.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files
from unlearnbench.io.hub import hub_errors, trouble
from unlearnbench.splits.manifest import ReleasedFile, SourceData

_PATIENCE = 60.0
"""Seconds without a byte after which a download counts as dead."""


def source_file(source: SourceData, local: Path | None) -> tuple[Path, str | None]:
    """The file of the source data, and its revision if it came from the Hub.

    `local` is a folder laid out like the Hub's, or the file itself. Raises DataError if nothing is there, RunError if
    the Hub gives nothing.
    """
    if local is not None:
        for place in (local, local / source.file, local / Path(source.file).name):
            if place.is_file():
                return place, None
        raise DataError(
            f"{local} holds no {source.file}; name a folder laid out like https://huggingface.co/datasets/"
            f"{source.repository}, or the file"
        )
    from huggingface_hub import hf_hub_download

    instead = f"copy {source.file} by hand and name its folder with --source"
    with hub_errors(f"cannot fetch {source.file} of {source.repository} from the Hub", instead):
        path = Path(hf_hub_download(source.repository, source.file, repo_type="dataset"))
    return path, _revision(path)


def released_file(wanted: ReleasedFile, addresses: Sequence[str], store: Path, local: str | None) -> Path:
    """A released file whose hash is right: in `local` (a folder, or an address), or fetched into `store`.

    Raises DataError if its content is another, RunError if it cannot be had.
    """
    if local is not None and not local.startswith(("http://", "https://")):
        path = Path(local) / wanted.name
        if not path.is_file():
            raise DataError(f"{local} holds no {wanted.name}; name the folder of the released files with --artifacts")
        _check(path, wanted, "restore it, or leave --artifacts out to fetch it")
        return path
    path = store / wanted.name
    if path.is_file() and files.sha256(path) == wanted.sha256:
        return path
    told = ""
    for address in [local] if local is not None else addresses:
        try:
            _download(f"{address.rstrip('/')}/{wanted.name}", path)
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            told = told or trouble(error)
            continue
        _check(path, wanted, "fetch it by hand and name its folder with --artifacts")
        return path
    raise RunError(
        f"cannot fetch {wanted.name} from {(local or addresses[0]).rstrip('/')}: {told}; mend the network, or name a "
        "folder that holds it with --artifacts"
    )


def _download(address: str, path: Path) -> None:
    with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
        content = answer.read()  # all at once, so that what fails here is not taken for a failure to write
    files.write_bytes(path, content)


def _check(path: Path, wanted: ReleasedFile, remedy: str) -> None:
    if (found := files.sha256(path)) != wanted.sha256:
        raise DataError(
            f"{path} is not the released file: its sha256 is {found[:12]}..., that of the release "
            f"{wanted.sha256[:12]}...; {remedy}"
        )


def _revision(path: Path) -> str | None:
    """The commit in a path of the Hub's cache, .../snapshots/<commit>/<file>."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
