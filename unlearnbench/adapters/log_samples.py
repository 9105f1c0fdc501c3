"""What every reader of an evaluator's log yields, and the samples that it leaves out."""

from __future__ import annotations

from typing import NamedTuple

from unlearnbench.errors import DataError
from unlearnbench.io import values


class Sample(NamedTuple):
    """One rollout of a log."""

    item_id: str
    completion: str
    finish: str | None
    number: int
    """The line, or the sample's place in the log, from 1."""
    done: float
    step: int | None = None


class Failures:
    """Samples without a rollout since the evaluation itself failed on them; at most `most` are left out."""

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self.names: list[str] = []

    def add(self, where: str, why: str) -> None:
        """Leave a sample out. Raises DataError where that is one more than `most`."""
        if len(self.names) >= self.most:
            more = f", and {self.most} were left out before it" if self.most else ""
            raise DataError(f"{where}, {why}{more}; --skip-failed N leaves out up to N such samples and names them")
        self.names.append(where)


def generated(where: str, value: object) -> str:
    """Generated text of a log. Raises DataError that begins with `where`."""
    if not isinstance(value, str):
        raise DataError(f"{where}: generated text was expected, but it is {values.shown(value)}")
    if not values.encodes(value):
        raise DataError(f"{where}: half of a surrogate pair is not Unicode text; write it as UTF-8")
    return value
