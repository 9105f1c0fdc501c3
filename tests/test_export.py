"""Splits for others: files that trainers read, a folder laid out for the Hub, and its upload to a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tiny import CANARIES, config, items, make

from unlearnbench.adapters.export import FORMATS, export
from unlearnbench.cli.export import export as command
from unlearnbench.curation.publish import export_splits
from unlearnbench.errors import SplitError
from unlearnbench.splits import Split, cards, load_split, write_split
from unlearnbench.splits import split as split_module

HIDDEN = {"group", "family", "cause", "certified", "thin"}


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    table: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return table


# --- for trainers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["trl", "jsonl"])
def test_plain_rows_hold_the_pool_and_no_label(tiny: Split, tmp_path: Path, format: Any) -> None:
    found = rows(export(tiny, format, tmp_path))
    assert [row["item_id"] for row in found] == [item.item_id for item in tiny.items]
    assert [(row["prompt"], row["answer"]) for row in found] == [(item.prompt, item.answer) for item in tiny.items]
    assert not HIDDEN & found[0].keys()


def test_verl_rows_have_its_columns(tiny: Split, tmp_path: Path) -> None:
    path = export(tiny, "verl", tmp_path)
    assert path == tmp_path / "train.parquet"
    first, item = rows(path)[0], tiny.items[0]
    assert first == {
        "data_source": "unlearnbench/tiny",
        "prompt": [{"role": "user", "content": item.prompt}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": item.answer},
        "extra_info": {"index": 0, "item_id": item.item_id, "split": "train"},
    }
    assert [row["extra_info"]["index"] for row in rows(path)] == list(range(len(tiny.items)))


def test_one_group_and_the_canaries(tiny: Split, tmp_path: Path) -> None:
    hard = rows(export(tiny, "verl", tmp_path, part="unlearnable"))
    assert [row["extra_info"]["item_id"] for row in hard] == list(tiny.ids("unlearnable"))
    assert {row["extra_info"]["split"] for row in hard} == {"unlearnable"}
    mixed = rows(export(tiny, "jsonl", tmp_path, canaries=True))
    names = [row["item_id"] for row in mixed]
    assert names == sorted(names)
    assert set(names) - {item.item_id for item in tiny.items} == {CANARIES[0].item_id}
    with pytest.raises(SplitError, match="no items in boundary; it has train, easy, "):
        export(tiny, "trl", tmp_path, part="boundary")
    with pytest.raises(SplitError, match="no part 'hard'"):
        export(tiny, "trl", tmp_path, part="hard")


@pytest.mark.parametrize("format", FORMATS)
def test_twins_that_a_score_needs(tiny: Split, tmp_path: Path, format: Any) -> None:
    written = rows(export(tiny, format, tmp_path, part="twins"))
    names = [row["extra_info"]["item_id"] if format == "verl" else row["item_id"] for row in written]
    assert names == [problem[0] for problem in tiny.problems("twin")]


def test_a_chat_policy_gets_chats(tmp_path: Path) -> None:
    split = write_split(tmp_path / "chat", config(prompt_format="chat"), items())
    for each in FORMATS:
        prompt = rows(export(split, each, tmp_path / each))[0]["prompt"]
        assert prompt == [{"role": "user", "content": split.items[0].prompt}]


@pytest.mark.parametrize("format", ["trl", "verl"])
def test_load_dataset_reads_the_folder(tiny: Split, tmp_path: Path, format: Any) -> None:
    from datasets import load_dataset

    export(tiny, format, tmp_path / "files")
    loaded = load_dataset(str(tmp_path / "files"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == len(tiny.items)
    assert "prompt" in loaded.column_names


def test_export_command(tiny: Split, tmp_path: Path) -> None:
    arguments = ["--split", str(tiny.path), "--out", str(tmp_path / "o")]
    run = CliRunner().invoke(command, [*arguments, "--format", "trl"])
    assert run.exit_code == 0
    assert run.stdout.strip() == str(tmp_path / "o" / "train.parquet")
    assert run.stderr == ""
    run = CliRunner().invoke(command, [*arguments, "--format", "jsonl", "--part", "easy"])
    assert "track `labels`" in run.stderr
    assert CliRunner().invoke(command, [*arguments, "--format", "csv"]).exit_code == 2


# --- for the Hub ----------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shelf"
    make(folder / "tiny")
    (folder / "README.md").write_text("---\npretty_name: old\n---\n# The card\n")
    monkeypatch.setattr(split_module, "SHELVES", (folder,))
    monkeypatch.setattr(cards, "SHELVES", (folder,))
    return folder


def test_the_folder_for_the_hub(shelf: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    out = tmp_path / "export"
    assert export_splits(out) == ["tiny"]
    assert Split(out / "tiny").hash == load_split("tiny").hash
    assert not (out / "tiny" / "policy" / ".cache").exists()
    card = (out / "README.md").read_text()
    assert "config_name: tiny" in card and card.endswith("# The card\n")
    loaded = load_dataset(str(out), "tiny", split="easy", cache_dir=str(tmp_path / "cache"))
    assert loaded["item_id"] == list(load_split("tiny").ids("easy"))
    with pytest.raises(SplitError, match="export is not empty"):
        export_splits(out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_split_without_texts_is_not_published(shelf: Path, tmp_path: Path) -> None:
    (shelf / "other").mkdir()
    text = (shelf / "tiny" / "split.yaml").read_text().replace("name: tiny", "name: other")
    (shelf / "other" / "split.yaml").write_text(text)
    source = {"repository": "a/b", "file": "c.parquet", "licence": "x", "form": "simplerl", "numbering": "n"}
    (shelf / "other" / "released.json").write_text(json.dumps({"paper": "p", "source": source}))
    assert export_splits(tmp_path / "all") == ["tiny"]
    assert "other" not in (tmp_path / "all" / "README.md").read_text()
    with pytest.raises(SplitError, match=r"other is not built.*splits build other"):
        export_splits(tmp_path / "named", ["other"])
    assert not (tmp_path / "named").exists()


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's interface as an upload of small files needs; `good` is the only token that may write."""

    files: dict[str, bytes] = {}

    def do_POST(self) -> None:
        import base64

        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != "Bearer good":
            return self._answer(401, {"error": "Invalid credentials"})
        if self.path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            told = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
            return self._answer(200, {"files": told})
        if "/commit/" in self.path:
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            return self._answer(
                200, {"commitUrl": f"{self._repository()}/commit/0123", "commitOid": "0" * 40, "success": True}
            )
        told = {"url": self._repository(), "name": "me/splits", "errors": [], "warnings": []}
        return self._answer(200, told)

    def _repository(self) -> str:
        return f"http://{self.headers['Host']}/datasets/me/splits"

    def do_GET(self) -> None:
        self._answer(200, {"id": "me/splits", "sha": "0" * 40, "siblings": [], "tags": []})

    def _answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.files.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


PUSH = """
import sys
from pathlib import Path
from unlearnbench.splits import cards, split
split.SHELVES = cards.SHELVES = (Path(sys.argv[1]),)
from unlearnbench.cli.main import run
sys.exit(run(["splits", "push", "me/splits"]))
"""


def push(shelf: Path, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`splits push` in a process of its own: the Hub's library reads its settings when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = kept | {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
    command = [sys.executable, "-c", PUSH, str(shelf)]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=200)


def test_push_uploads_the_folder(shelf: Path, tmp_path: Path, hub: str) -> None:
    done = push(shelf, tmp_path, HF_ENDPOINT=hub, HF_TOKEN="good")
    assert (done.returncode, done.stdout.strip()) == (0, f"{hub}/datasets/me/splits/commit/0123"), done.stderr
    assert Hub.files["tiny/items.parquet"] == (shelf / "tiny" / "items.parquet").read_bytes()
    assert b"config_name: tiny" in Hub.files["README.md"]


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ({"HF_TOKEN": "bad"}, "cannot push to me/splits: the Hub refuses it (401)"),
        ({}, "there is no token to upload with; run `hf auth login`, or set HF_TOKEN"),
    ],
)
def test_a_push_that_fails_says_why(shelf: Path, tmp_path: Path, hub: str, token: dict[str, str], told: str) -> None:
    done = push(shelf, tmp_path, HF_ENDPOINT=hub, **token)
    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert Hub.files == {}
