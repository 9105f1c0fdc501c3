"""Brackets in text: where they close, the parts between separators outside them, pairs around the whole text."""

from __future__ import annotations

import re

from unlearnbench.verifier.math.nodes import UnreadableError
from unlearnbench.verifier.parsing.normalize import TEXT_GROUP

MOST_PARTS = 200
"""Of an answer; the comparison of sets grows with their square."""

_ANSWER_IS = re.compile(
    r"(?:\\text\s?\{\s*)?(?:(?:so|thus|hence|therefore),? )?(?:the )?(?:final |correct )?"
    r"(?:answer|option|choice)(?: is|:)[: ]*\}?\s*",
    re.I,
)
_ENVIRONMENT = re.compile(r"\\(begin|end) ?\{[a-z]+\*?\}")
_BARE = re.compile(
    r"(?:[^\s${*\"\\A-Za-z]|[A-Za-z](?![A-Za-z])|\\(?!text|math|mbox|rm|bf))(?:.*[^\s.,;$*\"])?", re.DOTALL
)
"""Text that nothing surrounds, recognised in one step, since nearly every part of an answer is of this kind."""
_OPENING, _CLOSING = "([{", ")]}"


def closes(text: str, start: int) -> int:
    """Where the bracket at `start` closes, by depth alone (intervals mix brackets), or -1."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in _OPENING:
            depth += 1
        elif text[at] in _CLOSING:
            depth -= 1
            if depth == 0:
                return at
    return -1


def split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The parts between separators that stand outside all brackets and environments, and the separators."""
    ends: list[tuple[int, int]] = []
    places = {found.start(): found.end() for found in separator.finditer(text)}
    if not places:
        return [text], []
    inside = _environments(text) if "\\begin" in text else ()
    depth, after = 0, 0
    for at, character in enumerate(text):
        if depth == 0 and at in places and at >= after and not any(start < at < end for start, end in inside):
            ends.append((at, places[at]))
            after = places[at]
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
    if len(ends) >= MOST_PARTS:
        raise UnreadableError("it has too many parts")
    starts = [0, *(end for _, end in ends)]
    stops = [*(start for start, _ in ends), len(text)]
    return [text[a:b].strip() for a, b in zip(starts, stops, strict=True)], [text[a:b] for a, b in ends]


def _environments(text: str) -> list[tuple[int, int]]:
    """Where the outermost environments begin and end."""
    spans, depth, start = [], 0, 0
    for found in _ENVIRONMENT.finditer(text):
        if found[1] == "begin":
            start = found.start() if depth == 0 else start
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0:
                spans.append((start, found.end()))
    if len(spans) > MOST_PARTS:
        raise UnreadableError("it has too many parts")
    return spans


def balanced(text: str) -> bool:
    """Whether as many braces and parentheses close as open."""
    return text.count("{") == text.count("}") and text.count("(") == text.count(")")


def bare(text: str) -> str:
    """The text without what says nothing: full stops, dollars, braces around all of it, `the answer is`."""
    if _BARE.fullmatch(text):
        return text
    text = text.strip()
    for _ in range(12):
        before = text
        text = text.strip()
        if text.endswith(".") and not text.endswith(("..", "m.")):
            text = text[:-1].rstrip()
        text = text.rstrip(",;") if text.endswith((",", ";")) else text
        if len(text) > 1 and text[0] == "$" == text[-1]:
            text = text[1:-1]
        if len(text) > 2 and text[0] == '"' == text[-1]:
            text = text[1:-1]
        if text.startswith("{") and closes(text, 0) == len(text) - 1:
            text = text[1:-1]
        if (found := TEXT_GROUP.fullmatch(text)) and re.search(r"[0-9]|\([A-Z]\).*\([A-Z]\)", found[1]):
            text = found[1]
        if len(text) > 4 and text.startswith("**") and text.endswith("**"):
            text = text[2:-2]
        if found := _ANSWER_IS.match(text):
            text = text[found.end() :]
            text = text.removesuffix("}") if text.count("}") > text.count("{") else text
        if text == before:
            break
    return text
