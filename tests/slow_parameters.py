"""Parameters each of which takes long: the first are tried in every run of the tests, the others in the slow ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def but_first_slow(values: Iterable[Any], first: int = 1) -> list[Any]:
    """Parameters of a test of one argument; all but the first so many carry the marker `slow`."""
    every = list(values)
    return [*every[:first], *(pytest.param(value, marks=pytest.mark.slow) for value in every[first:])]
