"""The address of a bundle: bundle.json, which an entry keeps in place of the bundle, and how the bundle is fetched.

A bundle is too large for the repository. It lies where anybody can download it without an account: attached to a pull
request or a release, in a data set on the Hugging Face Hub, or on any web server. Its SHA-256 says which it is.
"""

from __future__ import annotations

import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import Field

from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files, tables
from unlearnbench.io.hub import trouble
from unlearnbench.io.safe_zip import LARGEST_FILE
from unlearnbench.io.untrusted import require_url
from unlearnbench.records import Record

BUNDLE = "bundle.json"
HUB = re.compile(r"(?!.*\.\.)hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w.-]+))?/([\w./ -]+\.zip)", re.ASCII)
TIMEOUT = 60.0
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.zip"
_CHUNK = 1 << 20


class BundleRef(Record):
    """bundle.json: which bundle an entry was made of, and where it lies."""

    schema_version: int = Field(default=1, ge=1, le=1, strict=True)
    file: str = Field(pattern=f"^{_NAME}$")
    bytes: int = Field(ge=1, le=LARGEST_FILE)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    address: str | None = None
    """https://..., http://..., or hf://datasets/OWNER/NAME[@REVISION]/FILE.zip; None for one that is not published."""


class GoneError(RunError):
    """A bundle that cannot be fetched."""


@dataclass(frozen=True)
class Fetched:
    """A bundle on this machine, and what bundle.json says of it; None for a file that was named by its path."""

    path: Path
    ref: BundleRef | None = None


def ref_of(bundle: Path, address: str | None = None) -> BundleRef:
    """What bundle.json says of a bundle. Raises DataError for an address that is none."""
    if address is not None:
        require_address("the address of the bundle", address)
    name = bundle.name if re.fullmatch(_NAME, bundle.name) else "bundle.zip"
    return BundleRef(file=name, bytes=bundle.stat().st_size, sha256=files.sha256(bundle), address=address)


def read_ref(path: Path) -> BundleRef:
    """A bundle.json. Raises DataError naming file and field."""
    found = tables.read_json_record(path, BundleRef)
    if found.address is not None:
        require_address(f"{path}, field 'address'", found.address)
    return found


def require_address(where: str, address: str) -> None:
    """Raise DataError, which begins with `where`, unless a bundle can be fetched from this address."""
    if not HUB.fullmatch(address):
        require_url(where, address)


def is_address(what: str) -> bool:
    """Whether a text is an address, and no path."""
    return re.match(r"[a-z][a-z0-9+.-]+://", what) is not None


@contextmanager
def fetched(what: str | Path) -> Iterator[Fetched]:
    """A bundle by its path, its address, its bundle.json, or the folder that holds that file.

    What is fetched is removed when the block ends. A bundle beside its bundle.json is taken before its address. Raises
    GoneError where it cannot be fetched, DataError where it is another one than bundle.json says.
    """
    with tempfile.TemporaryDirectory(prefix="unlearnbench-") as scratch:
        downloaded = Path(scratch) / "bundle.zip"
        if is_address(str(what)):
            require_address("the bundle", str(what))
            _download(str(what), downloaded, LARGEST_FILE)
            yield Fetched(downloaded, ref_of(downloaded, str(what)))
            return
        path = Path(what) / BUNDLE if Path(what).is_dir() else Path(what)
        if path.suffix != ".json":
            yield Fetched(path)
            return
        ref = read_ref(path)
        found = path.with_name(ref.file)
        if not found.is_file():
            if ref.address is None:
                raise GoneError(f"{path} names no address, and there is no {found}: the bundle is not published")
            found = downloaded
            _download(ref.address, found, ref.bytes)
        if (found.stat().st_size, files.sha256(found)) != (ref.bytes, ref.sha256):
            raise DataError(f"{ref.address or found} is not the bundle that {path} names (its SHA-256 differs)")
        yield Fetched(found, ref)


class _OnlyWeb(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to http(s) alone."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            fp.close()
            raise urllib.error.URLError(f"it leads to {newurl:.60}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(address: str, target: Path, most: int) -> None:
    """Download an address to a file. Raises GoneError if that fails, or if it is larger than `most`."""
    opener = urllib.request.build_opener(_OnlyWeb)
    request = urllib.request.Request(_url(address), headers={"User-Agent": "unlearnbench"})
    size = 0
    try:
        with opener.open(request, timeout=TIMEOUT) as source, target.open("wb") as sink:
            while part := source.read(_CHUNK):
                size += len(part)
                if size > most:
                    raise GoneError(f"{address} has more than the {most:,} bytes that its bundle has")
                sink.write(part)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the answer's connection
        raise GoneError(f"{address} cannot be fetched: {trouble(error)}") from error


def _url(address: str) -> str:
    """The web address of a file, on the Hub as $HF_ENDPOINT has it."""
    found = HUB.fullmatch(address)
    if found is None:
        return address
    home = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    name, revision, path = found.groups()
    return f"{home.rstrip('/')}/datasets/{name}/resolve/{quote(revision or 'main', safe='')}/{quote(path)}"
