"""Chat completions from any server that speaks OpenAI's API: retried with backoff, never redirected.

The key is read from the environment (OPENAI_API_KEY) and sent in one header; it stands in no error and no file.
"""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from unlearnbench.errors import DataError, RunError

try:
    import openai
except ImportError as error:
    raise RunError('this needs the client of OpenAI\'s API: pip install "unlearnbench[openai]"') from error

KEY = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Reply:
    """One completion and what the server counted for it (0 where it does not say)."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    ended: bool
    """Whether the model ended it by itself, as far as the server says."""


class Endpoint:
    """A server's chat completions. `url` is its base, such as http://localhost:8000/v1. Safe to share between threads.

    A request is given `attempts`, further apart each time, or as the server says. Raises DataError where the URL is
    none.
    """

    def __init__(self, url: str, *, attempts: int = 6, timeout: float = 600.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise DataError(f"{url!r} is not an endpoint; give a URL such as http://localhost:8000/v1, no password")
        base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/chat/completions')}"
        self.url, self.attempts = f"{base}/chat/completions", attempts
        self._key = os.environ.get(KEY, "").strip()
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise DataError(f"{KEY} holds a line break or another character that no key has; set it again")
        self._client = openai.OpenAI(
            base_url=base,
            api_key=self._key or "none",
            max_retries=attempts - 1,
            timeout=timeout,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),  # a key is for the server that was named
        )

    def chat(self, model: str, turns: Sequence[str], *, temperature: float, max_tokens: int, seed: int) -> Reply:
        """One completion of a conversation: what the user and the model say by turns, the user first and last.

        Raises RunError, one sentence, where the server refuses, cannot be reached, or answers something else every
        time.
        """
        messages: Any = [
            {"role": role, "content": turn} for role, turn in zip(cycle(("user", "assistant")), turns, strict=False)
        ]
        words: dict[str, Any] = {"model": model, "temperature": temperature, "max_tokens": max_tokens, "seed": seed}
        if not self._key:
            words["extra_headers"] = {"Authorization": openai.Omit()}
        try:
            for _ in range(self.attempts):
                answer = self._client.chat.completions.with_raw_response.create(messages=messages, **words)
                if (found := _reply(answer.text)) is not None:
                    return found
            last = "answers something that is not a chat completion"
        except openai.APIStatusError as error:
            code, said = error.status_code, _said(error.body, self._key)
            if code < 500 and code not in (408, 409, 429):
                raise RunError(f"{self.url} refuses with {code}{said}; {_remedy(code)}") from None
            last = f"answers {code}{said}"
        except openai.APIConnectionError as error:  # a reset, a time limit, an answer cut short
            last = f"cannot be reached ({error.__cause__ or error})"
        raise RunError(
            f"{self.url} {last} ({self.attempts} attempts with model {model}); see to the server and run the same "
            "command again: what is finished is kept"
        )


def _reply(body: str) -> Reply | None:
    """None where the body is not a chat completion: a proxy's page, say."""
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        text = choice["message"].get("content")
        ended = choice.get("finish_reason") == "stop"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
    if text is not None and not isinstance(text, str):
        return None
    usage = answer.get("usage")
    text = (text or "").encode("utf-8", "replace").decode()  # half a surrogate pair is not text
    return Reply(text, _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), ended)


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _said(body: object, key: str) -> str:
    """The server's own words, short, for a sentence; without the key, should it repeat that."""
    words = body.get("message", "") if isinstance(body, Mapping) else body
    said = " ".join(str(words or "").split())
    return f" ({(said.replace(key, '...') if key else said)[:200]})" if said else ""


def _remedy(code: int) -> str:
    if code in (401, 403):
        return f"set {KEY} to a key that it takes"
    if code == 404:
        return "give its base URL, which often ends in /v1, and a model that it serves"
    if 300 <= code < 400:
        return "it points elsewhere; give that address itself"
    return "see to that and run the same command again"
