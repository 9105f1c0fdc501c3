r"""Whether two families agree, whatever their parameters are called: k\pi and n\pi, 2k+1 and 2k-1, c and C."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations

from unlearnbench.verifier.math.families import Named, Progression, progressions, same_from, same_lines, same_unions
from unlearnbench.verifier.math.interval_sets import as_region
from unlearnbench.verifier.math.nodes import (
    COUNTERS,
    Answer,
    Apply,
    Collection,
    Family,
    Labelled,
    Number,
    Region,
    Symbol,
    answer_with,
    free_symbols,
    names_in,
)
from unlearnbench.verifier.parsing.names import FUNCTION

Same = Callable[[Answer, Answer], bool]
"""Whether two answers agree; given by `equivalence`, which calls this module."""

_PARAMETER = re.compile(r"[klmnjtscC](?:_[0-9])?")
_CONSTANT = re.compile(r"[cC](?:_[0-9])?")
_ARGUMENTS = frozenset("xyztnu")
_UNKNOWN = re.compile(r"(?:[a-z]|\\(?:theta|alpha|phi))(?:_[0-9])?")
_COEFFICIENT = re.compile(r"[abcdkmCK]|\\lambda")
_SHIFTS = [(sign, shift) for sign in (1, -1) for shift in range(-2, 3)]
_COMMAND = re.compile(r"\\[A-Za-z]+")
_FRESH = "\\kappa_1"
"""The name that the one parameter of both sides gets."""


def same_family(a: Family, b: Answer, same: Same) -> bool:
    """Whether two families are the same set, whatever their parameters are called."""
    other = b.answer if isinstance(b, Family) else b
    ours, theirs = dict(a.domains), dict(b.domains) if isinstance(b, Family) else {}
    if not theirs and _counts(a) and isinstance(b, Region) and b.variable:
        return same(a.answer, b)
    if not theirs:
        fixed = free_symbols(a.answer) - ours.keys()
        open_names = sorted(free_symbols(other) - fixed)
        theirs = dict.fromkeys(open_names, "")
    if len(ours) != len(theirs):
        return False
    if len(ours) == 1:
        (x,), (y,) = ours, theirs
        left, right = _renamed(a.answer, {x: _FRESH}), _renamed(other, {y: _FRESH})
        return _same_in_one(left, right, ours[x], theirs[y], same)
    fresh = {name: f"\\kappa_{at}" for at, name in enumerate(ours)}
    return len(ours) <= 3 and any(
        all(_may_agree(ours[x], theirs[y]) for x, y in zip(ours, order, strict=True))
        and same(_renamed(a.answer, fresh), _renamed(other, dict(zip(order, fresh.values(), strict=True))))
        for order in permutations(theirs)
    )


def _counts(a: Family) -> bool:
    r"""n \ge 3 for whole n, which nobody needs to say of an n."""
    region, ((name, domain), *more) = a.answer, a.domains
    whole = name in COUNTERS and domain in ("Z", "N", "N+", "N0")
    return isinstance(region, Region) and region.variable == name and whole and not more


def _renamed(answer: Answer, names: dict[str, str]) -> Answer:
    return answer_with(answer, {old: Symbol(new) for old, new in names.items()})


def _may_agree(a: str, b: str) -> bool:
    return a == b or "" in (a, b) or {a, b} in ({"N", "N+"}, {"N", "N0"})


def _same_in_one(a: Answer, b: Answer, ours: str, theirs: str, same: Same) -> bool:
    """Families in one parameter, which both call `_FRESH`, of the domains `ours` and `theirs`."""
    if not _may_agree(ours, theirs):
        return False
    domain = ours or theirs
    if isinstance(a, Region) or isinstance(b, Region):  # (2k\\pi, 2k\\pi+\\pi) may be an interval
        a, b = as_region(a) or a, as_region(b) or b
    if domain in ("Z", "N", "N+", "N0"):
        left, right = progressions(a, _FRESH), progressions(b, _FRESH)
        if left is not None and right is not None:
            return _same_progressions(_unlabelled(left, a, b), _unlabelled(right, b, a), domain)
    if same(a, b):
        return True
    if domain == "Z":
        moved = (
            Apply("add", (Apply("mul", (Number(Fraction(sign)), Symbol(_FRESH))), Number(Fraction(shift))))
            for sign, shift in _SHIFTS
        )
        return any(same(a, answer_with(b, {_FRESH: node})) for node in moved)
    if domain == "R":
        left, right = progressions(a, _FRESH), progressions(b, _FRESH)
        return left is not None and right is not None and len(left) == len(right) == 1 and same_lines(left[0], right[0])
    return False


def _unlabelled(found: list[Progression], answer: Answer, other: Answer) -> list[Progression]:
    """Without the name of the unknown where the other answer states none."""
    if _names(answer) and not _names(other):
        return [one._replace(shape=one.shape.shape) if isinstance(one.shape, Named) else one for one in found]
    return found


def _names(answer: Answer) -> bool:
    if isinstance(answer, Collection) and answer.kind in ("list", "set"):
        return any(map(_names, answer.items))
    return isinstance(answer, Labelled) or (isinstance(answer, Region) and answer.variable is not None)


def _same_progressions(a: list[Progression], b: list[Progression], domain: str) -> bool:
    if domain == "Z":
        return same_unions(a, b)
    starts = {"N+": [(1, 1)], "N0": [(0, 0)], "N": [(0, 0), (1, 1)]}[domain]
    return any(same_from(a, b, x, y) for x, y in starts)


def may_be_renamed(a: str, b: str) -> bool:
    """Whether each of two texts has a letter that the other has not."""
    mine, theirs = (set(_COMMAND.sub(" ", text)) for text in (a, b))
    return any(map(str.isalpha, mine - theirs)) and any(map(str.isalpha, theirs - mine))


def same_renamed(a: Answer, b: Answer, same: Same) -> bool:
    """The same for families that declare no parameter: k\\pi and n\\pi, n=3k and n=3m, (t,2t) and (s,2s), c and C."""
    mine, theirs = sorted(free_symbols(a) - free_symbols(b)), sorted(free_symbols(b) - free_symbols(a))
    if not 0 < len(mine) == len(theirs) <= 3 or isinstance(a, Family) or isinstance(b, Family):
        return False
    if not (all(map(_CONSTANT.fullmatch, mine + theirs)) and set() < free_symbols(a) - {*mine} <= _ARGUMENTS):
        if len(mine) > 1 or not (_functions(a, b) or _PARAMETER.fullmatch(mine[0]) or _PARAMETER.fullmatch(theirs[0])):
            return False
        pairs = ((a, mine[0]), (b, theirs[0]))
        if not all(_is_free_parameter(one, name) for one, name in pairs):
            return False
    fresh = [f"\\kappa_{at}" for at in range(len(mine))]
    left = _renamed(a, dict(zip(mine, fresh, strict=True)))
    return any(same(left, _renamed(b, dict(zip(order, fresh, strict=True)))) for order in permutations(theirs))


def _functions(a: Answer, b: Answer) -> bool:
    return all(isinstance(one, Labelled) and FUNCTION.fullmatch(one.label) for one in (a, b))


def _is_free_parameter(answer: Answer, name: str) -> bool:
    """Whether a variable can only be the parameter of a family, whatever its name."""
    if isinstance(answer, Collection) and answer.kind == "list":
        return all(_is_free_parameter(item, name) for item in answer.items)
    if isinstance(answer, Collection) and answer.kind in ("tuple", "record"):
        return free_symbols(answer) == {name}
    if isinstance(answer, Labelled) and FUNCTION.fullmatch(answer.label):  # f(x)=cx
        return _COEFFICIENT.fullmatch(name) is not None
    return _PARAMETER.fullmatch(name) is not None and (_is_solution(answer) or _is_periodic(answer, name))


def _is_solution(answer: Answer) -> bool:
    """n=3k: a value, in a parameter, of an unknown."""
    if isinstance(answer, Collection) and answer.kind == "list":
        return all(map(_is_solution, answer.items))
    return isinstance(answer, Labelled) and _UNKNOWN.fullmatch(answer.label) is not None


def _is_periodic(answer: Answer, name: str) -> bool:
    r"""Whether an answer moves by multiples of \pi, or of degrees, with its parameter."""
    found = progressions(answer, name)
    if not found:
        return False
    return any(one.in_degrees or any("pi" in names_in(step) for step in one.steps) for one in found)
