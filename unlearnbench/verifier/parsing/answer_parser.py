"""The structure of an answer's text, taken apart at its outermost brackets, commas and signs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise, product

from unlearnbench.verifier.math.interval_sets import intersection, union
from unlearnbench.verifier.math.nodes import (
    Answer,
    Collection,
    Family,
    Labelled,
    Matrix,
    Pieces,
    Region,
    Span,
    UnreadableError,
    Value,
    Words,
    answer_with,
    free_symbols,
)
from unlearnbench.verifier.parsing.brackets import MOST_PARTS, balanced, bare, split
from unlearnbench.verifier.parsing.names import FUNCTION, SEQUENCE
from unlearnbench.verifier.parsing.qualifiers import exact_part, unqualified
from unlearnbench.verifier.parsing.quantities import compound, quantity, ratio, ungrouped
from unlearnbench.verifier.parsing.relations import RELATIONS, congruence, infinite, named_with_colon, relation
from unlearnbench.verifier.parsing.sets import all_reals, bracketed, mentions_sets, number_set, region
from unlearnbench.verifier.parsing.words import choice, clock, date, words

_WORDY = re.compile(
    r"(?<![\\A-Za-z])[A-Za-z]{2}|\\(?:text|math|mbox|rm|bf|in(?![a-z])|forall|approx)|[\u4e00-\u9fff':]|[ap]\. ?m"
    r"|^\(?[A-Za-z][.:)]|^[0-9]+ ?[-/] ?[0-9]"
)
"""What words, choices, times, dates and qualifiers have and nearly no expression."""
_TWO_SIGNS = re.compile(r"\\(?:pm|mp)\s*[-+]?\s*\\(?:pm|mp)")
_SIGNS = re.compile(r"\\[pm][mp](?![A-Za-z])")
_SIGNED_TUPLE = re.compile(r"\([^()]*\\pm(?![A-Za-z])[^()]*,[^()]*\\pm(?![A-Za-z])[^()]*\)")
_MOST_SIGNS = 5
_NOT = re.compile(r"\\not(?:in)?(?![A-Za-z])")
_OR, _AND = re.compile(r"\bor\b|vee"), re.compile(r"\band\b|wedge")
_SEPARATOR = re.compile(
    r",?\s*(?:\\(?:vee|wedge)(?![A-Za-z])|\\(?:text|mathrm|mbox|textrm)\s?\{\s*,?\s*(?:and|or)\s*\}"
    r"|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))|,|;"
)
_COMMA = re.compile(_SEPARATOR.pattern.replace(r"\\(?:vee|wedge)(?![A-Za-z])|", ""))
"""Without signs of logic, which join statements and never values."""
_ONE_NUMBER = re.compile(r"[-+]?(?:\\?\$|[€£¥₹])?\s?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?(?![0-9]|,).*", re.DOTALL)
_MATRIX = re.compile(r"\\begin\{([pbBv]?matrix|array)\}(?:\{[clr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_SYSTEM = re.compile(
    r"(?:\\\{ ?)?\\begin ?\{(cases|array|aligned|align\*?|gathered|split)\}(?:\{[clr| ]*\})?(.*)\\end ?\{\1\}",
    re.DOTALL,
)
_ROW_END = re.compile(r"\\\\(?:\[[^\]]*\])?|\\cr(?![a-z])")
_CONDITION = re.compile(
    r"^(.*?),?\s*(?:&|\\text ?\{ ?,? ?(?:if|when|for|where)(?=[ }])|\b(?:if|when)\b)\s*(.*)$", re.DOTALL
)
_EXPRESSION = re.compile(r"[-+*]")
_CONDITION_BEHIND = re.compile(r"(.*[^A-Zfg(,\s]|.*\S\s) ?\(([^()]+)\)", re.DOTALL)
_CONGRUENCE = re.compile(
    r"(.+?) ?\\equiv ?([^\\=]*(?:\\text ?\{[ a-z,]+\}[^\\=]*)*?)"
    r" ?(\(?(?:\\[pb]?mod|\\text ?\{ ?mod ?\}|mod) ?\{?[0-9]+\}? ?\)?)"
)
_POINT = re.compile(r"([A-BD-Z](?:_\{?[0-9]\}?)?'?) ?(\([^()]*,[^()]*\))")
_ELLIPSES = ("\\ldots", "...")
_WHOLE = re.compile(r"-?[0-9]{1,9}")
_IF = re.compile(r"^(?:\\text ?\{)? ?,? ?(?:if|when|for|where) ?")


def read(text: str) -> Answer:
    """What a respelled text is. Raises UnreadableError."""
    text = bare(text)
    if not text:
        raise UnreadableError("it is empty")
    if "\\" in text and (_TWO_SIGNS.search(text) or _NOT.search(text)):
        raise UnreadableError("signs that contradict")
    if not _WORDY.search(text):
        return _read(text)
    said = unqualified(exact_part(text))
    if not bare(said.text):
        raise UnreadableError("it is empty")
    answer = _read_words(bare(said.text))
    if said.definitions:
        answer = answer_with(answer, said.definitions)
    return _family(answer, said.domains)


def _family(answer: Answer, domains: Mapping[str, str]) -> Answer:
    """The answer with the parameters that it has; a variable of a function is bound, and none of them."""
    if not domains:
        return answer
    free = _parameters(answer) | ({answer.variable} if isinstance(answer, Region) else set())
    kept = tuple((name, domain) for name, domain in sorted(domains.items()) if name in free)
    if isinstance(answer, Region):
        kept = tuple(pair for pair in kept if pair != (answer.variable, "R"))
    return Family(answer, kept) if kept else answer


def _parameters(answer: Answer) -> frozenset[str]:
    if isinstance(answer, Labelled):
        bound = FUNCTION.fullmatch(answer.label) or SEQUENCE.fullmatch(answer.label)
        return _parameters(answer.answer) - (set(bound[2].split(",")) if bound else set())
    if isinstance(answer, Collection):
        return frozenset().union(*map(_parameters, answer.items))
    return free_symbols(answer)


def _read_words(text: str) -> Answer:
    """What a text is that may hold words, times of day, dates, quantities in several units."""
    if (reals := all_reals(text, read)) is not None:
        return reals
    for reader in (clock, date, compound):
        if (answer := reader(text)) is not None:
            return answer
    return choice(text, read) or words(text) or _read(text)


def _read(text: str) -> Answer:
    if ", " in text:  # 1,234, 5,678: a comma that separates has a space behind it
        text = ungrouped(text)
    if ("\\pm" in text or "\\mp" in text) and _SIGNS.search(text):
        return _both_signs(text)
    if "\\\\" in text and "\\begin" not in text:
        text = text.replace("\\\\", ",").strip(" ,")
    if "\\equiv" in text and (found := _CONGRUENCE.fullmatch(text)):
        solved = congruence(found[1], _SEPARATOR.split(found[2]), found[3])
        if solved is not None:
            return solved
    text = _with_condition(text)
    if found := _POINT.fullmatch(text):  # A(2,3)
        return Labelled(found[1], read(found[2]))
    if "\\" in text and (special := _matrix(text) or _system(text) or _empty(text) or number_set(text)) is not None:
        return special
    if (endless := infinite(text)) is not None:
        return endless
    parts, joints = split(text, _SEPARATOR if RELATIONS.search(text) else _COMMA)
    if len(parts) > 1 and not (_ONE_NUMBER.fullmatch(text) and set(joints) == {","}):
        return _listed(parts, joints)
    if mentions_sets(text) and "=" not in text and (numbers := region(text, read)) is not None:
        return numbers
    if ":" in text and (related := named_with_colon(text, read)) is not None:
        return related
    if RELATIONS.search(text) and (answer := relation(text, read)) is not None:
        return answer
    if (whole := bracketed(text, read)) is not None:
        return whole
    if (":" in text or "to" in text) and (related := ratio(text)) is not None:
        return related
    return quantity(text)


def readings(text: str) -> list[Answer]:
    r"""What a respelled text may be: (\pm1, \pm2) has signs that go together, or each for itself."""
    answers = [read(text)]
    signs = _SIGNS.findall(text) if "\\pm" in text else []
    if 2 <= len(signs) <= _MOST_SIGNS and "\\mp" not in signs and _SIGNED_TUPLE.search(text):
        chosen = ["".join(map(str.__add__, _SIGNS.split(text), (*one, ""))) for one in product("+-", repeat=len(signs))]
        answers.append(Collection("list", tuple(item for one in chosen for item in _items(read(one)))))
    return answers


def _both_signs(text: str) -> Answer:
    upper = _SIGNS.sub(lambda found: "+" if found.group() == "\\pm" else "-", text)
    lower = _SIGNS.sub(lambda found: "-" if found.group() == "\\pm" else "+", text)
    items = [item for sign in (upper, lower) for item in _items(read(sign))]
    return Collection("list", tuple(items))


def _items(answer: Answer) -> tuple[Answer, ...]:
    return answer.items if isinstance(answer, Collection) and answer.kind in ("list", "set") else (answer,)


def _matrix(text: str) -> Answer | None:
    found = _MATRIX.fullmatch(text)
    if found is None or "\\begin" in found[2] or found[1] == "vmatrix":
        return None
    rows = [row for row in _ROW_END.split(found[2].replace("\\hline", "")) if row.strip()]
    cells = [row.split("&") for row in rows]
    if sum(map(len, cells)) > MOST_PARTS:
        raise UnreadableError("it has too many entries")
    if found[1] == "array" and len(cells) > 1 and all(RELATIONS.search(row) for row in rows):
        return None  # the equations of a system
    return Matrix(tuple(tuple(read(cell) for cell in row) for row in cells))


def _system(text: str) -> Answer | None:
    """Equations that hold together, or a function by cases."""
    found = _SYSTEM.fullmatch(text)
    if found is None or "\\begin" in found[2]:
        return None
    rows = [row.strip(" ,;.") for row in _ROW_END.split(found[2]) if row.strip(" ,;.")]
    if not 0 < len(rows) <= MOST_PARTS:
        raise UnreadableError("a system without rows")
    if found[1] in ("cases", "array"):
        pairs = [_CONDITION.fullmatch(row) for row in rows]
        if all(pair is not None and pair[1].strip() for pair in pairs):
            return Pieces(tuple((read(pair[1]), _condition(pair[2])) for pair in pairs if pair is not None))
    rows = [row.replace("&", " ") for row in rows]
    return _listed(rows, [" and "] * (len(rows) - 1)) if len(rows) > 1 else read(rows[0])


def _condition(text: str) -> Answer:
    plain = _IF.sub("", text.strip())
    if plain.count("}") > plain.count("{"):
        plain = plain.replace("}", "", 1)
    if re.fullmatch(r"(?:\\text ?\{)? ?(?:otherwise|else)\.? ?\}?", plain):
        return Words("otherwise")
    return read(plain)


def _empty(text: str) -> Answer | None:
    return Collection("set", ()) if text.replace(" ", "") in ("\\emptyset", "\\{\\}") else None


# --- lists ---


def _listed(parts: list[str], joints: list[str]) -> Answer:
    answers = [read(part) for part in _written_out(parts)]
    if len(answers) == 1:
        return answers[0]
    if (joined := _joined_regions(answers, joints)) is not None:
        return joined
    if isinstance(answers[0], Labelled) and all(isinstance(answer, Value) for answer in answers[1:]):
        answers[1:] = [Labelled(answers[0].label, answer) for answer in answers[1:]]  # x = 1, 2
    return _records(answers) or Collection("list", tuple(answers))


def _parameters_of(answers: Sequence[Answer]) -> frozenset[str]:
    return frozenset().union(*map(free_symbols, answers))


def _with_condition(text: str) -> str:
    """y^2=4x (x>0) with the condition as a part of its own."""
    found = _CONDITION_BEHIND.fullmatch(text) if text.endswith(")") else None
    if found is None or not RELATIONS.search(found[1]) or not RELATIONS.search(found[2]) or not balanced(found[1]):
        return text
    return f"{found[1].rstrip()}, {found[2]}"


def _written_out(parts: list[str]) -> list[str]:
    """1, 3, 5, \\ldots, 11 with the whole numbers that are left out. Raises UnreadableError."""
    if not any(part.replace(" ", "") in _ELLIPSES for part in parts):
        return parts
    at = next(at for at, part in enumerate(parts) if part.replace(" ", "") in _ELLIPSES)
    before, after = parts[:at], parts[at + 1 :]
    if len(after) != 1 or not 1 <= len(before) <= 20 or not all(_WHOLE.fullmatch(part) for part in [*before, *after]):
        raise UnreadableError("an ellipsis between other things than whole numbers")
    numbers, last = [int(part) for part in before], int(after[0])
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    even = all(y - x == step for x, y in pairwise(numbers))
    if not even or step == 0 or (last - numbers[-1]) % step or not 0 < (last - numbers[-1]) // step < MOST_PARTS:
        raise UnreadableError("an ellipsis of an unknown rule")
    return [*map(str, [*numbers, *range(numbers[-1] + step, last, step), last])]


def _joined_regions(answers: Sequence[Answer], joints: Sequence[str]) -> Region | None:
    """Regions of one variable, and values of it, as one region; None where they are something else."""
    regions = [answer for answer in answers if isinstance(answer, Region)]
    points = (
        [_point(answer, regions[0].variable) for answer in answers if not isinstance(answer, Region)] if regions else []
    )
    if not regions or any(point is None for point in points):
        return None
    either = all(_OR.search(joint) for joint in joints)
    if points or either:
        if len({one.variable for one in regions}) > 1:
            raise UnreadableError("regions of different variables")
        return union([*regions, *(point for point in points if point is not None)])
    if all(one.variable for one in regions):  # x>1, x<5 means both; x<1, x>5 can only mean one of them
        if len({one.variable for one in regions}) > 1:
            return None
        both = intersection(regions)
        return both if both.spans or any(_AND.search(joint) for joint in joints) else union(regions)
    return None


def _point(answer: Answer, variable: str | None) -> Region | None:
    """x=1 as the region that it is of x."""
    if isinstance(answer, Labelled) and isinstance(answer.answer, Value) and answer.label == variable:
        node = answer.answer.node
        return Region((Span(node, node, True, True),), variable)
    return None


def _records(answers: Sequence[Answer]) -> Collection | None:
    """x=1, y=2 as one record; x=1, y=2, x=3, y=4 as a list of two; None where it is neither."""
    labels = [answer.label for answer in answers if isinstance(answer, Labelled)]
    size = len(set(labels))
    if len(labels) < len(answers) or size < 2 or len(labels) % size:
        return None
    if any(_EXPRESSION.search(label) or label in _parameters_of(answers) for label in labels):  # equations: y=3x, x+y=4
        return None
    blocks = [answers[start : start + size] for start in range(0, len(answers), size)]
    if any(set(labels[at * size : (at + 1) * size]) != set(labels[:size]) for at in range(len(blocks))):
        return None
    records = tuple(Collection("record", tuple(block)) for block in blocks)
    return records[0] if len(records) == 1 else Collection("list", records)
