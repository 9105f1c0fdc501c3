"""Files from the Hub: fetched, or one sentence that says why not."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unlearnbench.errors import RunError
from unlearnbench.io.hub import hub_errors

HUB = """
import json, sys
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.curation.download import source_file
from unlearnbench.splits.manifest import SourceData

told = {}
for name in ("data", "gated", "secret", "absent", "closed", "down", "short"):
    given = {"file": "a/train.parquet", "licence": "x", "form": "simplerl", "numbering": "n"}
    source = SourceData(repository=f"nobody/{name}", **given)
    try:
        path, revision = source_file(source, None)
        told[name] = [path.read_text(), revision]
    except UnlearnBenchError as error:
        told[name] = str(error)
print(json.dumps(told))
"""


class Hub(SimpleHTTPRequestHandler):
    """As much of the Hub's interface as fetching one file needs, and its ways to refuse."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        status, code, data = 200, "", b"rows"
        if "/gated/" in self.path:
            status, code, data = 403, "GatedRepo", b""
        elif "/secret/" in self.path:
            status, code, data = 401, "RepoNotFound", b""
        elif "/absent/" in self.path:
            status, code, data = 404, "EntryNotFound", b""
        elif "/closed/" in self.path:
            status, data = 403, b""
        elif "/down/" in self.path:
            status, data = 500, b""
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("ETag", '"cut"' if "/short/" in self.path else '"abc"')
        self.send_header("X-Repo-Commit", "f" * 40)
        self.send_header("Content-Length", str(len(data) + ("/short/" in self.path)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_hub_gives_a_file_or_a_reason(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", HUB], env=kept | settings, capture_output=True, text=True, check=True, timeout=200
        )
    finally:
        server.shutdown()
        server.server_close()
    told = json.loads(done.stdout)
    assert done.stderr == ""
    assert told["data"] == ["rows", "f" * 40]
    assert "the repository is gated; accept its terms on its page and log in" in told["gated"]
    assert "(401): the token is missing, wrong" in told["secret"]
    assert "no such repository or file (404); copy a/train.parquet by hand" in told["absent"]
    assert "the Hub refuses it (403)" in told["closed"]
    assert "the Hub answers 500; copy a/train.parquet by hand" in told["down"]
    assert "the connection failed" in told["short"] and "fix the network connection, or copy" in told["short"]
    assert not any("\n" in str(words) for words in told.values())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "fetching: no space left on the disk; free some"),
        (ConnectionError("no route"), "fetching: the Hub cannot be reached; fix the network connection, or walk"),
    ],
)
def test_what_happens_on_the_way(error: Exception, words: str) -> None:
    with pytest.raises(RunError, match=words), hub_errors("fetching", "walk"):
        raise error
