"""The pages' drawings: numbers in, inline SVG out that fits any width and takes the page's colours.

Places along the width are percentages, so that a drawing is as wide as the page lets it be while its text and marks
keep their size: on a phone, on a desk, in print. Colours are classes of page.css. All text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from unlearnbench.reports.formatting import signed

Array = NDArray[np.float64]

ROW = 26
"""Pixels of a row of a strip."""
NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """A linear scale from `low` to `high`, with the places of its ticks."""

    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Iterable[float], ticks: int = 5, least: float = 0.0) -> Scale:
        """A scale over these values and 0, at least `least` wide, that ends at ticks."""
        found = [0.0, *values]
        low, high = min(found), max(found)
        if high - low < least:
            high = low + least
        step = _step((high - low) / ticks)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        places = [step * place for place in range(first, max(last, first + 1) + 1)]
        return cls(places[0], places[-1], places)

    def snug(self, values: Sequence[float]) -> Scale:
        """The same scale, ending a little beyond these values and 0; ticks beyond its ends are left out."""
        low, high = min([0.0, *values]), max([0.0, *values])
        room = 0.04 * max(high - low, 0.5 * (self.high - self.low))
        ends = max(self.low, low - room), min(self.high, high + room)
        return Scale(*ends, [tick for tick in self.ticks if ends[0] <= tick <= ends[1]])

    def at(self, value: float) -> float:
        """Percent of the width."""
        return 100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


PERCENT = Scale(0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))


@dataclass(frozen=True)
class StripRow:
    """A value with its interval, if it has one, under a name."""

    name: str
    value: float
    interval: tuple[float, float] | None


def strip(
    rows: Sequence[StripRow],
    box: tuple[float, float] | None,
    unit: str,
    box_name: str = "",
    shown: Callable[[float], str] = signed,
    least: float = 0.02,
) -> Markup:
    """Values with intervals against 0, written as `shown` does (default: in points), on a scale at least `least` wide.

    `box` is a grey range that all of them are seen against.
    """
    ends = [end for row in rows for end in (row.interval or (row.value, row.value))]
    scale = Scale.over([*ends, *(box or ())], least=least).snug([*ends, *(box or ())])
    drawn = []
    for row in rows:
        marks = [] if box is None else [_band(scale, box)]
        marks += [_rule(scale, tick) for tick in scale.ticks]
        marks.append(_rule(scale, 0.0, "zero"))
        if row.interval is not None:
            marks.append(_span(scale, row.interval))
        marks.append(Markup('<circle cx="{:.2f}%" cy="13" r="5" class="dot"/>').format(scale.at(row.value)))
        drawn.append(_row(row.name, _svg(marks, ROW)))
    labels = [(tick, _tick(tick) if shown is signed else f"{tick:+.3g}" if tick else "0") for tick in scale.ticks]
    caption = f"{unit}; grey: {box_name}" if box is not None and box_name else unit
    said = "; ".join(f"{row.name}: {shown(row.value)}" + _said(row.interval, shown) for row in rows)
    return _figure("strip", f"{unit}. {said}", [*drawn, _axis(scale, labels)], caption)


@dataclass(frozen=True)
class GroupRow:
    """A group's mean rates before and after training, and after training of the null control."""

    name: str
    items: int
    before: float | None
    after: float | None
    interval: tuple[float, float] | None
    null: float | None


def group_dots(rows: Sequence[GroupRow]) -> Markup:
    """Rates of each group on a scale from 0 to 100 %: before hollow, after filled with its interval, null as a tick."""
    drawn = []
    for row in rows:
        marks = [_rule(PERCENT, tick) for tick in PERCENT.ticks]
        if row.before is not None and row.after is not None:
            ends = sorted((PERCENT.at(row.before), PERCENT.at(row.after)))
            marks.append(Markup('<line x1="{:.2f}%" x2="{:.2f}%" y1="13" y2="13" class="way"/>').format(*ends))
        if row.interval is not None:
            marks.append(_span(PERCENT, row.interval))
        if row.null is not None:
            marks.append(
                Markup('<rect x="{:.2f}%" y="3" width="2" height="20" class="null"/>').format(PERCENT.at(row.null))
            )
        if row.before is not None:
            marks.append(Markup('<circle cx="{:.2f}%" cy="13" r="5" class="hollow"/>').format(PERCENT.at(row.before)))
        if row.after is not None:
            marks.append(Markup('<circle cx="{:.2f}%" cy="13" r="5" class="dot"/>').format(PERCENT.at(row.after)))
        drawn.append(_row(f"{row.name} ({row.items})", _svg(marks, ROW)))
    said = "; ".join(
        f"{row.name}: {_share(row.before)} before, {_share(row.after)} after, {_share(row.null)} under the null control"
        for row in rows
    )
    labels = [(tick, f"{100 * tick:g} %") for tick in PERCENT.ticks]
    caption = "rate of correct rollouts: ○ before, ● after"
    caption += " with its 95 % interval" if any(row.interval is not None for row in rows) else ""
    caption += ", | null control after" if any(row.null is not None for row in rows) else ""
    return _figure("strip groups", said, [*drawn, _axis(PERCENT, labels)], caption)


@dataclass(frozen=True)
class Mark:
    """An item: its rate after training, the share of seeds that solved it, whether any converted it."""

    item_id: str
    rate: float
    solved: float
    converted: bool


def marks_svg(marks: Sequence[Mark], mean: float | None, null: float | None, least: float) -> Markup:
    """One mark per item by its rate after training: its fill the share of seeds that solved it, a diamond if converted.

    Ticks: the family's mean, and the null control's. The broken line is the least rate of a solved item.
    """
    places = _spread([mark.rate for mark in marks])
    drawn = [Markup('<line x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%" class="least"/>').format(100 * least)]
    for name, value in (("null", null), ("mean", mean)):
        if value is not None:
            drawn.append(
                Markup('<rect x="{:.2f}%" y="2" width="2" height="{}" class="{}"/>').format(100 * value, ROW - 4, name)
            )
    for mark, place in sorted(zip(marks, places, strict=True), key=lambda pair: (pair[0].converted, pair[0].solved)):
        drawn.append(
            Markup('<use href="#{}" x="{:.2f}%" y="{:g}" class="f{}" data-item="{}"/>').format(
                "diamond" if mark.converted else "disc",
                100 * mark.rate,
                place,
                math.ceil(3 * mark.solved),
                mark.item_id,
            )
        )
    return _svg(drawn, ROW)


def _spread(rates: Sequence[float]) -> list[float]:
    """Heights in a row such that marks at the same rate do not overlap."""
    found, seen = [], dict[int, int]()
    for rate in rates:
        place = round(80 * rate)
        number = seen[place] = seen.get(place, -1) + 1
        found.append(13.0 + (0, -5, 5, -9, 9, -2.5, 2.5, -7, 7)[number % 9])
    return found


@dataclass(frozen=True)
class Line:
    """A curve over steps with the band around it; `kind` names its colour in page.css."""

    name: str
    kind: str
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None
    broken: bool = False


def lines(series: Sequence[Line], *, share: bool, label: str, height: int = 220, top: float | None = None) -> Markup:
    """Curves with their bands over the steps. `share`: fractions from 0 to 1, shown in percent; NaN leaves a gap."""
    ends = [
        value for line in series for part in (line.y, line.low, line.high) if part is not None for value in _ends(part)
    ]
    across = Scale.over([value for line in series for value in _ends(line.x)], ticks=5, least=1)
    last = max((float(line.x[-1]) for line in series if len(line.x)), default=1.0)
    across = Scale(0.0, max(last, 1.0), [tick for tick in across.ticks if 0 <= tick <= last])
    if share and top is None and max(ends, default=0.0) > 0.5:
        up = PERCENT
    else:
        shown = [min(value, top) for value in ends] if top is not None else ends
        up = Scale.over(shown, ticks=4, least=1e-9 if not share else 0.001)
    paths = []
    for line in series:
        if line.low is not None and line.high is not None:
            paths.append(Markup('<path d="{}" class="band {}"/>').format(_area(line, across, up), line.kind))
    for line in series:
        dashes = " broken" if line.broken else ""
        paths.append(Markup('<path d="{}" class="curve {}{}"/>').format(_path(line, across, up), line.kind, dashes))
    inner = Markup(
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" aria-hidden="true">{}</svg>'
    ).format(Markup("").join(paths))
    text = []
    for tick in up.ticks:
        y = 100 - up.at(tick)
        text.append(Markup('<line x1="0" x2="100%" y1="{0:.2f}%" y2="{0:.2f}%" class="grid"/>').format(y))
        name = f"{100 * tick:.3g}" if share else f"{tick:.3g}"
        text.append(Markup('<text x="0" y="{:.2f}%" dx="-6" dy="4" class="end">{}</text>').format(y, name))
    for tick in across.ticks:
        text.append(Markup('<text x="{:.2f}%" y="100%" dy="16" class="mid">{:g}</text>').format(across.at(tick), tick))
    svg = Markup('<svg class="lines" style="height:{}px" role="img" aria-label="{}">{}{}</svg>').format(
        height, label, Markup("").join(text), inner
    )
    return Markup('<div class="chart">{}</div>').format(svg)


def _ends(values: Array) -> list[float]:
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if len(finite) else []


def _path(line: Line, across: Scale, up: Scale) -> str:
    found, pen = [], False
    for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True):
        if not math.isfinite(y):
            pen = False
            continue
        found.append(f"{'L' if pen else 'M'}{10 * across.at(x):.0f} {1000 - 10 * up.at(y):.0f}")
        pen = True
    return "".join(found)


def _area(line: Line, across: Scale, up: Scale) -> str:
    assert line.low is not None and line.high is not None
    known = np.isfinite(line.low) & np.isfinite(line.high)
    if not known.any():
        return ""
    there = list(zip(line.x[known].tolist(), line.high[known].tolist(), strict=True))
    back = list(zip(line.x[known].tolist(), line.low[known].tolist(), strict=True))[::-1]
    return "M" + "L".join(f"{10 * across.at(x):.0f} {1000 - 10 * up.at(y):.0f}" for x, y in there + back) + "Z"


def bar(parts: Sequence[tuple[str, float]], label: str) -> Markup:
    """Shares of a whole side by side; each part's first entry is its class."""
    left, drawn = 0.0, []
    for name, share in parts:
        drawn.append(
            Markup('<rect x="{:.2f}%" width="{:.2f}%" y="3" height="14" class="{}"/>').format(
                100 * left, 100 * share, name
            )
        )
        left += share
    return Markup('<svg class="share" role="img" aria-label="{}">{}</svg>').format(label, Markup("").join(drawn))


# --- pieces -------------------------------------------------------------------------------------------------------


def _figure(name: str, label: str, rows: Sequence[Markup], caption: str) -> Markup:
    """Rows that a screen reader hears as the one sentence of `label`."""
    return Markup(
        '<figure class="{}"><div role="img" aria-label="{}">{}</div><figcaption>{}</figcaption></figure>'
    ).format(name, label, Markup("").join(rows), caption)


def _row(name: str, svg: Markup) -> Markup:
    return Markup('<div class="row"><span class="name">{}</span>{}</div>').format(name, svg)


def _axis(scale: Scale, labels: Sequence[tuple[float, str]]) -> Markup:
    """Tick labels below a strip, those at its ends turned inwards."""
    text = []
    for place, words in labels:
        x = scale.at(place)
        side = "start" if x < 1 else "end" if x > 99 else "mid"
        text.append(Markup('<text x="{:.2f}%" y="13" class="{}">{}</text>').format(x, side, words))
    return _row("", _svg(text, 18))


def _svg(marks: Sequence[Markup], height: int) -> Markup:
    return Markup('<svg style="height:{}px" aria-hidden="true">{}</svg>').format(height, Markup("").join(marks))


def _band(scale: Scale, ends: tuple[float, float]) -> Markup:
    low, high = scale.at(ends[0]), scale.at(ends[1])
    return Markup('<rect x="{:.2f}%" width="{:.2f}%" y="0" height="100%" class="box"/>').format(
        low, max(high - low, 0.4)
    )


def _rule(scale: Scale, value: float, name: str = "grid") -> Markup:
    return Markup('<line x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%" class="{1}"/>').format(scale.at(value), name)


def _span(scale: Scale, ends: tuple[float, float]) -> Markup:
    return Markup('<line x1="{:.2f}%" x2="{:.2f}%" y1="13" y2="13" class="span"/>').format(*map(scale.at, ends))


def _step(least: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is at least so much."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * nice for nice in NICE if power * nice >= least * (1 - 1e-9))


def _tick(value: float) -> str:
    """A place on a scale of points."""
    return "0" if abs(value) < 1e-12 else f"{100 * value:+.3g}".replace("-", "\N{MINUS SIGN}")


def _said(interval: tuple[float, float] | None, shown: Callable[[float], str]) -> str:
    return "" if interval is None else f" (95 % interval {shown(interval[0])} to {shown(interval[1])})"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def scatter(first: Array, second: Array, kinds: Sequence[str], names: tuple[str, str], least: float) -> Markup:
    """Rates of items in two runs, from 0 to 100 %; `kinds` says which run solved an item: first, second, both, neither.

    On the dotted line both runs are alike; the broken ones are the least rate of a solved item.
    """
    drawn = [Markup('<line x1="0" y1="100%" x2="100%" y2="0" class="least"/>')]
    at = 100 * least
    drawn.append(Markup('<line x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%" class="grid"/>').format(at))
    drawn.append(Markup('<line y1="{0:.2f}%" y2="{0:.2f}%" x1="0" x2="100%" class="grid"/>').format(100 - at))
    for tick in PERCENT.ticks:
        at = 100 * tick
        drawn.append(Markup('<text x="{:.0f}%" y="100%" dy="16" class="mid">{:.0f}</text>').format(at, at))
        drawn.append(Markup('<text x="0" y="{:.0f}%" dx="-6" dy="4" class="end">{:.0f}</text>').format(100 - at, at))
    marks = zip(first.tolist(), second.tolist(), kinds, strict=True)
    for x, y, kind in sorted(marks, key=lambda mark: mark[2] != "neither"):
        shape = "diamond" if kind == "both" else "disc"
        mark = Markup('<use href="#{}" x="{:.2f}%" y="{:.2f}%" class="of-{}"/>')
        drawn.append(mark.format(shape, 100 * x, 100 - 100 * y, kind))
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("first", "second", "both", "neither"))
    label = f"{len(kinds)} items by {names[0]} and {names[1]}; solved in: {counted}"
    whole = Markup('<div class="chart square"><svg role="img" aria-label="{}">{}</svg></div><p class="note">{}</p>')
    return whole.format(label, Markup("").join(drawn), f"Across: {names[0]} (%). Up: {names[1]} (%).")
