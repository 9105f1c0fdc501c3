"""Where bundles lie: beside bundle.json, on a web server, on the Hub; and what can be said where they are gone."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unlearnbench.cli.main import run
from unlearnbench.errors import DataError
from unlearnbench.io import files
from unlearnbench.leaderboard.bundles import address
from unlearnbench.leaderboard.bundles.address import GoneError, fetched, ref_of, require_address


class Server(ThreadingHTTPServer):
    """A web server whose answers a test sets: status, headers and body by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}

    @property
    def home(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    path = tmp_path / "away" / "mine.zip"
    files.write_bytes(path, b"PK" + bytes(range(256)) * 50)
    return path


def content(what: str | Path) -> bytes:
    with fetched(what) as found:
        return found.path.read_bytes()


def test_a_bundle_beside_its_bundle_json_is_taken(zipped: Path, tmp_path: Path) -> None:
    ref = ref_of(zipped, "https://nowhere.example/mine.zip")
    files.write_json(tmp_path / "entry" / "bundle.json", ref)
    shutil.copy(zipped, tmp_path / "entry" / "mine.zip")
    for what in (zipped, tmp_path / "entry", tmp_path / "entry" / "bundle.json"):
        assert content(what) == zipped.read_bytes()
    (tmp_path / "entry" / "mine.zip").write_bytes(b"PK another")
    with pytest.raises(DataError, match=r"is not the bundle that .*bundle\.json names \(its SHA-256 differs\)"):
        content(tmp_path / "entry")


def test_a_bundle_is_fetched_from_a_server_and_removed_again(server: Server, zipped: Path, tmp_path: Path) -> None:
    server.answers["/runs/mine.zip?x=1"] = (200, {}, zipped.read_bytes())
    where = f"{server.home}/runs/mine.zip?x=1"
    files.write_json(tmp_path / "entry" / "bundle.json", ref_of(zipped, where))
    for what in (where, tmp_path / "entry"):
        with fetched(what) as found:
            assert found.path.read_bytes() == zipped.read_bytes()
            assert found.ref is not None and found.ref.sha256 == files.sha256(zipped) and found.ref.address == where
        assert not found.path.exists()


@pytest.mark.parametrize("revision", ["", "@v1"])
def test_a_bundle_is_fetched_from_a_data_set_on_the_hub(
    server: Server, zipped: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.home)
    path = f"/datasets/me/runs/resolve/{revision.removeprefix('@') or 'main'}/micro/my%20run.zip"
    server.answers[path] = (302, {"Location": f"{server.home}/store/abc"}, b"")
    server.answers["/store/abc"] = (200, {}, zipped.read_bytes())
    assert content(f"hf://datasets/me/runs{revision}/micro/my run.zip") == zipped.read_bytes()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "the server answers 404"),
        ((500, {}, b""), "the server answers 500"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "cannot be fetched"),
        ((302, {"Location": "ftp://127.0.0.1/x"}, b""), "it leads to ftp:"),
        ((200, {"Content-Length": "999999"}, b"PK"), "SHA-256 differs"),
        ((200, {}, b"PK" * 100_000), "has more than the 12,802 bytes that its bundle has"),
        ((200, {}, b"PK another"), "SHA-256 differs"),
    ],
)
def test_what_a_server_cannot_give_is_one_sentence(
    server: Server, zipped: Path, tmp_path: Path, answer: tuple[int, dict[str, str], bytes] | None, words: str
) -> None:
    if answer is not None:
        server.answers["/mine.zip"] = answer
    files.write_json(tmp_path / "entry" / "bundle.json", ref_of(zipped, f"{server.home}/mine.zip"))
    with pytest.raises((GoneError, DataError), match=words) as raised:
        content(tmp_path / "entry")
    assert "\n" not in str(raised.value)


def test_a_server_that_is_not_there_and_one_that_says_nothing(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as gone:
        where = f"{gone.home}/mine.zip"
        monkeypatch.setattr(address, "TIMEOUT", 0.3)
        with pytest.raises(GoneError, match="no answer in time"):
            content(where)  # it listens, and nobody answers
    with pytest.raises(GoneError, match="cannot be fetched"):
        content(where)


@pytest.mark.parametrize(
    "where",
    ["file:///etc/passwd", "ftp://example.org/x.zip", "https://", "https://a b/x.zip", "hf://models/me/x/y.zip",
     "hf://datasets/me/runs/../x.zip", "javascript:alert(1)", "https://example.org/<script>"],
)  # fmt: skip
def test_what_is_no_address(where: str, zipped: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a plain address"):
        require_address("here", where)
    told = ref_of(zipped).model_dump(mode="json") | {"address": where}
    files.write_json(tmp_path / "bundle.json", told)
    with pytest.raises(DataError, match="field 'address'"):
        content(tmp_path / "bundle.json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "../../x.zip"),
        ("file", "/etc/passwd"),
        ("sha256", "0"),
        ("bytes", -1),
        ("bytes", 2**40),
        ("schema_version", 2),
    ],
)
def test_a_bundle_json_that_is_none(zipped: Path, tmp_path: Path, field: str, value: object) -> None:
    told = ref_of(zipped).model_dump(mode="json") | {field: value}
    (tmp_path / "bundle.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match=f"{field}"):
        content(tmp_path / "bundle.json")


def test_fetch_writes_a_bundle_that_was_checked(
    server: Server, zipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/mine.zip"] = (200, {}, zipped.read_bytes())
    files.write_json(tmp_path / "bundle.json", ref_of(zipped, f"{server.home}/mine.zip"))
    words = ["leaderboard", "fetch", str(tmp_path / "bundle.json"), "--out", str(tmp_path / "got.zip")]
    assert run(words) == 0 and (tmp_path / "got.zip").read_bytes() == zipped.read_bytes()
    server.answers["/mine.zip"] = (200, {}, b"PK another")
    (tmp_path / "got.zip").unlink()
    assert run(words) == 1 and not (tmp_path / "got.zip").exists()
    assert "SHA-256 differs" in capsys.readouterr().err
