"""Files from elsewhere: the source data of a split from the Hub or a local copy, released files by their hash.

Whatever goes wrong (no network, no such file, no permission, a full disk, another content) is one sentence that says
what to do; what has arrived stays where it is, and the same command goes on from there.
"""

from __future__ import annotations

import errno
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unlearnbench import tables
from unlearnbench.errors import DataError, RunError
from unlearnbench.released import ReleasedFile, SourceData

_PATIENCE = 60.0
"""Seconds without a byte after which a download counts as dead."""


def quiet_hub() -> None:
    """Keeps what huggingface_hub tells of its work off standard error: its retries, and bars where nobody sees them."""
    from huggingface_hub.utils.logging import set_verbosity_error
    from huggingface_hub.utils.tqdm import disable_progress_bars

    set_verbosity_error()  # type: ignore[no-untyped-call]  # its retries are told in many lines, and then once more as the error
    if not sys.stderr.isatty():
        disable_progress_bars()


@contextmanager
def hub_errors(doing: str, instead: str) -> Iterator[None]:
    """Turns what huggingface_hub raises in the block into a RunError of one sentence; `instead` says a way round."""
    from huggingface_hub import errors

    quiet_hub()
    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise RunError(f"{doing}: there is no token; run `hf auth login`, or set HF_TOKEN") from error
    except errors.GatedRepoError as error:
        raise RunError(
            f"{doing}: the repository is gated; accept its terms on its page and log in (`hf auth login`), or {instead}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise RunError(f"{doing}: {_refusal(error)}; {instead}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):  # it was reached, and refused
            raise RunError(f"{doing}: {_refusal(error.__cause__)}; {instead}") from error
        raise RunError(f"{doing}: the Hub cannot be reached; mend the network, or {instead}") from error
    except errors.HFValidationError as error:
        raise RunError(f"{doing}: {_line(error)}") from error
    except OSError as error:
        raise RunError(f"{doing}: {_trouble(error)}; {instead}") from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # its HTTP client's, while a file is on its way
        raise RunError(f"{doing}: the connection failed ({_line(error)}); mend the network, or {instead}") from error


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
    if path.is_file() and tables.sha256(path) == wanted.sha256:
        return path
    told = ""
    for address in [local] if local is not None else addresses:
        try:
            _download(f"{address.rstrip('/')}/{wanted.name}", path)
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            told = told or _trouble(error)
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
    tables.write_bytes(path, content)


def _check(path: Path, wanted: ReleasedFile, remedy: str) -> None:
    if (found := tables.sha256(path)) != wanted.sha256:
        raise DataError(
            f"{path} is not the released file: its sha256 is {found[:12]}..., that of the release "
            f"{wanted.sha256[:12]}...; {remedy}"
        )


def _revision(path: Path) -> str | None:
    """The commit in a path of the Hub's cache, .../snapshots/<commit>/<file>."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None


def _refusal(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the Hub refuses it ({status}): the token is missing, wrong or without that right, or the name is"
    if status == 404:
        return "the Hub knows no such repository or file (404)"
    return f"the Hub answers {status}" if status else _line(error)


def _trouble(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        return f"the answer is broken ({_line(error)})"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the disk; free some and run the same command again"
    return getattr(error, "strerror", None) or _line(error)


def _line(error: BaseException) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".")
