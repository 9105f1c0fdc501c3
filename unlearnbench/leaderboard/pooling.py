"""One method's scores over several editions: the mean of gains, its interval, and Fisher's p (PROTOCOL 3.11)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unlearnbench.records import Interval, Record


class Score(Record):
    """A gain as a fraction, its 95 % interval beyond the families of its splits, and p."""

    gain: float | None
    interval: Interval | None
    p: float | None = None
    adjusted: float | None = None
    """p after Holm's rule over the entries of its group."""


def pooled(parts: Sequence[tuple[float | None, Interval | None, float | None]]) -> Score | None:
    """The score of a method by its (gain, interval, p) in each edition; None where no gain is defined.

    The gain is the mean over editions. Its interval adds the squares of the distances to the limits of each (Zou &
    Donner 2008, Statistics in Medicine 27:1693), since editions share no problems, policies or seeds; it needs the
    interval of each, as p does. Of one edition all three are that edition's own.
    """
    known = [(gain, interval, p) for gain, interval, p in parts if gain is not None]
    if not known:
        return None
    if len(known) == 1:
        return Score(gain=known[0][0], interval=known[0][1], p=known[0][2])
    gain = sum(gain for gain, _, _ in known) / len(known)
    ends = [(gain - interval[0], interval[1] - gain) for gain, interval, _ in known if interval is not None]
    interval = None
    if len(ends) == len(known):
        below, above = (math.sqrt(sum(end[side] ** 2 for end in ends)) / len(ends) for side in (0, 1))
        interval = (gain - below, gain + above)
    found = [p for _, _, p in known if p is not None]
    return Score(gain=gain, interval=interval, p=fisher(found) if len(found) == len(known) else None)


def fisher(values: Sequence[float]) -> float:
    """The chance of p-values whose product is as small, if all are uniform and independent (Fisher 1932).

    The upper tail of chi-squared with 2 k degrees of freedom at -2 sum log p, in closed form:
    exp(-x) sum_{i<k} x^i / i! with x = -sum log p. Raises ValueError for a p-value outside (0, 1].
    """
    if any(not 0 < p <= 1 for p in values):
        raise ValueError("a p-value lies above 0 and is at most 1")
    half = -sum(math.log(p) for p in values)
    terms, term = 0.0, 1.0
    for place in range(len(values)):
        terms += term
        term *= half / (place + 1)
    return min(1.0, math.exp(-half) * terms) if values else 1.0
