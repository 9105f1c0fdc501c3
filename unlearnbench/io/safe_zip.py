"""A zip file from anybody, opened so that nothing in it can harm, and one of ours, written the same way every time.

What is not plainly a list of known files is refused with the reason: the directory is read by hand before `zipfile`
sees it, so that a file that two programs read differently is no archive here.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from unlearnbench.errors import DataError
from unlearnbench.io import files

LARGEST = 512 << 20
"""Bytes of an archive, and of all of its members together once unpacked."""
MOST_MEMBERS = 1000
MOST_RATIO = 200
"""Times that a member may grow when it is unpacked; below SMALL bytes nothing is asked."""
SMALL = 1 << 20

_DATE = (1980, 1, 1, 0, 0, 0)
_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s24x3H12x")

Limit = Callable[[str], int | None]


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Write members in the order of their names, stored, without times: equal members give equal bytes.

    Raises RunError if the disk is full.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, members[name])
    files.write_bytes(path, buffer.getvalue())


def read_archive(path: Path, limit: Limit) -> dict[str, bytes]:
    """The members of a zip file by name. `limit` tells the bytes that a member of this name may have, None: no such.

    Nothing is written anywhere. Raises DataError naming the file and the member: a path that leads elsewhere, a link,
    a name twice or unknown, a member or the whole too large, compressed too well, encrypted or damaged, and bytes
    that belong to no member.
    """
    try:
        known = Path(path).stat()
        if stat.S_ISDIR(known.st_mode):
            raise DataError(f"{path} is a folder; bundle a run with `unlearnbench submit`, and name the bundle")
        if not stat.S_ISREG(known.st_mode):  # reading a pipe would wait without end
            raise DataError(f"{path} is no plain file, and a bundle is one zip file")
        size = known.st_size
        if size > LARGEST:
            raise DataError(
                f"{path} has {size:,} bytes, more than the {LARGEST:,} that a bundle may have; make it anew"
            )
        with Path(path).open("rb") as file:
            start = _directory(path, file, size)
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
                _check_names(path, infos, limit)
                _check_sizes(path, infos, limit)
                _check_places(path, file, infos, start)
                return {info.filename: _content(path, archive, info) for info in infos}
    except OSError as error:
        raise files.unreadable(path, error) from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, UnicodeDecodeError, EOFError, struct.error) as error:
        raise DataError(f"{path} is no readable zip file ({error}); make it anew with `unlearnbench submit`") from error


def _directory(path: Path, file: BinaryIO, size: int) -> int:
    """Where the directory of members begins. The file must end with its one entry, and say so of few members.

    The directory is walked by hand: a second one (zip64 has its own), a wrong count and anything between it and the
    end are refused before `zipfile`, which believes some of them, reads a member.
    """
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size or end[:4] != b"PK\x05\x06":
        raise DataError(f"{path} is no zip file, or bytes follow its end; make it anew with `unlearnbench submit`")
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
        raise DataError(f"{path} lists {number:,} members in its directory and says {entries:,}; make it anew")
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
            raise DataError(f"{shown}: nothing of this name belongs into a bundle; leave it out")
        if info.flag_bits & ~0x0806 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{shown}: it is encrypted or packed in another way than zip's own; make the bundle anew")


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo], limit: Limit) -> None:
    for info in infos:
        most = limit(info.filename) or 0
        if info.file_size > most:
            raise DataError(
                f"{path}, member {info.filename!r}: {info.file_size:,} bytes unpacked, and at most {most:,} are taken"
            )
        if info.file_size > max(SMALL, MOST_RATIO * info.compress_size):
            raise DataError(
                f"{path}, member {info.filename!r}: it would grow {info.file_size // max(1, info.compress_size):,} "
                f"times when unpacked, and at most {MOST_RATIO} times is taken"
            )
    whole = sum(info.file_size for info in infos)
    if whole > LARGEST:
        raise DataError(f"{path} would unpack to {whole:,} bytes, and at most {LARGEST:,} are taken")


def _check_places(path: Path, file: BinaryIO, infos: list[zipfile.ZipInfo], start: int) -> None:
    """Members follow each other from the first byte to the directory: no gap can hide a second archive."""
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
    import zlib

    try:
        with archive.open(info) as member:
            data = member.read(info.file_size + 1)
    except (zlib.error, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}, member {info.filename!r} is damaged ({error}); make the bundle anew") from error
    if len(data) != info.file_size:
        raise DataError(f"{path}, member {info.filename!r} is not as long as the directory says; make the bundle anew")
    return data
