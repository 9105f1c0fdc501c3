"""The answer that a completion states, found in one pass over the text.

    >>> stated_answer("so it is \\\\boxed{\\\\text{17}.}")
    Stated(answer='17', reason=None)

Nothing here uses the gold answer or any mathematics. Every scan is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from unlearnbench.records import Rule
from unlearnbench.verifier.parsing.escapes import repaired

COMPLETION_LIMIT = 1_000_000
"""Longer completions, in characters, are not read at all."""
ANSWER_LIMIT = 4_000
"""Longer answers, in characters, are not graded."""
WHOLE_TEXT_LIMIT = 40_000
"""The limit where the rule `paper` takes the whole text as the answer."""


class Stated(NamedTuple):
    """The answer that a completion states, without its formatting, or the reason why there is none."""

    answer: str | None
    reason: Literal["no_answer", "too_large"] | None = None


_NOTHING = Stated(None, "no_answer")
_TOO_LARGE = Stated(None, "too_large")

_BRACES = re.compile(r"\\f?box(?:ed)?\s{0,9}\{|\\\\(?!f?box)|\\[{}]|[{}]")
_STATEMENT = re.compile(r"####|\banswer[ \t]{0,3}(?:is\b[ \t]{0,3}:?|:|=)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_REASON = re.compile(
    r"(?<=\S),? (?:because|since|due to|"
    r"as (?:we|I|it|they|this|required|wanted|desired|expected|needed|asked|claimed|shown))\b"
    r"| \((?:because|since|as|that is|i\.e\.)[^()]*\)$"
)
_COMMENT = re.compile(r"([A-Za-z]{2,}(?:'[a-z]+)?)(?: [A-Za-z']+)*")
_VALUE = re.compile(r"[0-9]|\\|^\W*[A-Za-z]\W*$")
_CHANGES_THE_ANSWER = frozenset(
    [
        "if",
        "when",
        "unless",
        "provided",
        "assuming",
        "where",
        "for",
        "only",
        "or",
        "and",
        "nor",
        "but",
        "not",
        "no",
        "wait",
        "actually",
        "except",
        "plus",
        "minus",
        "times",
        "over",
        "maybe",
        "perhaps",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
    ]
)
"""First words of a clause behind a comma that changes the answer before it."""
_FORMATTING = re.compile(
    r"\\(?:left|right)(?![A-Za-z])\.?|\\(?:display|text)style(?![A-Za-z])|(?<!\\)(?:\$|\\[()\[\]])"
)
_THIN_SPACE_IN_NUMBER = re.compile(r"(?<=[0-9,])(?<!\^[0-9])(?:\\[!,;:]|~) ?(?=[0-9]{3}(?![0-9]))")
_SPACE = re.compile(r"(?<!\\)\\[!,;: ]|~|\\q?quad(?![A-Za-z])")
_WRAPPER = re.compile(
    r"(?:\\(?:text|math)(?:rm|bf|it|sf|tt|normal)?\s?|\\(?:mbox|emph|underline|boldsymbol|bm|f?box(?:ed)?)\s?)?\{"
)
_NAME_BEFORE_BOX = re.compile(
    r"(?:^|(?<![-+*/=^0-9])[\s$,;:(])([A-Za-z](?:_\{?[A-Za-z0-9]\}?)?|\\[a-z]{2,7}) ?= ?(?:\$|\\[(\[])? ?"
    r"\\f?box(?:ed)?\s{0,9}\{$"
)
"""x of x = \\boxed{5}."""
_LONGEST_NAME = 60
"""Characters before a box's content in which a name and the command are looked for."""
_BLANK = re.compile(r"(?:[?_.…\s]|\\(?:[lc]?dots|_|square)(?![A-Za-z]))*")
_ALTERNATIVES = re.compile(
    r"\bor\b(?!(?: |\}|\\text ?\{)*(?:approximately|about|roughly|\\approx|≈))|\\(?:lor|vee)(?![A-Za-z])|或"
)
_THOUSANDS = re.compile(r"[-+$\\ ]{0,4}[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_LISTING = re.compile(r"[(\[{)\]},;]|\\(?:pm|mp|lor|vee)(?![A-Za-z])|\b(?:and|or)\b|[或、\uff0c\uff1b]")
_SEVERAL = re.compile(r"[,;<>或、\uff0c\uff1b]|\\(?:pm|mp|cup|in|leq?|geq?|neq?|lor|vee)(?![A-Za-z])|\b(?:and|or)\b")


def stated_answer(completion: str, rule: Rule = "strict") -> Stated:
    """The content of the last complete box without formatting; `no_answer` where it is missing, empty or blank.

    Without a box, `lenient` takes the last "the answer is ..." or "#### ...", and `paper` the whole text.
    """
    if len(completion) > COMPLETION_LIMIT:
        return _TOO_LARGE
    content = _last_box(completion)
    limit = ANSWER_LIMIT
    if content is None and rule == "lenient":
        content = _last_statement(completion)
    elif content is None and rule == "paper":
        content, limit = completion, WHOLE_TEXT_LIMIT
    if content is None:
        return _NOTHING
    if len(content) > limit:
        return _TOO_LARGE
    answer = without_formatting(content)
    return _NOTHING if _BLANK.fullmatch(answer) else Stated(answer)


def without_formatting(text: str) -> str:
    """`text` with its escapes repaired, and without formatting: outer \\text{...} and the like, \\left, \\right,
    thin spaces, dollars and the final full stop."""
    text = repaired(text)
    if "\\" in text or "$" in text or "{" in text or "~" in text:
        text = _FORMATTING.sub("", text)
        text = _SPACE.sub(" ", _THIN_SPACE_IN_NUMBER.sub("", text))
        text = _unwrapped(text.strip())
    text = text.strip()
    if text.endswith(".") and not text.endswith(".."):
        text = _unwrapped(text[:-1].rstrip())
    return text


def offers_alternatives(gold: str, answer: str) -> bool:
    """Whether the answer names several values ("3 or 4") where the gold is one."""
    return _ALTERNATIVES.search(answer) is not None and _SEVERAL.search(gold) is None


def stated_values(completion: str) -> list[str]:
    """The contents of all boxes, formatting removed, each once: together they may list the values of a set.

    Where a name and an equals sign stand before each box, x = \\boxed{1}, the names are part of the values.
    """
    if completion.count("box") < 2 or len(completion) > COMPLETION_LIMIT:
        return []
    contents = [(start, without_formatting(completion[start:end])) for start, end in _boxes(completion)]
    contents = [(start, content) for start, content in contents if not _BLANK.fullmatch(content)]
    names = [_NAME_BEFORE_BOX.search(completion[max(0, start - _LONGEST_NAME) : start]) for start, _ in contents]
    if all(name is not None and "=" not in content for name, (_, content) in zip(names, contents, strict=True)):
        contents = [(at, f"{name[1]}={content}") for name, (at, content) in zip(names, contents, strict=True) if name]
    values = list(dict.fromkeys(content for _, content in contents))
    return values if sum(map(len, values)) <= ANSWER_LIMIT else []


@lru_cache(maxsize=1 << 14)
def lists_values(gold: str) -> bool:
    """Whether a gold answer is a set, or a list outside brackets, of several values."""
    if _SEVERAL.search(gold) is None or _THOUSANDS.fullmatch(gold):
        return False
    text = gold.replace("\\{", "{").replace("\\}", "}").strip()
    if text.startswith("{") and text.endswith("}") and _closing(text, 1) == len(text) - 1:
        text = text[1:-1]
    depth = 0
    for token in _LISTING.finditer(text):
        if token.group() in "([{":
            depth += 1
        elif token.group() in ")]}":
            depth -= 1
        elif depth == 0:
            return True
    return False


def _last_box(text: str) -> str | None:
    start = text.rfind("\\boxed{") + 7
    if start >= 7:
        end = text.find("}", start)
        if end >= 0:  # most boxes are this simple, with no other box after them
            content = text[start:end]
            if "{" not in content and "\\" not in content and text.find("box", end) < 0:
                return content
    elif "box" not in text:
        return None
    return _last_box_by_braces(text)


def _last_box_by_braces(text: str) -> str | None:
    start, end = max(_boxes(text), default=(-1, -1))
    return None if start < 0 else text[start:end]


def _boxes(text: str) -> Iterator[tuple[int, int]]:
    """Where the content of each complete box starts and ends."""
    open_braces: list[int] = []  # where the content of a box starts; -1 for any other brace
    for token in _BRACES.finditer(text):
        brace = token.group()
        if brace == "{":
            open_braces.append(-1)
        elif brace == "}":
            start = open_braces.pop() if open_braces else -1
            if start >= 0:
                yield start, token.start()
        elif len(brace) > 2:  # not \{, \} or a line break
            open_braces.append(token.end())


def _last_statement(text: str) -> str | None:
    start = -1
    for match in _STATEMENT.finditer(text):
        start = match.end()
    if start < 0:
        return None
    line = text[start:].lstrip(" \t*`").partition("\n")[0][: ANSWER_LIMIT + 1]
    statement = _SENTENCE_END.split(line, maxsplit=1)[0].strip(" \t\r*`,")
    statement = _REASON.split(statement, maxsplit=1)[0].rstrip(" *`,$") if _REASON.search(statement) else statement
    return _without_comment(statement)


def _without_comment(statement: str) -> str:
    """A statement of a value without words behind a comma that only comment on it: 72 clips, altogether."""
    value, comma, comment = statement.rpartition(", ")
    words = _COMMENT.fullmatch(comment) if comma else None
    if words is None or words[1].lower() in _CHANGES_THE_ANSWER or not _VALUE.search(value):
        return statement
    return value


def _unwrapped(text: str) -> str:
    for _ in range(8):
        wrapper = _WRAPPER.match(text)
        if wrapper is None or not text.endswith("}") or _closing(text, wrapper.end()) != len(text) - 1:
            return text
        text = text[wrapper.end() : -1].strip()
    return text


def _closing(text: str, start: int) -> int:
    """Where the brace opened before `start` closes, or -1."""
    depth = 1
    for token in _BRACES.finditer(text, start):
        brace = token.group()
        if brace in ("{", "}") or len(brace) > 2:
            depth += -1 if brace == "}" else 1
            if depth == 0:
                return token.start()
    return -1
