"""Unions of intervals of numbers: put in order, merged, intersected, complemented."""

from __future__ import annotations

from fractions import Fraction
from functools import cmp_to_key

from unlearnbench.verifier.math import ball_arithmetic
from unlearnbench.verifier.math.nodes import Answer, Collection, Node, Number, Region, Span, UnreadableError, Value

_MOST_INTEGERS = 200


def complement(region: Region) -> Region:
    """The real numbers outside a region."""
    spans: list[Span] = []
    low: Node | None = None
    closed, open_ended = False, True
    for span in union([region]).spans:
        if span.low is not None:
            spans.append(Span(low, span.low, closed, not span.low_closed))
        low, closed = span.high, not span.high_closed
        open_ended = span.high is not None
    if open_ended:
        spans.append(Span(low, None, closed and low is not None, False))
    return Region(tuple(spans), region.variable)


def integers_in(region: Region, start: int | None) -> list[int]:
    """The whole numbers in a region, from `start` on. Raises UnreadableError where there are too many to list."""
    found: list[int] = []
    for span in region.spans:
        if span.high is None or (span.low is None and start is None):
            raise UnreadableError("whole numbers without end")
        first = _nearest(span.low, -1) if span.low is not None else start or 0
        if start is not None:
            first = max(first, start)
        for number in range(first, first + _MOST_INTEGERS + 2):
            node = Number(Fraction(number))
            if span.low is not None and ball_arithmetic.order(node, span.low) < (0 if span.low_closed else 1):
                continue
            if ball_arithmetic.order(node, span.high) > (0 if span.high_closed else -1):
                break
            found.append(number)
        if len(found) > _MOST_INTEGERS:
            raise UnreadableError("too many whole numbers")
    return found


def _nearest(node: Node, step: int) -> int:
    """A whole number within 1 of a constant."""
    return ball_arithmetic.near_integer(node) + step


def union(regions: list[Region]) -> Region:
    """The union. Raises UnreadableError if the regions are of different variables."""
    names = {region.variable for region in regions if region.variable}
    if len(names) > 1:
        raise UnreadableError("regions of different variables")
    spans = sorted((span for region in regions for span in region.spans), key=cmp_to_key(_by_low))
    merged: list[Span] = []
    for span in spans:
        if merged and _touch(merged[-1], span):
            merged[-1] = _joined(merged[-1], span)
        else:
            merged.append(span)
    return Region(tuple(merged), names.pop() if names else None)


def _by_low(a: Span, b: Span) -> int:
    if a.low is None or b.low is None:
        return (b.low is None) - (a.low is None)
    return ball_arithmetic.order(a.low, b.low) or b.low_closed - a.low_closed


def _touch(a: Span, b: Span) -> bool:
    if a.high is None or b.low is None:
        return True
    order = ball_arithmetic.order(b.low, a.high)
    return order < 0 or (order == 0 and (a.high_closed or b.low_closed))


def _joined(a: Span, b: Span) -> Span:
    if a.high is None or b.high is None:
        return Span(a.low, None, a.low_closed, False)
    order = ball_arithmetic.order(a.high, b.high)
    high, closed = (a.high, a.high_closed) if order > 0 else (b.high, b.high_closed)
    return Span(a.low, high, a.low_closed, closed or (order == 0 and a.high_closed))


def intersection(regions: list[Region]) -> Region:
    """The intersection. Raises UnreadableError if the regions are of different variables."""
    names = {region.variable for region in regions if region.variable}
    if len(names) > 1:
        raise UnreadableError("regions of different variables")
    spans = regions[0].spans
    for region in regions[1:]:
        spans = tuple(both for one in spans for other in region.spans if (both := _common(one, other)) is not None)
    return Region(spans, names.pop() if names else None)


def _common(a: Span, b: Span) -> Span | None:
    first, high = (a if _by_low(a, b) > 0 else b), _lower_high(a, b)
    low_closed = first.low_closed
    if a.low is not None and b.low is not None and ball_arithmetic.order(a.low, b.low) == 0:
        low_closed = a.low_closed and b.low_closed
    high_closed = high.high_closed
    if a.high is not None and b.high is not None and ball_arithmetic.order(a.high, b.high) == 0:
        high_closed = a.high_closed and b.high_closed
    if first.low is not None and high.high is not None:
        order = ball_arithmetic.order(first.low, high.high)
        if order > 0 or (order == 0 and not (low_closed and high_closed)):
            return None
    return Span(first.low, high.high, low_closed, high_closed)


def _lower_high(a: Span, b: Span) -> Span:
    if a.high is None:
        return b
    if b.high is None:
        return a
    return a if ball_arithmetic.order(a.high, b.high) <= 0 else b


def as_region(answer: Answer) -> Region | None:
    """The region that an answer is or may be, as (a,b) may be an open interval; None if it is neither."""
    if isinstance(answer, Region):
        return answer
    if isinstance(answer, Collection) and answer.kind == "tuple" and len(answer.items) == 2:
        low, high = answer.items
        if isinstance(low, Value) and isinstance(high, Value):
            return Region((Span(low.node, high.node, False, False),))
    return None
