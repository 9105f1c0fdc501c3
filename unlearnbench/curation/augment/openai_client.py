"""Chat completions from any server that speaks OpenAI's API: retried with backoff, never redirected.

The key is read from the environment (OPENAI_API_KEY) and sent in one header; it stands in no error and no file.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from unlearnbench.errors import DataError, RunError

KEY = "OPENAI_API_KEY"
LARGEST_BODY = 16 << 20
LONGEST_PAUSE = 60.0
_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


@dataclass(frozen=True)
class Reply:
    """One completion and what the server counted for it (0 where it does not say)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    ended: bool
    """Whether the model ended it by itself; a server that does not say so has not seen it."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is for the server that the user named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _AgainError(Exception):
    """What may be over in a moment; `pause` is what the server asks for, in seconds."""

    def __init__(self, what: str, pause: float | None = None) -> None:
        super().__init__(what)
        self.pause = pause


class Endpoint:
    """A server's chat completions. `url` is its base, such as http://localhost:8000/v1. Safe to share between threads.

    A request is given `attempts`; between them it waits 1, 2, 4 ... times `pause` seconds, or as long as the server
    says. `stopping` ends the waiting. Raises DataError where the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        attempts: int = 6,
        pause: float = 1.0,
        timeout: float = 600.0,
        stopping: threading.Event | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise DataError(f"{url!r} is no endpoint; give a URL such as http://localhost:8000/v1, without a password")
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self.url = f"{parts.scheme}://{parts.netloc}{path}/chat/completions"
        self.attempts, self.pause, self.timeout = attempts, pause, timeout
        self.stopping = stopping or threading.Event()
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._headers = {"Content-Type": "application/json"}
        self._key = os.environ.get(KEY, "").strip()
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise DataError(f"{KEY} holds a line break or another character that no key has; set it again")
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"

    def chat(self, model: str, turns: Sequence[str], *, temperature: float, max_tokens: int, seed: int) -> Reply:
        """One completion of a conversation: what the user and the model say by turns, the user first and last.

        Raises RunError, one sentence, where the server refuses, cannot be reached, or answers something else every
        time.
        """
        request = {
            "model": model,
            "messages": [
                {"role": role, "content": turn} for role, turn in zip(cycle(("user", "assistant")), turns, strict=False)
            ],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        body = json.dumps(request).encode()
        jitter = random.Random(seed)
        for attempt in range(self.attempts):
            try:
                return _reply(self._post(body))
            except _AgainError as problem:
                last = problem
            wait = last.pause if last.pause is not None else self.pause * 2**attempt * (0.5 + jitter.random())
            if attempt < self.attempts - 1 and self.stopping.wait(min(wait, LONGEST_PAUSE)):
                break
        raise RunError(
            f"{self.url} {last} ({self.attempts} attempts with model {model}); see to the server and run the same "
            "command again: what is finished is kept"
        )

    def _post(self, body: bytes) -> bytes:
        request = urllib.request.Request(self.url, body, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                found: bytes = answer.read(LARGEST_BODY + 1)
        except urllib.error.HTTPError as error:
            with error:
                said = _said(error.read(4096), self._key)
            if error.code in _AGAIN:
                raise _AgainError(f"answers {error.code}{said}", _pause(error.headers.get("Retry-After"))) from None
            raise RunError(f"{self.url} refuses with {error.code}{said}; {_remedy(error.code)}") from None
        except (OSError, http.client.HTTPException) as error:  # a reset, a time limit, an answer cut short
            reason = getattr(error, "reason", None) or error
            raise _AgainError(f"cannot be reached ({reason or type(error).__name__})") from None
        if len(found) > LARGEST_BODY:
            raise _AgainError(f"answers more than {LARGEST_BODY >> 20} MiB")
        return found


def _reply(body: bytes) -> Reply:
    """Raises _AgainError where the body is no chat completion: a proxy's page, say."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text = choice["message"].get("content")
        ended = choice.get("finish_reason") == "stop"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _AgainError("answers something that is no chat completion") from None
    if text is not None and not isinstance(text, str):
        raise _AgainError("answers a chat completion whose content is no text")
    usage = answer.get("usage")
    text = (text or "").encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    return Reply(text, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), ended)


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _said(body: bytes, key: str) -> str:
    """The server's own words, short, for a sentence; without the key, should it repeat that."""
    try:
        answer = json.loads(body)
        error = answer.get("error", answer)
        words = error.get("message", "") if isinstance(error, Mapping) else error
    except (ValueError, AttributeError, RecursionError):
        return ""
    said = " ".join(str(words).split())
    return f" ({(said.replace(key, '...') if key else said)[:200]})" if said else ""


def _pause(header: str | None) -> float | None:
    """Retry-After in seconds; None where it is absent or a date."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _remedy(code: int) -> str:
    if code in (401, 403):
        return f"set {KEY} to a key that it takes"
    if code == 404:
        return "give its base URL, which often ends in /v1, and a model that it serves"
    if 300 <= code < 400:
        return "it points elsewhere; give that address itself"
    return "see to that and run the same command again"
