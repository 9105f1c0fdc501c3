"""Bundles whose zip archive is damaged or made to mislead its reader: refused in one sentence before unpacking."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from unlearnbench.leaderboard.verification import verify_bundle

# --- the archive itself ---------------------------------------------------------------------------------------


def _zip(path: Path, members: list[tuple[str, bytes]], **attributes: Any) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            info = zipfile.ZipInfo(name)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.writestr(info, content)
    return path


def _why(path: Path) -> str:
    found = verify_bundle(path)
    assert not found.verified and [reason.check for reason in found.reasons] == ["archive"]
    return found.reasons[0].reason


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../result.json", "'..' leads out"),
        ("seeds/../../result.json", "'..' leads out"),
        ("/result.json", "must be relative"),
        ("C:/result.json", "must be relative"),
        ("seeds\\1\\config.json", "must be relative"),
        ("notes.txt", "a bundle has no member of this name"),
        ("method/setup.sh", "a bundle has no member of this name"),
        ("other/result.json", "a bundle has no member of this name"),
        ("seeds/01/config.json", "a bundle has no member of this name"),
    ],
)
def test_a_member_that_leads_elsewhere_or_is_unknown(tmp_path: Path, name: str, words: str) -> None:
    assert words in _why(_zip(tmp_path / "x.zip", [(name, b"{}")]))


def test_a_linked_member(tmp_path: Path) -> None:
    link = (stat.S_IFLNK | 0o777) << 16
    assert "it is a link" in _why(_zip(tmp_path / "x.zip", [("result.json", b"/etc/passwd")], external_attr=link))


def test_two_results_in_one_bundle(tmp_path: Path) -> None:
    for other in ("result.json", "Result.json"):
        assert "two of this name" in _why(_zip(tmp_path / "x.zip", [("result.json", b"{}"), (other, b"{}")]))


def test_two_archives_in_one_file(made_bundle: Path, tmp_path: Path) -> None:
    one = _zip(tmp_path / "one.zip", [("result.json", b"{}")]).read_bytes()
    (tmp_path / "before.zip").write_bytes(one + made_bundle.read_bytes())
    (tmp_path / "after.zip").write_bytes(made_bundle.read_bytes() + b"more")
    assert "belong to no member" in _why(tmp_path / "before.zip")
    assert "bytes follow its end" in _why(tmp_path / "after.zip")


def test_a_bomb_by_ratio(tmp_path: Path) -> None:
    packed = _zip(tmp_path / "x.zip", [("rollouts.parquet", bytes(60 << 20))], compress_type=zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 100_000
    assert "times when unpacked" in _why(packed)


def test_a_bomb_by_size(tmp_path: Path) -> None:
    assert "at most 1,048,576 are allowed" in _why(_zip(tmp_path / "x.zip", [("result.json", bytes(2 << 20))]))
    huge = tmp_path / "huge.zip"
    with huge.open("wb") as file:
        file.truncate(1 << 32)  # a hole: no disk is used
    assert "more than the 4,294,967,295" in _why(huge)


def test_a_directory_that_lies_about_a_members_size(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.zip", [("result.json", bytes(5000))], compress_type=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = (400).to_bytes(4, "little")
    path.write_bytes(content)
    assert "damaged" in _why(path) or "not a readable zip" in _why(path)


def test_too_many_members(tmp_path: Path) -> None:
    members = [(f"seeds/{number}/cost.json", b"") for number in range(1, 1003)]
    assert "1,002 members" in _why(_zip(tmp_path / "x.zip", members))


def _of_zip64(content: bytes, listed: int) -> bytes:
    """The archive with a second directory, of `listed` members, where a reader of zip64 looks for it."""
    start, count = int.from_bytes(content[-6:-2], "little"), int.from_bytes(content[-12:-10], "little")
    second = (b"PK\x01\x02" + bytes(24) + b"\1" + bytes(17) + b"a") * listed  # a name of one byte, nothing else
    body = content[:-22]
    end = b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, listed, listed, len(second), len(body))
    end += b"PK\x06\x07" + struct.pack("<LQL", 0, len(body) + len(second), 1)
    length = len(body) + len(second) + len(end) - start
    return body + second + end + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, count, count, length, start, 0)


@pytest.mark.parametrize("listed", [1, 2000])
def test_a_second_directory_is_found_before_it_is_read(
    made_bundle: Path, tmp_path: Path, listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.zip").write_bytes(_of_zip64(made_bundle.read_bytes(), listed))
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.namelist() == ["a"] * listed  # what `zipfile` believes
    monkeypatch.setattr(zipfile, "ZipFile", lambda file: pytest.fail("the directory was believed"))
    assert "in its directory and says" in _why(tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [(-14, b"\1\0\1\0", "in its directory and says 1"), (-2, b"\5\0", "belong to no member")],
)
def test_an_end_that_lies_about_the_directory(
    made_bundle: Path, tmp_path: Path, place: int, value: bytes, words: str
) -> None:
    content = bytearray(made_bundle.read_bytes())
    content[len(content) + place : len(content) + place + len(value)] = value
    (tmp_path / "x.zip").write_bytes(content)
    assert words in _why(tmp_path / "x.zip")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.zip")
    assert "not a regular file" in _why(tmp_path / "x.zip")


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    assert _why(tmp_path / "x.zip")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    assert "none.zip" in _why(tmp_path / "none.zip")
