"""Zip files: reading one from an untrusted source safely, and writing one reproducibly.

Anything but a plain list of known files is refused with the reason. The directory is parsed here before `zipfile` sees
it, so that a file that two programs would read differently is refused.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files

LARGEST = 512 << 20
"""Bytes of all members together that are held in memory once unpacked."""
LARGEST_FILE = (1 << 32) - 1
"""Bytes of an archive: a zip file without its 64-bit extension can be no larger."""
MOST_MEMBERS = 1000
MOST_RATIO = 200
"""Times that a member may grow when it is unpacked; below SMALL bytes any ratio is accepted."""
SMALL = 1 << 20
_CHUNK = 1 << 20

_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(NotImplementedError, RuntimeError, UnicodeDecodeError),
)
_DATE = (1980, 1, 1, 0, 0, 0)
_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s24x3H12x")

Limit = Callable[[str], int | None]


@dataclass(frozen=True)
class Archive:
    """An archive that was opened: the members that were read, and the sizes of those that stay in the file."""

    path: Path
    members: Mapping[str, bytes]
    large: Mapping[str, int]

    def copy(self, name: str, target: Path) -> str:
        """Write a large member to the file `target`; returns the SHA-256 of what was written.

        Raises DataError where the file on the disk is no longer what was opened, RunError if the disk is full.
        """
        digest, size = hashlib.sha256(), 0
        with _reading(self.path), files.atomic(target) as sink, zipfile.ZipFile(self.path) as archive:
            if name not in archive.namelist():
                raise DataError(f"{self.path} changed while it was read; run the same command again")
            with archive.open(name) as member:
                while part := member.read(min(_CHUNK, self.large[name] + 1 - size)):
                    digest.update(part)
                    size += len(part)
                    if size > self.large[name]:
                        break
                    sink.write(part)
            if size != self.large[name]:
                raise DataError(
                    f"{self.path}, member {name!r} is not as long as the directory says; create the bundle again"
                )
        return digest.hexdigest()


def write_archive(path: Path, members: Mapping[str, bytes | Path]) -> None:
    """Write members (bytes, or the file that holds them) in the order of their names, stored, without times.

    Equal members give equal bytes. Raises RunError if the disk is full, DataError if a file cannot be read.
    """
    size = sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in members.values())
    if size > LARGEST_FILE - MOST_MEMBERS * 1024:
        raise RunError(f"{path} would have {size:,} bytes, and a bundle has at most {LARGEST_FILE:,}")
    with files.atomic(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            content = members[name]
            if isinstance(content, bytes):
                archive.writestr(info, content)
                continue
            info.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(info, "w") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)


def read_archive(path: Path, limit: Limit, large: Callable[[str], bool] = lambda name: False) -> Archive:
    """Open a zip file. `limit` gives the bytes that a member of this name may have, or None where there may be none.

    Members for whose name `large` is true are checked and left in the file; all others are read. Nothing is written.
    Raises DataError naming the file and the member: a path that leads elsewhere, a link, a name twice or unknown, a
    member or the whole too large, compressed too well, encrypted or damaged, and bytes that belong to no member.
    """
    path = Path(path)
    with _reading(path):
        known = path.stat()
        if stat.S_ISDIR(known.st_mode):
            raise DataError(f"{path} is a folder; bundle a run with `unlearnbench submit`, and name the bundle")
        if not stat.S_ISREG(known.st_mode):  # reading a pipe would wait without end
            raise DataError(f"{path} is not a regular file, and a bundle is one zip file")
        if known.st_size > LARGEST_FILE:
            raise DataError(
                f"{path} has {known.st_size:,} bytes, more than the {LARGEST_FILE:,} that a bundle may have"
            )
        with path.open("rb") as file:
            start = _directory(path, file, known.st_size)
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
                _check_names(path, infos, limit)
                _check_sizes(path, infos, limit, large)
                _check_places(path, file, infos, start)
                read = [info for info in infos if not large(info.filename)]
                return Archive(
                    path,
                    {info.filename: _content(path, archive, info) for info in read},
                    {info.filename: info.file_size for info in infos if large(info.filename)},
                )


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what is raised while a zip file is read into a DataError."""
    try:
        yield
    except OSError as error:
        raise files.unreadable(path, error) from error
    except _BROKEN as error:
        raise DataError(
            f"{path} is not a readable zip file ({error}); create it again with `unlearnbench submit`"
        ) from error


def _directory(path: Path, file: BinaryIO, size: int) -> int:
    """Offset of the directory of members. The file must end with the one end record, which names few members.

    The directory is walked here: a second one (zip64 has its own), a wrong count, and bytes between it and the end
    record are refused before `zipfile`, which accepts some of them, reads a member.
    """
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or end[:4] != b"PK\x05\x06":
        raise DataError(f"{path} is not a zip file, or bytes follow its end; run `unlearnbench submit` again")
    _, disk, first, here, entries, length, start, comment = _END.unpack(end)
    if entries > MOST_MEMBERS or length > MOST_MEMBERS * 1024:
        raise DataError(f"{path} lists {entries:,} members, and a bundle has at most {MOST_MEMBERS}")
    if disk or first or comment or here != entries or start + length + _END.size != size:
        raise DataError(f"{path} holds bytes that belong to no member, as two archives in one file would")
    file.seek(start)
    listed, place, number = file.read(length), 0, 0
    while listed[place : place + 4] == b"PK\x01\x02" and place + _CENTRAL.size <= length:
        place += _CENTRAL.size + sum(_CENTRAL.unpack_from(listed, place)[1:])
        number += 1
    if number != entries or place != length:
        raise DataError(f"{path} lists {number:,} members in its directory and says {entries:,}; create it again")
    return int(start)


def _check_names(path: Path, infos: list[zipfile.ZipInfo], limit: Limit) -> None:
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        shown = f"{path}, member {name!r:.200}"
        parts = name.replace("\\", "/").split("/")
        if info.orig_filename != name or "\\" in name or "\0" in name or name.startswith("/") or ":" in parts[0]:
            raise DataError(f"{shown}: a member's path must be relative, with forward slashes; leave it out")
        if ".." in parts:
            raise DataError(f"{shown}: '..' leads out of the bundle; leave it out")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise DataError(f"{shown}: it is a link or another special file, and a bundle holds plain files only")
        if name.casefold() in seen:
            raise DataError(f"{shown}: there are two of this name in one bundle; leave one out")
        seen.add(name.casefold())
        if limit(name) is None:
            raise DataError(f"{shown}: a bundle has no member of this name; leave it out")
        if info.flag_bits & ~0x0806 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{shown}: it is encrypted or compressed by another method than deflate; create the bundle again"
            )


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo], limit: Limit, large: Callable[[str], bool]) -> None:
    for info in infos:
        most = limit(info.filename) or 0
        if info.file_size > most:
            raise DataError(
                f"{path}, member {info.filename!r}: {info.file_size:,} bytes unpacked; at most {most:,} are allowed"
            )
        if info.file_size > max(SMALL, MOST_RATIO * info.compress_size):
            raise DataError(
                f"{path}, member {info.filename!r}: it would grow {info.file_size // max(1, info.compress_size):,} "
                f"times when unpacked; at most {MOST_RATIO} times is allowed"
            )
    whole = sum(info.file_size for info in infos if not large(info.filename))
    if whole > LARGEST:
        raise DataError(f"{path} would unpack to {whole:,} bytes beside its weights; at most {LARGEST:,} are allowed")


def _check_places(path: Path, file: BinaryIO, infos: list[zipfile.ZipInfo], start: int) -> None:
    """Members follow each other from the first byte to the directory, so that no gap can hide a second archive."""
    expected = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        file.seek(info.header_offset)
        header = file.read(_LOCAL.size)
        if info.header_offset != expected or len(header) < _LOCAL.size:
            break
        *_, name, extra = _LOCAL.unpack(header)
        expected += _LOCAL.size + name + extra + info.compress_size
    if expected != start:
        raise DataError(f"{path} holds bytes that belong to no member, as two archives in one file would")


def _content(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as member:
            data = member.read(info.file_size + 1)
    except (zlib.error, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}, member {info.filename!r} is damaged ({error}); create the bundle again") from error
    if len(data) != info.file_size:
        raise DataError(
            f"{path}, member {info.filename!r} is not as long as the directory says; create the bundle again"
        )
    return data
