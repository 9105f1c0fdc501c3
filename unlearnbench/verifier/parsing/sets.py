r"""Sets, intervals and tuples: (1,2], \{x \mid x>2\}, \mathbb{R}\setminus\{0\}, all real numbers except 1, (1,2)."""

from __future__ import annotations

import re
from fractions import Fraction

from unlearnbench.verifier.math.ball_arithmetic import order
from unlearnbench.verifier.math.interval_sets import as_region, complement, integers_in, intersection, union
from unlearnbench.verifier.math.nodes import (
    Answer,
    Collection,
    Equation,
    Family,
    Labelled,
    Node,
    Number,
    Region,
    Span,
    UnreadableError,
    Value,
    Words,
)
from unlearnbench.verifier.parsing.brackets import MOST_PARTS, bare, closes, split
from unlearnbench.verifier.parsing.normalize import TEXT_GROUP
from unlearnbench.verifier.parsing.qualifiers import DOMAIN
from unlearnbench.verifier.parsing.relations import RELATIONS, Reader, end

_OPERATORS = re.compile(
    r"\\(?:cup|cap|setminus)(?![A-Za-z])|(?<=[\])}])\s*-\s*(?=\\\{)|(?<=\\mathbb\{R\})\s*-\s*(?=\\\{|[(\[])"
)
_SET_SIGNS = re.compile(r"\\(?:cup|cap|setminus)(?![A-Za-z])|\\mathbb|\\math(?:bf|rm) ?\{[RZNQ]\}|\\\}\s*-\s*\\\{")
_REALS = re.compile(
    r"(?:(?:all|any|every) (?:the )?reals?(?: numbers?)?"
    r"|(?:the )?(?:set of )?(?:all )?(?:the )?(?:reals|real numbers))(?: [a-z])?"
    r"(?:,? (?:except|other than|excluding|but not)(?: for)? (?P<less>.+))?",
    re.I,
)
_MEMBER_OF = re.compile(r"([A-Za-z]|\\[a-z]+) ?\\in ?")
_ELEMENT = re.compile(rf"\s*([A-Za-z](?:_\{{?\w\}}?)?)\s*(?:\\in\s*(?P<domain>{DOMAIN.pattern}))?\s*")
_COMMA, _SEMICOLON = re.compile(","), re.compile(";")
_REAL_LINE = Region((Span(None, None, False, False),))
_ABOVE_0 = Region((Span(Number(Fraction(0)), None, False, False),))
_FROM_0 = Region((Span(Number(Fraction(0)), None, True, False),))
_WORDS = {"Z": "integers", "N": "natural numbers", "Q": "rational numbers", "C": "complex numbers"}


def mentions_sets(text: str) -> bool:
    """Whether signs of sets of numbers stand in the text."""
    return _SET_SIGNS.search(text) is not None


def all_reals(text: str, read: Reader) -> Region | None:
    """The real numbers in words, perhaps without some of them."""
    if "real" not in text:
        return None
    found = _REALS.fullmatch(" ".join(TEXT_GROUP.sub(r" \1 ", text).split()))
    if found is None:
        return None
    if found["less"] is None:
        return _REAL_LINE
    taken = read(found["less"])
    items = taken.items if isinstance(taken, Collection) else (taken,)
    return intersection([_REAL_LINE, complement(_points(items))])


def number_set(text: str) -> Words | None:
    r"""\mathbb{Z} and its like, which are not intervals, by the name in words."""
    found = DOMAIN.fullmatch(text) if "\\math" in text else None
    if found is None or found["R"]:
        return None
    name = next(words for letter, words in _WORDS.items() if found[letter])
    return Words(f"positive {name}" if found["positive"] else f"non negative {name}" if found["from0"] else name)


def region(text: str, read: Reader) -> Answer | None:
    r"""Unions, intersections and differences of sets of numbers, evaluated; None where the text has no such sign.

    Raises UnreadableError where a side is something else than a set of numbers.
    """
    variable = None
    if found := _MEMBER_OF.match(text):
        variable, text = found[1], text[found.end() :]
    parts, operators = split(text, _OPERATORS)
    if len(parts) == 1 and DOMAIN.fullmatch(bare(text)) is None:
        return None
    if len(parts) > MOST_PARTS or not all(parts):
        raise UnreadableError("a set without a side")
    whole = _operand(parts[0], read)
    for part, operator in zip(parts[1:], operators, strict=True):
        whole = _combined(whole, _operand(part, read), operator.strip().removeprefix("\\"))
    if isinstance(whole, Region):
        if whole.variable and variable and whole.variable != variable:
            raise UnreadableError("regions of different variables")
        return Region(whole.spans, variable or whole.variable)
    return Collection("set", whole)


_Set = Region | tuple[Answer, ...]
"""A union of intervals, or a finite set of anything."""


def _operand(text: str, read: Reader) -> _Set:
    text = bare(text)
    if found := DOMAIN.fullmatch(text):
        if found["R"] and not found["positive"]:
            return _FROM_0 if found["from0"] else _REAL_LINE
        if found["R"] and ("+" in text or ">" in text):
            return _ABOVE_0
        raise UnreadableError("a set of whole numbers within an expression")
    answer = read(text)
    found_region = as_region(answer)
    if found_region is not None:
        return found_region
    if isinstance(answer, Collection) and answer.kind == "set":
        return answer.items
    raise UnreadableError("a union of something else than sets")


def _combined(a: _Set, b: _Set, operator: str) -> _Set:
    if operator == "cup":
        if isinstance(a, tuple) and isinstance(b, tuple):
            return a + b
        return union([_as_points(a), _as_points(b)])
    if operator == "cap":
        return intersection([_as_points(a), _as_points(b)])
    if isinstance(a, tuple) and isinstance(b, tuple):
        taken = [_node(item) for item in b]
        return tuple(item for item in a if all(order(_node(item), one) != 0 for one in taken))
    return intersection([_as_points(a), complement(_as_points(b))])


def _as_points(part: _Set) -> Region:
    return _points(part) if isinstance(part, tuple) else part


def _points(items: tuple[Answer, ...]) -> Region:
    nodes = [_node(item.answer if isinstance(item, Labelled) else item) for item in items]
    return union([Region((Span(node, node, True, True),)) for node in nodes])


def _node(answer: Answer) -> Node:
    if isinstance(answer, Value):
        return answer.node
    raise UnreadableError("a point that is not a value")


def bracketed(text: str, read: Reader) -> Answer | None:
    """A set, an interval or a tuple in its brackets; None where the text is none. Raises UnreadableError."""
    if not text:
        return None
    if text.startswith("\\{") and text.endswith("\\}"):
        return _set(text[2:-2].strip(), read)
    if text[0] == "]" and text[-1] in "[]" and len(text) < 200 and text.count(",") + text.count(";") == 1:
        text = "(" + text[1:-1] + (")" if text[-1] == "[" else "]")  # ]0,1[
    elif text[-1] == "[" and text[0] == "[" and text.count(",") + text.count(";") == 1:
        text = text[:-1] + ")"
    if text[0] not in "([" or text[-1] not in ")]" or closes(text, 0) != len(text) - 1:
        return None
    inner = text[1:-1]
    parts, _ = split(inner, _SEMICOLON if split(inner, _SEMICOLON)[1] else _COMMA)
    if len(parts) == 2 and (text[0] == "[" or text[-1] == "]" or any("\\infty" in part for part in parts)):
        return Region((Span(end(parts[0], -1), end(parts[1], 1), text[0] == "[", text[-1] == "]"),))
    if len(parts) == 1:
        return read(inner) if (text[0] == "(" and text[-1] == ")") or inner.startswith("\\begin") else None
    if text[0] + text[-1] not in ("()", "[]"):
        raise UnreadableError("brackets that do not match")
    return Collection("tuple", tuple(read(part) for part in parts))


def _set(inner: str, read: Reader) -> Answer:
    for bar in ("\\mid", "|", ":"):
        element, found, condition = inner.partition(bar)
        if found and RELATIONS.search(condition):
            return _by_condition(element, condition.strip(), read)
    parts, _ = split(inner, _SEMICOLON if split(inner, _SEMICOLON)[1] else _COMMA)
    return Collection("set", tuple(read(part) for part in parts if part))


def _by_condition(element: str, condition: str, read: Reader) -> Answer:
    r"""\{x \in D \mid condition\}; the variable is bound, so the result has none."""
    found = _ELEMENT.fullmatch(element)
    if found is None:
        return _of_expressions(element, condition, read)
    held = read(bare(condition.removeprefix("\\text{}")))
    domain = found["domain"] or "R"
    if isinstance(held, Region) and held.variable in (None, found[1]):
        matched = DOMAIN.fullmatch(domain)
        if matched is not None and (matched["Z"] or matched["N"]):
            start = 1 if matched["positive"] else 0 if matched["N"] or matched["from0"] else None
            return Collection("set", tuple(Value(Number(Fraction(n))) for n in integers_in(held, start)))
        if matched is not None and matched["R"]:
            return Region(held.spans)
        raise UnreadableError("a set of something else than real or whole numbers")
    return _unlabelled(held, found[1])


def _of_expressions(element: str, condition: str, read: Reader) -> Answer:
    r"""\{2k+1 \mid k \in \mathbb{Z}\}."""
    answer = read(f"{element}, {condition}")
    if not isinstance(answer, Family):
        raise UnreadableError("a set of something else than the numbers of a region")
    return answer


def _unlabelled(answer: Answer, name: str) -> Answer:
    """What \\{x \\mid x=...\\} holds."""
    if isinstance(answer, Labelled) and answer.label == name:
        return Collection("set", (answer.answer,))
    if isinstance(answer, Family):
        return Family(_unlabelled(answer.answer, name), answer.domains)
    if isinstance(answer, Collection) and answer.kind == "list" and answer.items:
        values = [item.answer for item in answer.items if isinstance(item, Labelled) and item.label == name]
        if len(values) == len(answer.items):
            return Collection("set", tuple(values))
    if isinstance(answer, Equation):
        return answer
    raise UnreadableError("a set of something else than the numbers of a region")
