"""`unlearnbench augment` against a real HTTP server that speaks OpenAI's API, with faults."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from paperlike import HEAD, TAIL
from tiny import config, items

from unlearnbench.cli.main import run
from unlearnbench.curation.augment import augment as module
from unlearnbench.curation.augment import prompts
from unlearnbench.curation.augment.augment import Bound, augment
from unlearnbench.curation.augment.openai_client import Endpoint
from unlearnbench.curation.augment.prompts import Kind, problems_in, shown
from unlearnbench.curation.text_overlap import Repeats
from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.harness.privileged import Privileged
from unlearnbench.io.tables import read_records
from unlearnbench.records import RelatedProblem
from unlearnbench.splits import Split, load_split, write_split
from unlearnbench.splits.source_dataset import INSTRUCTION, stripped
from unlearnbench.verifier import Verifier

Fault = Callable[[int], tuple[int, bytes, dict[str, str]] | None]


def _problem(question: str, answer: str) -> str:
    return f"<problem>\n{question}\n</problem>\n<solution>\nso it is\n</solution>\n<answer>\n{answer}\n</answer>"


def answered(prompt: str, model: str) -> str:
    """What the models say: the writer makes sums of the given one, one of them wrong, one a copy; the solver adds."""
    if model == "writer":
        found = re.search(r"sum (\d+) 5=", prompt)
        assert found, prompt
        number = int(found[1])
        texts = [_problem(f"what is {number} plus {k}?", str(number + k)) for k in (6, 7)]
        texts.append(_problem(f"what is {number} plus 8?", str(number)))  # wrong: the solver disagrees
        texts.append(_problem(f"Sum {number}  5=", f"\\boxed{{{number + 5}}}"))  # the item itself
        texts.append(_problem(f"What is {number} plus 6?", str(number + 6)))  # the first again
        return "Here they are.\n" + "\n\n".join(texts)
    found = re.search(r"(\d+)(?: plus|  )\s*(\d+)", prompt)
    assert found, prompt
    return f"It is \\boxed{{{int(found[1]) + int(found[2])}}}."


class Server(ThreadingHTTPServer):
    """Answers /v1/chat/completions; `fault` may answer a request, by its number from 1, in its place."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[dict[str, Any]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.fault: Fault = lambda _: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(request)
            self.server.headers_seen.append({name.title(): value for name, value in self.headers.items()})
            number = len(self.server.seen)
        fault = self.server.fault(number)
        if fault is not None:
            status, body, headers = fault
            if status == 0:  # hang up without a word
                self.close_connection = True
                return
            self._send(status, body, headers)
            return
        if self.path != "/v1/chat/completions":
            self._send(404, b'{"error": {"message": "no such page"}}', {})
            return
        text = answered(request["messages"][-1]["content"], request["model"])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
        self._send(200, json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode(), {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the tests' output."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def _sent(request: dict[str, Any]) -> str:
    """All that a request tells the model."""
    return "\n".join(message["content"] for message in request["messages"])


def _completion(text: str, finish: str = "stop") -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps({"choices": [{"message": {"content": text}, "finish_reason": finish}]}).encode(), {}


def _run(server: Server, split: Split, out: Path, **changes: Any) -> module.Summary:
    endpoint = Endpoint(server.url, timeout=20)
    settings: dict[str, Any] = {"workers": 2} | changes
    return augment(split, settings.pop("kind", "similar"), endpoint, "writer", "solver", out, **settings)


def test_kept_is_what_both_models_agree_on_and_copies_are_marked(server: Server, tiny: Split, tmp_path: Path) -> None:
    told: list[Bound] = []
    summary = _run(server, tiny, tmp_path / "out", announce=told.append)
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
    assert told[0].prompt_tokens > sum(map(len, map(_sent, server.seen)))


@pytest.mark.parametrize(
    ("head", "tail"), [(HEAD, TAIL), ("", f"\n{INSTRUCTION}")], ids=["Qwen's template", "a chat's instruction"]
)
def test_a_template_is_no_part_of_the_problem(server: Server, tmp_path: Path, head: str, tail: str) -> None:
    wrapped = [item.model_copy(update={"prompt": f"{head}{item.prompt}{tail}"}) for item in items()]
    split = write_split(tmp_path / "split", config(), wrapped)
    assert _run(server, split, tmp_path / "out").leaked == 2
    sent = [_sent(request) for request in server.seen]
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
    _run(server, tiny, tmp_path / "out", kind="sub_problems")
    sent = [_sent(request) for request in server.seen if request["model"] == "writer"]
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
    summary = _run(server, tiny, tmp_path / "out", workers=1)
    assert summary.agreed == 6
    assert len(server.seen) == 20


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ((500, b'{"error": {"message": "out of\\nmemory"}}', {}), r"answers 500 \(out of memory\) \(3 attempts"),
        ((200, b"[]", {}), "no chat completion"),
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
    _run(server, tiny, tmp_path / "out")
    with pytest.raises(RunError, match="another count"):
        _run(server, tiny, tmp_path / "out", count=2)
    with pytest.raises(SplitError, match="no items in boundary"):
        _run(server, tiny, tmp_path / "other", groups=("boundary",))
    file = next((tmp_path / "out" / "items").glob("*.jsonl"))
    file.write_text(file.read_text().rpartition('{"written"')[0])
    with pytest.raises(DataError, match="no finished item"):
        _run(server, tiny, tmp_path / "out")


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
            _run(server, tiny, tmp_path / "out", workers=1)
        other.shutdown()
        thread.join()
        assert other.seen == []


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://user:secret@localhost/v1", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(DataError, match="is no endpoint"):
        Endpoint(url)


def test_a_base_url_and_the_whole_address_are_the_same() -> None:
    expected = "https://host/v1/chat/completions"
    assert {Endpoint(f"https://host/v1{end}").url for end in ("", "/", "/chat/completions")} == {expected}


KINDS: tuple[Kind, ...] = ("similar", "sub_problems")


@pytest.mark.parametrize("kind", KINDS)
def test_both_models_are_shown_two_examples_in_the_form_that_is_asked_for(
    server: Server, tiny: Split, tmp_path: Path, kind: Kind
) -> None:
    _run(server, tiny, tmp_path / "out", kind=kind)
    for request in server.seen:
        messages = request["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * 2 + ["user"]
        for asked, replied in ((messages[0], messages[1]), (messages[2], messages[3])):
            if request["model"] == "writer":
                found = problems_in(replied["content"])
                assert len(found) == 2
                assert "2 new problems" in asked["content"] or "at most 2 smaller" in asked["content"]
                assert "<given_solution>" in asked["content"]
                assert {problem["question"] for problem in found} < set(shown(kind))
            else:
                assert re.search(r" \\boxed\{(9|25)\}$", replied["content"])


@pytest.mark.parametrize("name", ["micro", "smollm2-135m-arithmetic"])
def test_the_examples_are_no_items(name: str) -> None:
    split = load_split(name)
    known = Repeats([stripped(item.prompt) for item in split.items] + [stripped(twin.prompt) for twin in split.twins])
    assert not any(known.holds(question) for kind in KINDS for question in shown(kind))


def test_an_example_that_is_copied_is_no_new_problem(server: Server, tiny: Split, tmp_path: Path) -> None:
    copies = "\n".join(_problem(question, "1") for question in shown("similar"))
    server.fault = lambda _: _completion(copies)
    summary = _run(server, tiny, tmp_path / "out", count=50)
    assert (summary.generated, summary.items_unread, summary.requests) == (0, 2, 2)


def test_a_second_model_without_boxes_is_named(
    server: Server, tiny: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda _: _completion(_problem("What is 1 plus 1?", "2"))  # both write this; it has no box
    words = ("--split", str(tiny.path), "--endpoint", server.url, "--model", "writer", "--second-model", "solver")
    assert run(["augment", "--kind", "similar", *words, "--out", str(tmp_path / "out"), "--json"]) == 0
    told = capsys.readouterr()
    assert "solver boxed no answer to 2 of 2 problems" in told.err
    summary = json.loads(told.out)
    assert (summary["generated"], summary["compared"], summary["agreed"]) == (2, 0, 0)


def test_another_prompt_is_another_run(
    server: Server, tiny: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _run(server, tiny, out)
    before = len(server.seen)
    for place in ("_TASKS", "_GIVEN", "_FORM", "SOLVE", "SOLUTION", "_SHOWN"):
        with monkeypatch.context() as changed:
            old = getattr(prompts, place)
            new = f"{old} Please." if isinstance(old, str) else dict.fromkeys(KINDS, old["sub_problems"])
            changed.setattr(prompts, place, new)
            with pytest.raises(RunError, match=r"another prompt \('\w{12}' there, '\w{12}' here\)"):
                _run(server, tiny, out)
    file = out / "settings.json"
    old_settings = json.loads(file.read_text())
    del old_settings["prompt"]  # as it was before there were examples
    file.write_text(json.dumps(old_settings))
    with pytest.raises(RunError, match="another prompt"):
        _run(server, tiny, out)
    assert len(server.seen) == before


Q, S, A = "<problem>\nHow many?\n</problem>", "<solution>\n2 + 2 = 4. \\boxed{4}\n</solution>", "<answer>\n4\n</answer>"
OPEN = "<answer>\n4\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{Q}\n{S}\n{A}",
        f"Sure!\n{Q}{S}{A}\nHere it is.",
        f"{Q}\n{S}\n{OPEN}",  # the last tag is missing
        f"{Q}\n{S}\n{OPEN}\n{Q.replace('How many', 'How few')}",
        f"{Q}\n{S}",  # the answer is missing, but the solution ends in it
        f"{Q}\n{S.replace('boxed{4}', 'boxed{4}$.')}\n",
        f"{Q}\n<solution>\n2 + 2 = 4. \\boxed{{4}}\n{A}",
        f"<problem>\nHow many?\n{S}\n{A}",
        f"{Q}\n{S}\n<answer>\nThere are \\boxed{{4}}.\n</answer>",
        f"{Q.replace('How many', 'How few')}\n<solution>none</solution>\n{Q}\n{S}\n{A}",  # the first has no answer
    ],
)
def test_a_form_that_is_nearly_right_is_read_where_it_has_one_meaning(text: str) -> None:
    assert [(problem["question"], problem["answer"]) for problem in problems_in(text, ended=True)] == [
        ("How many?", "4")
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"{Q}\n{A}",
        f"{Q}\n{S.replace('solution>', 'answer>')}\n{S}",
        f"{Q}\n{S}\n<answer>\n4\n</solution>",
        f"{Q}\n{S}\n{A}\n{A.replace('4', '5')}",  # two answers
        f"{Q}\n{S}\nSo we find:\n{A}",
        f"{Q}\n<solution>\n2 + 2 = 4.\n</solution>",
        f"{Q}\n<solution>\n\\boxed{{4}} or \\boxed{{5}}\n</solution>",
        f"{Q}\n<solution>\n\\boxed{{4}}, no, 5\n</solution>",
        f"{Q}\n<solution>\n2 + 2 = 4. \\boxed{{4}}\n</answer>",
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    assert problems_in(text, ended=True) == []


@pytest.mark.parametrize("text", [f"{Q}\n{S}\n{OPEN}", f"{Q}\n{S}", f"{Q}\n{S}\n<ans"])
def test_what_was_cut_short_is_not_completed(server: Server, tiny: Split, tmp_path: Path, text: str) -> None:
    assert problems_in(text) == []
    server.fault = lambda _: _completion(text, "length")
    assert _run(server, tiny, tmp_path / "out").items_unread == 2
    server.fault = lambda _: _completion(text)
    assert _run(server, tiny, tmp_path / "ended").items_unread == (2 if text.endswith("<ans") else 0)


def test_text_of_another_form_holds_no_problems() -> None:
    good = _problem("How many?", "$\\boxed{\\frac{1}{2}}$")
    assert problems_in(good) == [{"question": "How many?", "solution": "so it is", "answer": "\\frac{1}{2}"}]
    assert problems_in(f"<think>{_problem('draft', '1')}</think>{good}") == problems_in(good)
    for text in ("", "no problems", _problem("", "1"), _problem("How many?", ""), _problem("x" * 9000, "1")):
        assert problems_in(text) == []
    assert problems_in(_problem("How many?", "because " * 100)) == []
