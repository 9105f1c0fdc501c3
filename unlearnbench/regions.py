"""Unions of intervals of numbers: put in order, merged, cut, with a point left out."""

from __future__ import annotations

from functools import cmp_to_key

from unlearnbench import enclosures
from unlearnbench.expressions import Node, UnreadableError
from unlearnbench.structures import Answer, Collection, Region, Span, Value


def without(region: Region, point: Node) -> Region:
    """The region less one point."""
    spans: list[Span] = []
    for span in region.spans:
        below = span.low is None or enclosures.order(span.low, point) < 0
        above = span.high is None or enclosures.order(point, span.high) < 0
        if below and above:
            spans += [Span(span.low, point, span.low_closed, False), Span(point, span.high, False, span.high_closed)]
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
    return enclosures.order(a.low, b.low) or b.low_closed - a.low_closed


def _touch(a: Span, b: Span) -> bool:
    if a.high is None or b.low is None:
        return True
    order = enclosures.order(b.low, a.high)
    return order < 0 or (order == 0 and (a.high_closed or b.low_closed))


def _joined(a: Span, b: Span) -> Span:
    if a.high is None or b.high is None:
        return Span(a.low, None, a.low_closed, False)
    order = enclosures.order(a.high, b.high)
    high, closed = (a.high, a.high_closed) if order > 0 else (b.high, b.high_closed)
    return Span(a.low, high, a.low_closed, closed or (order == 0 and a.high_closed))


def intersection(regions: list[Region]) -> Region:
    """What lies in all of them, single intervals of one variable. Raises UnreadableError for others."""
    if len({region.variable for region in regions}) > 1 or any(len(region.spans) != 1 for region in regions):
        raise UnreadableError("regions that are not intersected here")
    low: Span | None = None
    high: Span | None = None
    for (span,) in (region.spans for region in regions):
        if span.low is not None and (low is None or _by_low(low, span) < 0):
            low = span
        if span.high is not None and (high is None or high.high is None or enclosures.order(span.high, high.high) < 0):
            high = span
    return Region(
        (
            Span(
                low.low if low else None,
                high.high if high else None,
                bool(low and low.low_closed),
                bool(high and high.high_closed),
            ),
        ),
        regions[0].variable,
    )


def as_region(answer: Answer) -> Region | None:
    """A region as it is, (a,b) as the open interval that it may also be, else None."""
    if isinstance(answer, Region):
        return answer
    if isinstance(answer, Collection) and answer.kind == "tuple" and len(answer.items) == 2:
        low, high = answer.items
        if isinstance(low, Value) and isinstance(high, Value):
            return Region((Span(low.node, high.node, False, False),))
    return None
