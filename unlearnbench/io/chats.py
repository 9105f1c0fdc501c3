"""Chats as texts: what the assistant said last, what the user asked last, and prompts out of their chat templates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TURNS = (
    ("<|im_start|>user\n", ("<|im_end|>",)),  # ChatML: Qwen, SmolLM, OLMo
    ("<|start_header_id|>user<|end_header_id|>", ("<|eot_id|>",)),  # Llama 3
    ("<start_of_turn>user\n", ("<end_of_turn>",)),  # Gemma
    ("[INST]", ("[/INST]",)),  # Mistral, Llama 2
    ("<\uff5cUser\uff5c>", ("<\uff5cAssistant\uff5c>",)),  # DeepSeek
    ("<|user|>", ("<|end|>", "<|assistant|>", "</s>")),  # Phi, Tulu, Zephyr, GLM
    ("<|start|>user<|message|>", ("<|end|>",)),  # gpt-oss
    ("<|USER_TOKEN|>", ("<|END_OF_TURN_TOKEN|>",)),  # Command R
)
"""What chat templates of common models put before and after a user's turn."""
_SYSTEM_END = "<</SYS>>"  # Llama 2 puts the system's message into the user's turn
_BEFORE_ANSWER = ("assistant", "model", "Assistant:", "Answer:", "Solution:", "A:")
_BEFORE_QUESTION = ("user\n", "User:", "Human:", "Question:", "Problem:", "Q:")
"""What is left of templates where special tokens were not decoded, and what plain-text templates have."""


def text_of(content: object) -> str | None:
    """A message's content as text: a string, or the text parts of a list; None where it is neither."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type", "text") == "text"]
        return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return None


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages, each with a role."""
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and all(map(_is_message, value))


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and "role" in value


def last_turn(chat: Sequence[Mapping[str, Any]], role: str) -> str | None:
    """The text of the last message of a role; empty where it says nothing, None where there is no such message."""
    said = [message.get("content") for message in chat if message.get("role", role) == role]
    return (text_of(said[-1]) or "") if said else None


def asked(prompt: object) -> str | None:
    """What the user asked last in a chat, given as a list or as JSON; a plain prompt is returned unchanged."""
    if isinstance(prompt, str):
        chat = _from_json(prompt)
        return prompt if chat is None else last_turn(chat, "user")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        return asked(prompt[0])
    return last_turn(prompt, "user") if is_chat(prompt) else None  # type: ignore[arg-type]


def _from_json(text: str) -> Sequence[Mapping[str, Any]] | None:
    if not text.lstrip().startswith(("[", '"')) or '"role"' not in text.replace("\\", ""):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, str):  # JSON of a string that is JSON
        return _from_json(found)
    return found if is_chat(found) else None


def without_template(prompt: str) -> Iterator[str]:
    """What a text prompt may have been before a template: itself, and the user's last turn by each template."""
    yield prompt
    for before, after in _TURNS:
        _, found, turn = prompt.rpartition(before)
        if found:
            ends = [turn.find(mark) for mark in after if mark in turn]
            turn = turn[: min(ends)] if ends else turn
            yield turn.rpartition(_SYSTEM_END)[2]
    body = prompt.rstrip().removesuffix("<think>").rstrip()
    for answer in _BEFORE_ANSWER:
        if body.endswith(answer):
            asked_first = body.removesuffix(answer)
            for question in _BEFORE_QUESTION:
                _, found, turn = asked_first.rpartition(question)
                if found:
                    yield turn
