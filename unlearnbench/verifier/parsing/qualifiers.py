r"""What follows an answer: approximations, domains of parameters, "for all x", "where \varphi = ...".

None of it changes what the answer is: the exact value decides, not its approximation, and `k\pi, k\in\mathbb{Z}` is the
family `k\pi`, whose parameter has a domain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from unlearnbench.verifier.math.nodes import Node, UnreadableError, symbols
from unlearnbench.verifier.parsing.brackets import closes, split
from unlearnbench.verifier.parsing.latex_parser import parse
from unlearnbench.verifier.parsing.names import name_of
from unlearnbench.verifier.parsing.quantities import quantity

_NAME = r"(?<![A-Za-z\\])(?:[A-Za-z]|\\(?:alpha|beta|gamma|theta|lambda|mu|phi|omega))(?![A-Za-z])(?:_\{?[0-9]\}?)?"
_JOINED = r" ?(?:,|\\text ?\{ ?and ?\}|and) ?"
_ONE_NAME = re.compile(_NAME)
_NAMES = rf"{_NAME}(?:{_JOINED}{_NAME}){{0,3}}"
_SETS = {
    "Z": r"\\mathbb\{Z\}|\\(?:mathbf|mathrm|bf|rm) ?\{Z\}|Z",
    "N": r"\\mathbb\{N\}|\\(?:mathbf|mathrm|bf|rm) ?\{N\}|N",
    "R": r"\\mathbb\{R\}|\\(?:mathbf|mathrm|bf|rm) ?\{R\}|R",
    "Q": r"\\mathbb\{Q\}|\\(?:mathbf|mathrm|bf|rm) ?\{Q\}|Q",
    "C": r"\\mathbb\{C\}|\\(?:mathbf|mathrm|bf|rm) ?\{C\}|C",
}
_SET = "|".join(rf"(?P<{name}>{pattern})" for name, pattern in _SETS.items())
_POSITIVE = r"(?P<positive> ?(?:\^ ?\{? ?(?:\+|\*|\\ast|\\star|\\times) ?\}?|_ ?\{? ?(?:\+|> ?0|\\ge ?1) ?\}?))"
_FROM_0 = r"(?P<from0> ?_ ?\{? ?(?:0|\\ge ?0) ?\}?)"
DOMAIN = re.compile(rf"(?:{_SET})(?:{_POSITIVE}|{_FROM_0})?")
"""A set of numbers by its letter: \\mathbb{Z}, \\mathbf Z, Z, \\mathbb{N}^*."""

_MEMBER_OF = re.compile(rf" ?\\in ?(?P<domain>{DOMAIN.pattern})$")
_NAMES_BEFORE = [re.compile(rf"{_NAME}(?:{_JOINED}{_NAME}){{{more}}}$") for more in (3, 2, 1, 0)]
_MEMBERS = re.compile(rf"(?P<names>{_NAMES}) ?\\in ?(?P<domain>{DOMAIN.pattern})")
_QUALIFIER = re.compile(
    r"[,\s]{0,4}\\text ?\{ ?,? ?(?:where|for|with|and|such that|given that|in which|here)(?![A-Za-z])"
    r"|[,\s]{1,4}(?:where|for (?:all|any|some|every|each))\b|[,\s]{0,4}\\forall(?![A-Za-z])"
)
_PLAIN_WORDS = re.compile(r"\\(?:text|mathrm|mbox|textrm) ?\{([^{}]*)\}")
_SAYS_NOTHING = frozenset({"and", "for", "where", "with", "here", "given", "that", "in", "which", "all", "any", "some"})
_SAYS_NOTHING |= {"every", "each", "a", "an", "arbitrary", "is", "are", "be", "being", "the", "of", "\\forall"}
_FOR_BEFORE = re.compile(r"(?:\\text ?\{ ?,? ?(?:for|where|with|and)(?: all| any| some| every)? ?\}|\\forall)\s*$")
_LONGEST = 120
"""Characters of a qualifier."""
_FOR = re.compile(r"(?:and )?(?:for|\\forall) ")
_KINDS = {
    "positive integer": "N+",
    "natural number": "N",
    "nonnegative integer": "N0",
    "non-negative integer": "N0",
    "non negative integer": "N0",
    "integer": "Z",
    "integral": "Z",
    "whole number": "N0",
    "real number": "R",
    "positive real number": "R+",
    "positive real": "R+",
    "real": "R",
    "real constant": "R",
    "rational number": "Q",
    "rational": "Q",
    "complex number": "C",
    "complex": "C",
    "constant": "",
    "parameter": "",
    "number": "",
    "value": "",
    "": "",
}
_SIGNED = re.compile(rf"(?:for )?(?:some|any|all|every) ({_NAME}) ?(>|<|\\ge|\\le) ?0")
_EVERY = re.compile(
    r"\\(?:text|mathrm|mbox|textrm) ?\{ ?(?:for )?(?:all|any|every) (?P<kind>[a-z -]{4,40}?)s? ?\}"
    rf"(?= ?(?P<name>{_NAME}) ?(?:[<>]|\\[gl]e))|(?:for )?(?:all|any|every) (?P<plain>[a-z -]{{4,40}}?)s?"
    rf"(?= (?P<of>{_NAME}) ?(?:[<>]|\\[gl]e))"
)
"""All positive integers, in front of n \\ge 3."""
_DEFINITION = re.compile(rf"(?:where|with|here)? ?({_NAME}) ?= ?(.+)", re.DOTALL)
_APPROXIMATE = re.compile(
    r"[,\s]{0,4}(?:\\text ?\{ ?,? ?or ?\} ?)?(?:\\approx(?![A-Za-z])"
    r"|\\text ?\{[ ,(]*(?:or |which is )?(?:approximately|approx\.?|about|roughly)(?: equal to)?[^{}]*\}"
    r"|,? ?(?:or )?(?<![A-Za-z])(?:approximately|approx\.?)(?![A-Za-z]))"
)
_SIGN = re.compile(r"\s*[-+*/^!]")
_JOINT = re.compile(r",(?![0-9]{3})|;|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")


class Qualified(NamedTuple):
    """An answer's text without its qualifiers, and what these say."""

    text: str
    domains: Mapping[str, str]
    """The domain of each parameter that one of them names; "" where it is any."""
    definitions: Mapping[str, Node]
    """Symbols that stand for expressions."""


def exact_part(text: str) -> str:
    r"""The text up to its approximation, \frac13 of \frac13 \approx 0.333; all of it where it has none or is a list."""
    found = _APPROXIMATE.search(text)
    if found is None:
        return text
    if not found.start():  # \approx 1.414
        return text[found.end() :].strip() or text
    exact, behind = text[: found.start()].rstrip(), text[found.end() :]
    if exact.endswith("(") and text.endswith(")"):  # \sqrt2 (\approx 1.414)
        exact = exact[:-1].rstrip()
    if exact.count("(") != exact.count(")") or exact.count("{") != exact.count("}") or exact[-1:] in ("", "="):
        return text
    if "\\approx" not in found.group() and _SIGN.match(behind):  # 42 \text{ (approximately)} + 1
        return text
    if split(exact, _JOINT)[1] or name_of(exact) is not None or not _is_constant(behind):
        return text
    return exact


def _is_constant(approximation: str) -> bool:
    """Whether what stands behind "approximately" is one number, or nothing."""
    text = approximation.strip(" )") if approximation.count(")") > approximation.count("(") else approximation.strip()
    try:
        return not text or not symbols(quantity(text).node)
    except UnreadableError:
        return False


def unqualified(text: str) -> Qualified:
    """The answer without the domains, quantifiers and definitions that follow it."""
    domains: dict[str, str] = {}
    definitions: dict[str, Node] = {}
    if (found := _EVERY.match(text)) and (kind := (found["kind"] or found["plain"]).strip()) in _KINDS:
        domains[_plain(found["name"] or found["of"])] = _KINDS[kind]
        text = text[found.end() :].strip()
    for _ in range(6):
        cut = _last_qualifier(text, domains, definitions)
        if cut is None:
            break
        text = cut
    return Qualified(text, domains, definitions)


def _last_qualifier(text: str, domains: dict[str, str], definitions: dict[str, Node]) -> str | None:
    """The text without its last qualifier, which is recorded; None if it has none."""
    if text.endswith(")") and (start := _opening(text)) > 0:
        before, inner = text[:start].rstrip(" ,"), text[start + 1 : -1].strip()
        if before and (_members(inner, domains) or _quantified(inner, domains)):
            return before
    if member := _MEMBER_OF.search(text):
        for names in _NAMES_BEFORE:
            found = names.search(text, max(0, member.start() - _LONGEST), member.start())
            if (
                found
                and (cut := _cut(text[: found.start()], "," in found.group())) is not None
                and _members(text[found.start() :], domains)
            ):
                return cut
    for found in _QUALIFIER.finditer(text):
        before, behind = text[: found.start()].rstrip(" ,"), text[found.start() :].lstrip(" ,")
        if not before or before.count("{") != before.count("}") or before.count("(") != before.count(")"):
            continue
        if _quantified(behind, domains) or _defined(behind, definitions):
            return before
    return None


def _opening(text: str) -> int:
    """Where the bracket opens that closes at the end of the text."""
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += (text[at] in ")]}") - (text[at] in "([{")
        if depth == 0:
            return at
    return -1


def _cut(before: str, several: bool) -> str | None:
    """What precedes a trailing k \\in \\mathbb{Z}; None where that is no part of its own."""
    before = _FOR_BEFORE.sub(",", before)
    cut = before.rstrip(" ,;")
    if several and cut == before.rstrip():
        return None
    return cut if cut and cut != before and closes("(" + cut + ")", 0) == len(cut) + 1 else None


def _members(text: str, domains: dict[str, str]) -> bool:
    r"""k \in \mathbb{Z}, or several names of one set."""
    found = _MEMBERS.fullmatch(text.strip())
    if found is None:
        return False
    for name in re.findall(_NAME, _PLAIN_WORDS.sub(" , ", found["names"]).replace("and", ",")):
        domains[_plain(name)] = _domain(found["domain"])
    return True


def _domain(text: str) -> str:
    found = DOMAIN.fullmatch(text)
    assert found is not None
    letter = next(name for name in _SETS if found[name])
    if found["positive"]:
        return "N+" if letter in ("Z", "N") else f"{letter}+"
    return "N0" if found["from0"] else letter


def _quantified(text: str, domains: dict[str, str]) -> bool:
    """For all x, where k is an integer, for some constant c."""
    plain = " ".join(_PLAIN_WORDS.sub(r" \1 ", text).replace(",", " ").split())
    if len(plain) > _LONGEST:
        return False
    if found := _SIGNED.fullmatch(plain):
        domains[_plain(found[1])] = "R+" if found[2] == ">" else f"{found[2]}0"
        return True
    member = _MEMBER_OF.search(plain)
    tokens = plain[: member.start() if member else len(plain)].split()
    if not tokens:
        return False
    names, words = [], []
    for token, after in zip(tokens, [*tokens[1:], ""], strict=True):
        is_article = token == "a" and len(after) > 1
        if _ONE_NAME.fullmatch(token) and not is_article:
            names.append(token)
        elif token not in _SAYS_NOTHING:
            words.append(token)
    kind = " ".join(words)
    kind = kind if kind in _KINDS else kind.removesuffix("s")
    if not tokens or kind not in _KINDS or not (kind or (member and names) or (names and _FOR.match(plain))):
        return False
    for name in names:
        domains[_plain(name)] = _domain(member["domain"]) if member else _KINDS[kind]
    return True


def _defined(text: str, definitions: dict[str, Node]) -> bool:
    r"""Where \varphi = \frac{1+\sqrt5}{2}."""
    plain = " ".join(_PLAIN_WORDS.sub(r" \1 ", text).split())
    found = _DEFINITION.fullmatch(plain)
    if found is None or not plain.startswith(("where", "with", "here")):
        return False
    try:
        definitions[_plain(found[1])] = parse(found[2])
    except UnreadableError:
        return False
    return True


def _plain(name: str) -> str:
    """A name as the grammar's symbols have it."""
    return re.sub(r"_\{([0-9])\}", r"_\1", name)
