"""Unions of intervals of numbers: put in order, merged, cut, with a point left out."""

from __future__ import annotations

from functools import cmp_to_key

from unlearnbench.verifier.math import ball_arithmetic
from unlearnbench.verifier.math.nodes import Answer, Collection, Node, Region, Span, UnreadableError, Value


def without(region: Region, point: Node) -> Region:
    """The region less one point."""
    spans: list[Span] = []
    for span in region.spans:
        below = -1 if span.low is None else ball_arithmetic.order(span.low, point)
        above = -1 if span.high is None else ball_arithmetic.order(point, span.high)
        if below < 0 and above < 0:
            spans += [Span(span.low, point, span.low_closed, False), Span(point, span.high, False, span.high_closed)]
        elif below == 0 or above == 0:
            closed = span.low_closed and below != 0, span.high_closed and above != 0
            if below < 0 or above < 0:  # else it was that point alone
                spans.append(Span(span.low, span.high, *closed))
        else:
            spans.append(span)
    return Region(tuple(spans), region.variable)


def union(regions: list[Region]) -> Region:
    """What lies in any of them. Raises UnreadableError where they are of different variables."""
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
    """What lies in all of them. Raises UnreadableError where they are of different variables."""
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
    """A region as it is, (a,b) as the open interval that it may also be, else None."""
    if isinstance(answer, Region):
        return answer
    if isinstance(answer, Collection) and answer.kind == "tuple" and len(answer.items) == 2:
        low, high = answer.items
        if isinstance(low, Value) and isinstance(high, Value):
            return Region((Span(low.node, high.node, False, False),))
    return None
