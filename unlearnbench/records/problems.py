"""Problems: items, twins, canaries, related problems."""

from __future__ import annotations

from pydantic import (
    Field,
)

from unlearnbench.records.base import GroupName, Record, TwinKind


class Item(Record):
    """One problem of a split. `group` is None before labelling; `certified` is None where no certification ran."""

    item_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    solution: str = ""
    family: str = Field(min_length=1)
    group: GroupName | None = None
    certified: bool | None = None
    thin: bool = False
    cause: str | None = None
    depth: int | None = Field(default=None, ge=1)


class Twin(Record):
    """A held-out relative of an item that no training may touch (PROTOCOL 3.8)."""

    twin_id: str = Field(min_length=1)
    item_id: str = Field(min_length=1)
    kind: TwinKind
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    probe: bool = False
    """Whether its item counts as converted only where this twin is solved, too (PROTOCOL 3.3)."""


class Canary(Record):
    """A problem whose stored gold `answer` is wrong on purpose: a method that converts it has read the gold."""

    item_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    true_answer: str = Field(min_length=1)
    family: str = Field(min_length=1)
    solution: str = ""
    """Ends in the wrong gold, so that nothing in a sealed copy distinguishes canaries from items."""


class RelatedProblem(Record):
    """A generated problem that is like an item, or a step towards it: a row of similar or sub_problems.parquet."""

    problem_id: str = Field(min_length=1)
    item_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    solution: str = ""
    leaked: bool = False
    """It is a held-out probe, or its text is that of an item or a twin: not to be trained on."""
