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
from unlearnbench.splits.manifest import ReleasedFile, RewardLog, SourceData

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


def released_file(wanted: ReleasedFile | RewardLog, addresses: Sequence[str], store: Path, local: str | None) -> Path:
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
    if path.is_file() and _same(path, wanted):
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
        f"cannot fetch {wanted.name} from {(local or addresses[0]).rstrip('/')}: {told}; fix the network connection, "
        "or name a folder that has it with --artifacts"
    )


def released_rewards_file(
    wanted: RewardLog, addresses: Sequence[str], store: Path, local: str | None, source: Path | None
) -> Path | None:
    """The released rewards of a training run, as `released_file`; a copy beside the source data is taken, too.

    None where `local` is a folder of released files and neither it nor `source` has this one: it adds curves to a
    split, and no label rests on it.
    """
    folders = [Path(place) for place in (local, source) if place is not None and not str(place).startswith("http")]
    for folder in folders:
        for path in (folder / wanted.name, folder / "example_data" / wanted.name):
            if path.is_file():
                _check(path, wanted, "restore it, or remove it to have it fetched")
                return path
    if local is not None and Path(local) in folders:
        return None
    return released_file(wanted, addresses, store, local)


def _download(address: str, path: Path) -> None:
    with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
        content = answer.read()  # all at once, so that a failure here is not reported as a failure to write
    files.write_bytes(path, content)


def _check(path: Path, wanted: ReleasedFile | RewardLog, remedy: str) -> None:
    if not _same(path, wanted):
        name, found, expected = _digests(path, wanted)
        raise DataError(
            f"{path} is not the released file: its {name} is {found[:12]}..., that of the release {expected[:12]}...; "
            f"{remedy}"
        )


def _same(path: Path, wanted: ReleasedFile | RewardLog) -> bool:
    _, found, expected = _digests(path, wanted)
    return found == expected


def _digests(path: Path, wanted: ReleasedFile | RewardLog) -> tuple[str, str, str]:
    """What a file is known by, that of the file here, and that of the released one."""
    if isinstance(wanted, RewardLog):
        return "git blob id", files.git_blob(path), wanted.git_blob
    return "sha256", files.sha256(path), wanted.sha256


def _revision(path: Path) -> str | None:
    """The commit in a path of the Hub's cache, .../snapshots/<commit>/<file>."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
