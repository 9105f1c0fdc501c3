"""`doctor` on this machine with the Hub there, refusing and absent; `new-split` as curate reads it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from unlearnbench.cli.doctor import doctor
from unlearnbench.cli.new_split import new_split
from unlearnbench.errors import SplitError
from unlearnbench.records import PolicyRef, Pool, Protocol, Recipe, Samples, Sampling, SplitConfig
from unlearnbench.splits import load_split

COMMAND = [sys.executable, "-c", "from unlearnbench.cli import main; main()", "doctor", "--json"]


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str | None]]]:
    """A server that knows one token, and the Authorization headers it saw."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            known = seen[-1] == "Bearer good"
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def _doctor(**environment: str) -> dict[str, dict[str, str]]:
    import os

    told = {**os.environ, "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=told, check=True)
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_what_is_there_is_found_and_what_is_not_comes_with_its_remedy(
    hub: tuple[str, list[str | None]], tmp_path: Path
) -> None:
    import torch

    endpoint, seen = hub
    found = _doctor(HF_ENDPOINT=endpoint, HF_TOKEN="good")
    assert found["torch"]["found"] == torch.__version__
    assert "1162 items" in found["micro"]["found"]
    assert found["hub"]["state"] == "ok"
    assert seen == ["Bearer good"]
    assert {row["state"] for row in found.values()} <= {"ok", "missing", "warning"}
    assert _doctor(HF_ENDPOINT=endpoint, HF_TOKEN="bad")["hub"]["remedy"] == "hf auth login"
    nowhere = _doctor(HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))["hub"]
    assert "cannot be reached" in nowhere["found"]
    assert nowhere["state"] == "warning"


def test_the_table_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = CliRunner().invoke(doctor)
    assert told.exit_code == 0
    assert "hub: unset HF_HUB_OFFLINE" in told.output.splitlines()
    for name in ("python", "torch", "memory", "disk", "vllm"):
        assert name in told.output


def test_a_new_split_is_read_as_it_stands_and_names_every_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(new_split, ["mine"]).exit_code == 0
    split = load_split("mine")
    assert [item.answer for item in split.items] == ["42", "45"]
    written = yaml.safe_load((tmp_path / "mine/split.yaml").read_text())
    filled_in = {"label_version", "label_rule", "budget", "files"}
    assert set(written) == set(SplitConfig.model_fields) - filled_in
    for place, model in (
        ("recipe", Recipe),
        ("protocol", Protocol),
        ("pool", Pool),
    ):
        assert set(written[place]) == set(model.model_fields)
    assert set(written["protocol"]["samples"]) == set(Samples.model_fields)
    assert set(written["protocol"]["sampling"]) == set(Sampling.model_fields)
    assert set(written["base_policy"]) == set(PolicyRef.model_fields) - {"parameters"}
    again = CliRunner().invoke(new_split, ["mine"])
    assert isinstance(again.exception, SplitError)
    assert "already" in str(again.exception)
    assert isinstance(CliRunner().invoke(new_split, ["../x"]).exception, SplitError)
