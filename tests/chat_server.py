"""A server that answers as two models do, and a run of `augment` on it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from unlearnbench.curation.augment import augment as module
from unlearnbench.curation.augment.augment import augment
from unlearnbench.curation.augment.openai_client import Endpoint
from unlearnbench.splits import Split

Fault = Callable[[int], tuple[int, bytes, dict[str, str]] | None]


def problem_text(question: str, answer: str) -> str:
    return f"<problem>\n{question}\n</problem>\n<solution>\nso it is\n</solution>\n<answer>\n{answer}\n</answer>"


def answered(prompt: str, model: str) -> str:
    """What the models say: the writer makes sums of the given one, one of them wrong, one a copy; the solver adds."""
    if model == "writer":
        found = re.search(r"sum (\d+) 5=", prompt)
        assert found, prompt
        number = int(found[1])
        texts = [problem_text(f"what is {number} plus {k}?", str(number + k)) for k in (6, 7)]
        texts.append(problem_text(f"what is {number} plus 8?", str(number)))  # wrong: the solver disagrees
        texts.append(problem_text(f"Sum {number}  5=", f"\\boxed{{{number + 5}}}"))  # the item itself
        texts.append(problem_text(f"What is {number} plus 6?", str(number + 6)))  # the first again
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


def sent_text(request: dict[str, Any]) -> str:
    """All that a request tells the model."""
    return "\n".join(message["content"] for message in request["messages"])


def completion_of(text: str, finish: str = "stop") -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps({"choices": [{"message": {"content": text}, "finish_reason": finish}]}).encode(), {}


def augment_on(server: Server, split: Split, out: Path, **changes: Any) -> module.Summary:
    endpoint = Endpoint(server.url, timeout=20)
    settings: dict[str, Any] = {"workers": 2} | changes
    return augment(split, settings.pop("kind", "similar"), endpoint, "writer", "solver", out, **settings)


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers until the block ends."""
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()
