"""What methods there are: the built-in ones, and those that installed packages bring as entry points."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from unlearnbench.errors import MethodError
from unlearnbench.methods import BUILT_IN, GROUP, load, locate
from unlearnbench.methods.gains import present_gain, read_measured
from unlearnbench.records import Record, Track


class MethodSummary(Record):
    """A method by its name; `gain` is its conversion gain as measured here, None where it was not."""

    name: str
    does: str
    """In a few words: the first line of its class's docstring."""
    track: Track
    source: str
    """A paper, or who made it."""
    gain: float | None


def listed() -> tuple[Sequence[MethodSummary], Sequence[str]]:
    """Every method that loads, and a sentence for each that does not."""
    measured = read_measured()
    rows, problems = [], []
    # A name that is built in hides an entry point of that name, as it does for `eval --method`.
    for name in dict.fromkeys((*BUILT_IN, *sorted(entry.name for entry in entry_points(group=GROUP)))):
        try:
            source = locate(name)
            method = load(source)
        except MethodError as problem:
            problems.append(f"the method {name} cannot be loaded: {problem}")
            continue
        # What an entry point brings was not measured here, whatever its name.
        gain = present_gain(source, measured) if name in BUILT_IN else None
        told = {"track": method.track, "source": method.source or "not stated", "gain": gain}
        rows.append(MethodSummary(name=name, does=first_line(method).rstrip(".") or "-", **told))
    return rows, problems


def first_line(thing: Any) -> str:
    """The first paragraph of a docstring, on one line; of a class its own docstring alone."""
    text = inspect.cleandoc(vars(thing).get("__doc__") or "" if inspect.isclass(thing) else thing.__doc__ or "")
    return text.split("\n\n")[0].replace("\n", " ")
