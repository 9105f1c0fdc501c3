"""The pages' templates, with the filters that they are written in."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unlearnbench.reports.formatting import (
    cosine,
    count,
    duration,
    number,
    pct,
    plain,
    plural,
    point_span,
    points,
    power,
    span,
)

MAX_TEXT = 2000
"""Characters shown of a prompt or a completion."""
UNDEFINED = Markup('<span class="none">&ndash;</span>')
_FILTERS = (pct, points, span, point_span, count, number, power, duration, cosine)


@cache
def templates() -> Environment:
    """The pages' templates, each compiled once."""
    return new_templates()


def new_templates() -> Environment:
    """The pages' templates, with the filters they are written in, for a page that adds filters of its own."""
    environment = Environment(
        loader=PackageLoader("unlearnbench", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    for shown in _FILTERS:
        environment.filters[shown.__name__] = _or_undefined(shown)
    environment.filters["known"] = _or_undefined(lambda value: value)
    environment.filters["stated"] = lambda value: value if isinstance(value, str) else json.dumps(value)
    environment.globals |= {"plural": plural, "max_text": MAX_TEXT}
    return environment


@cache
def source(name: str) -> str:
    """The text of a file beside the templates: a style or a script."""
    return (Path(__file__).resolve().parents[1] / "templates" / name).read_text(encoding="utf-8")


def _or_undefined(shown: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: UNDEFINED if value is None else shown(value)
