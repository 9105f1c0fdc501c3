"""`augment` against a server: what is kept, faults of the endpoint, and keys that must not leak."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Server, augment_on, sent_text, serving
from paperlike import HEAD, TAIL
from tiny import config, items

from unlearnbench.cli.main import run
from unlearnbench.curation.augment.augment import Bound, augment
from unlearnbench.curation.augment.openai_client import Endpoint
from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.harness.privileged import Privileged
from unlearnbench.io.tables import read_records
from unlearnbench.records import RelatedProblem
from unlearnbench.splits import Split, write_split
from unlearnbench.splits.source_dataset import INSTRUCTION
from unlearnbench.verifier import Verifier


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as made:
        yield made


def test_kept_is_what_both_models_agree_on_and_copies_are_marked(server: Server, tiny: Split, tmp_path: Path) -> None:
    told: list[Bound] = []
    summary = augment_on(server, tiny, tmp_path / "out", announce=told.append)
    rows = read_records(tmp_path / "out" / "similar.parquet", RelatedProblem)
    unlearnable = [item for item in tiny.items if item.group == "unlearnable"]
    assert {row.item_id for row in rows} == {item.item_id for item in unlearnable}
    for item in unlearnable:
        number = int(item.prompt.split()[1])
        own = [row for row in rows if row.item_id == item.item_id]
        assert [(row.prompt, row.answer, row.leaked) for row in own] == [
            (f"what is {number} plus 6?", str(number + 6), False),
            (f"what is {number} plus 7?", str(number + 7), False),
            (f"Sum {number}  5=", str(number + 5), True),
        ]
        assert own[0].solution == "so it is"
    assert len({row.problem_id for row in rows}) == len(rows)
    assert (summary.items, summary.generated, summary.agreed, summary.leaked) == (2, 8, 6, 2)
    assert (summary.requests, summary.prompt_tokens, summary.completion_tokens) == (10, 100, 200)
    assert told[0].requests == 2 * (1 + 5) >= len(server.seen) == 10
    assert told[0].completion_tokens == 2 * 6 * 4096
    assert (summary.compared, summary.items_unread) == (8, 0)
    assert told[0].prompt_tokens > sum(map(len, map(sent_text, server.seen)))


@pytest.mark.parametrize(
    ("head", "tail"), [(HEAD, TAIL), ("", f"\n{INSTRUCTION}")], ids=["Qwen's template", "a chat's instruction"]
)
def test_a_template_is_no_part_of_the_problem(server: Server, tmp_path: Path, head: str, tail: str) -> None:
    wrapped = [item.model_copy(update={"prompt": f"{head}{item.prompt}{tail}"}) for item in items()]
    split = write_split(tmp_path / "split", config(), wrapped)
    assert augment_on(server, split, tmp_path / "out").leaked == 2
    sent = [sent_text(request) for request in server.seen]
    assert not any("<|im_start|>" in text or INSTRUCTION in text for text in sent)
    shutil.copy(tmp_path / "out" / "similar.parquet", split.path)
    privileged = Privileged(split, tmp_path)
    with Verifier() as verifier:
        given = [privileged.ask("similar", item.item_id, None, verifier) for item in split.items]
    for _, prompt in (problem for problems in given for problem in problems):
        assert (prompt[: len(head)], prompt[-len(tail) :]) == (head, tail)  # the policy is shown it as its item
        assert prompt.count(INSTRUCTION[:30]) == 1
    assert sum(map(len, given)) == 4


def test_no_twin_and_no_other_item_is_sent(server: Server, tiny: Split, tmp_path: Path) -> None:
    augment_on(server, tiny, tmp_path / "out", kind="sub_problems")
    sent = [sent_text(request) for request in server.seen if request["model"] == "writer"]
    assert len(sent) == 2
    assert all("Break it into steps" in text for text in sent)
    for text in sent:
        assert sum(item.prompt in text for item in tiny.items) == 1
        assert not any(twin.prompt in text for twin in tiny.twins)
    assert (tmp_path / "out" / "sub_problems.parquet").is_file()


PASSING = [
    (500, b"oops", {}),
    (429, b"{}", {"Retry-After": "0"}),
    (200, b"<html>", {}),
    (200, b'{"choices": []}', {}),
    (0, b"", {}),
]


@pytest.mark.parametrize("fault", PASSING)
def test_faults_that_pass_are_waited_for(
    server: Server, tiny: Split, tmp_path: Path, fault: tuple[int, bytes, dict[str, str]]
) -> None:
    server.fault = lambda number: fault if number % 2 else None
    summary = augment_on(server, tiny, tmp_path / "out", workers=1)
    assert summary.agreed == 6
    assert len(server.seen) == 20


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ((500, b'{"error": {"message": "out of\\nmemory"}}', {}), r"answers 500 \(out of memory\) \(3 attempts"),
        ((200, b"[]", {}), "not a chat completion"),
        ((401, b'{"error": {"message": "who?"}}', {}), r"refuses with 401 \(who\?\); set OPENAI_API_KEY"),
        ((404, b'{"detail": "Not Found"}', {}), "refuses with 404; give its base URL"),
        ((307, b"", {"Location": "http://127.0.0.1:1/v1"}), "refuses with 307; it points elsewhere"),
        ((0, b"", {}), "cannot be reached"),
    ],
)
def test_an_endpoint_that_fails_is_one_sentence_and_nothing_is_lost(
    server: Server, tiny: Split, tmp_path: Path, fault: tuple[int, bytes, dict[str, str]], says: str
) -> None:
    server.fault = lambda number: fault if number > 5 else None  # the first item takes five requests
    endpoint = Endpoint(server.url, attempts=3, timeout=20)
    with pytest.raises(RunError, match=says) as raised:
        augment(tiny, "similar", endpoint, "writer", "solver", tmp_path / "out", workers=1)
    assert "\n" not in str(raised.value)
    assert len(list((tmp_path / "out" / "items").glob("*.jsonl"))) == 1
    before = len(server.seen)
    server.fault = lambda _: None
    summary = augment(tiny, "similar", endpoint, "writer", "solver", tmp_path / "out", workers=1)
    assert summary.agreed == 6
    assert len(server.seen) == before + 5  # only what was missing


def test_a_model_that_writes_another_form_is_named(
    server: Server, tiny: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chatter = {"choices": [{"message": {"content": "Sure! Which problem?"}}]}
    server.fault = lambda _: (200, json.dumps(chatter).encode(), {})
    words = ("--split", str(tiny.path), "--endpoint", server.url, "--model", "writer", "--second-model", "solver")
    assert run(["augment", "--kind", "similar", *words, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "writer wrote nothing of its own in the form that was asked for to 2 of 2 items" in told.err
    assert "0 of 0 problems kept" in told.out
    assert all("Which problem?" in path.read_text() for path in (tmp_path / "out" / "items").iterdir())
    assert read_records(tmp_path / "out" / "similar.parquet", RelatedProblem) == ()


def test_a_folder_of_another_run_is_refused(server: Server, tiny: Split, tmp_path: Path) -> None:
    augment_on(server, tiny, tmp_path / "out")
    with pytest.raises(RunError, match="another count"):
        augment_on(server, tiny, tmp_path / "out", count=2)
    with pytest.raises(SplitError, match="no items in boundary"):
        augment_on(server, tiny, tmp_path / "other", groups=("boundary",))
    file = next((tmp_path / "out" / "items").glob("*.jsonl"))
    file.write_text(file.read_text().rpartition('{"written"')[0])
    with pytest.raises(DataError, match="not a finished item"):
        augment_on(server, tiny, tmp_path / "out")


def test_the_key_is_sent_and_written_nowhere(
    server: Server, tiny: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    names = ("--kind", "similar", "--split", str(tiny.path), "--endpoint", server.url, "--model", "writer")
    out = tmp_path / "out"
    assert run(["augment", *names, "--second-model", "solver", "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "6 of 8 problems kept for 2 of 2 items, 2 of them leaked" in told.out
    assert "2 items to do: at most 12 requests" in told.err
    assert {headers["Authorization"] for headers in server.headers_seen} == {"Bearer sk-secret"}
    assert not any(b"sk-secret" in path.read_bytes() for path in out.rglob("*") if path.is_file())
    monkeypatch.delenv("OPENAI_API_KEY")
    server.headers_seen.clear()
    assert run(["augment", *names, "--second-model", "solver", "--out", str(tmp_path / "keyless")]) == 0
    assert not any("Authorization" in headers for headers in server.headers_seen)


def test_a_server_that_repeats_the_key_does_not_get_it_printed(
    server: Server, tiny: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("--kind", "similar", "--split", str(tiny.path), "--endpoint", server.url, "--model", "writer")
    command = ["augment", *names, "--second-model", "solver", "--out", str(tmp_path / "out")]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server.fault = lambda _: (401, b'{"error": {"message": "Incorrect API key provided: sk-secret."}}', {})
    assert run(command) == 1
    told = capsys.readouterr()
    assert "refuses with 401 (Incorrect API key provided: ....); set OPENAI_API_KEY" in told.err
    for key in ("sk-secret\nmore", "sk-secret\u2026"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        assert run(command) == 1
        told = capsys.readouterr()
        assert "OPENAI_API_KEY holds a line break or another character that no key has" in told.err
        assert "secret" not in told.err
        assert len(told.err.strip().splitlines()) == 1


def test_a_key_follows_no_redirect(
    server: Server, tiny: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.fault = lambda _: (308, b"", {"Location": f"{other.url}/chat/completions"})
        with pytest.raises(RunError, match="refuses with 308; it points elsewhere"):
            augment_on(server, tiny, tmp_path / "out", workers=1)
        other.shutdown()
        thread.join()
        assert other.seen == []


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://user:secret@localhost/v1", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(DataError, match="is not an endpoint"):
        Endpoint(url)


def test_a_base_url_and_the_whole_address_are_the_same() -> None:
    expected = "https://host/v1/chat/completions"
    assert {Endpoint(f"https://host/v1{end}").url for end in ("", "/", "/chat/completions")} == {expected}
