"""result.json: the score of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    model_validator,
)

from unlearnbench.records.base import GroupName, Interval, Record, Track, TwinKind
from unlearnbench.records.split import Sampling

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class MethodRecord(Record):
    name: str
    source_hash: str
    track: Track
    reads: Sequence[str] = ()
    settings: Mapping[str, Any] = {}


class SpentBudget(Record):
    multiple: float | None = None
    limit: int | None = None
    used: Sequence[int] = ()
    """FLOPs of each seed, in the order of `seeds`."""


class GroupScore(Record):
    """One group. Numbers of items are means over seeds; `converted` needs a probe, and is None without any."""

    items: int
    rate_before: float | None
    rate_start: float | None
    rate_after: float | None
    rate_after_interval: Interval | None
    converted_at_start: float | None
    """Of the policy that training began from: solved, by the same rule as `solved`."""
    solved: float | None = None
    converted: float | None
    memorised: float | None = None
    """Solved, and the item's probe not."""
    with_probe: int = 0
    conversion: float | None
    """Share of all items of the group that are converted."""
    conversion_interval: Interval | None
    pass_at_k: Mapping[str, float | None]


class NaiveConversion(Record):
    """What naive rules would have claimed: fraction of unlearnable items above tau in one, or two, seeds."""

    any_seed: float | None
    two_seeds: float | None


class FamilyConversion(Record):
    items: int
    converted: float | None
    solved: float | None = None


class TunedNull(Record):
    """GRPO at its best learning rate among those that lose no more easy items than the method does, or 5 %."""

    learning_rate: float
    """As a multiple of the recipe's."""
    rate: float | None
    easy_lost: float | None
    """Share of the easy items."""
    gain: float | None
    """Conversion of the method minus that of this null."""
    interval: Interval | None
    """95 % interval of `gain` beyond these families."""
    seeds: int = 0


class Conversion(Record):
    """The headline: share of unlearnable items converted, minus the null control's."""

    gain: float | None
    interval: Interval | None
    interval_families: Interval | None
    p: float | None = None
    """That the method converts no more than the null: the larger of permuted runs and resampled families."""
    method_rate: float | None
    null_rate: float | None
    null_hash: str | None
    null_seeds: int
    solved_gain: float | None = None
    solved_interval: Interval | None = None
    """Beyond these families."""
    memorised_rate: float | None = None
    ceiling: float | None = None
    """Conversion of the positive control."""
    tuned_null: TunedNull | None = None
    rule: str
    scope: str | None
    naive: NaiveConversion
    families: Mapping[str, FamilyConversion]


class Frontier(Record):
    """Items solved of the unlearnable and unstable, weighted by the share of labelling runs that failed them."""

    gain: float | None
    interval: Interval | None
    interval_families: Interval | None
    method: float | None
    null: float | None
    p: float | None


class TwinScore(Record):
    items: int
    eligible: int
    rate: float | None
    null_rate: float | None
    gain: float | None
    interval: Interval | None
    own_gain: float | None = None
    """Of the items that the twins belong to."""
    verdict: Literal["generalised", "partly", "memorised", "undecided"]


class CountOf(Record):
    items: int
    converted: float | None


class Fates(Record):
    never: int
    flickered: int
    lost: int
    held: int


class Steps(Record):
    """Training steps per seed: made, on average, and planned by the recipe at this budget."""

    made: float
    planned: int


class BlockMean(Record):
    """Mean gradient similarity of two groups' items, with its 95 % interval over items."""

    a: GroupName
    b: GroupName
    of: Literal["all", "same_skill", "other_skills"] = "all"
    """Which pairs: all, those of one skill, or those of two."""
    pairs: int
    mean: float | None
    interval: Interval | None


class SimilarityScore(Record):
    """Gradient similarity before and after training; `why_not` says why there is none."""

    start: Sequence[BlockMean] = ()
    end: Sequence[BlockMean] = ()
    why_not: str | None = None


class Retention(Record):
    """What became of the easy items; `easy_lost` is a number of items, the mean over seeds."""

    easy_items: int
    easy_lost: float | None
    easy_rate_change: float | None
    interval: Interval | None
    null_easy_lost: float | None = None
    null_easy_rate_change: float | None = None


class Cost(Record):
    generated_tokens: int = 0
    trained_tokens: int = 0
    forward_tokens: int = 0
    flops: int = 0
    verifier_calls: int = 0
    ungradable: int = 0
    seconds: float = 0.0
    device: str = ""
    cpu_seconds: float | None = None
    """Of all processes that trained, as the operating system counted them, start-up left out."""
    cpu_seconds_per_flop_over_null: float | None = None
    """Over the null control's on the same machine: training that was not metered shows here."""


class Result(Record):
    """result.json: one method on one split, all seeds, scored. Rates and gains are fractions; undefined is None."""

    schema_version: Literal[1, 2] = 2
    code_version: str
    scorer_version: str
    kind: Literal["eval", "checkpoint", "score"]
    comparable: bool
    why_not_comparable: str | None
    split: str
    split_hash: str
    method: MethodRecord
    seeds: Sequence[int] = Field(min_length=1)
    samples: int
    sampling: Sampling
    budget: SpentBudget
    groups: Mapping[GroupName, GroupScore]
    conversion: Conversion
    frontier: Frontier | None = None
    twins: Mapping[TwinKind, TwinScore]
    thin: CountOf
    canaries: CountOf
    fates: Fates | None
    retention: Retention
    steps: Steps | None = None
    cost: Cost
    similarity: SimilarityScore | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, data: Any) -> Any:
        """Version 1 under the names of version 2, to be shown; its numbers are never ranked with those of version 2."""
        if not isinstance(data, Mapping) or data.get("schema_version") != 1:
            return data
        conversion = dict(data.get("conversion") or {})
        strong = {name: conversion.pop(name, None) for name in [*conversion] if name.startswith("strong_null_")}
        if strong.get("strong_null_factor") is not None:
            conversion["tuned_null"] = {
                "learning_rate": strong["strong_null_factor"],
                "rate": strong["strong_null_rate"],
                "easy_lost": None,
                "gain": strong.get("strong_null_gain"),
                "interval": strong.get("strong_null_interval"),
                "seeds": strong.get("strong_null_seeds", 0),
            }
        fates = data.get("fates")
        if isinstance(fates, Mapping) and "converted" in fates:
            fates = {**{k: v for k, v in fates.items() if k != "converted"}, "lost": fates["converted"]}
        return {**data, "conversion": conversion, "fates": fates}

    _folder: Path | None = PrivateAttr(default=None)

    @property
    def quick(self) -> bool:
        """Whether it is of `eval --quick`, which tries a method out and scores nothing."""
        return (self.why_not_comparable or "").startswith("--quick")

    def in_folder(self, folder: Path) -> Result:
        """The same result, which knows the folder of its run: `to_frame` reads items.csv there."""
        found = self.model_copy()
        found._folder = Path(folder)
        return found

    def __eq__(self, other: object) -> bool:
        """By what is written in result.json, whichever folder it is known from."""
        return isinstance(other, Result) and self.__dict__ == other.__dict__

    __hash__ = Record.__hash__

    def to_frame(self) -> pandas.DataFrame:
        """All items of the run as a pandas frame, one row each (columns as in items.csv; lists by seed).

        Raises RunError for a result that does not know its run's folder.
        """
        from unlearnbench.reports.notebook import result_frame

        return result_frame(self, self._folder)

    def plot(self) -> Figure:
        """The gains over GRPO re-run and tuned GRPO and the frontier score, with their 95 % intervals, in points."""
        from unlearnbench.reports.notebook import result_figure

        return result_figure(self)

    def __str__(self) -> str:
        """The sentence to quote."""
        from unlearnbench.reports.notebook import result_sentence

        return result_sentence(self)

    def _repr_html_(self) -> str:
        from unlearnbench.reports.notebook import result_html

        return result_html(self)
