"""Parameters each of which starts processes: the first is tried in every run, the others in the slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def but_first_slow(values: Iterable[Any]) -> list[Any]:
    """Parameters of a test of one argument; all but the first carry the marker `slow`."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.slow) for value in others)]
