"""The records that everything else speaks in, and their file forms.

Records that cross a file boundary are frozen pydantic models that refuse unknown fields and carry a schema
version. Records that live only in memory (rollouts) are frozen dataclasses around numpy arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

GroupName = Literal["easy", "learnable", "unlearnable", "no_reward", "unstable", "boundary"]
TwinKind = Literal["changed_numbers", "other_wording", "same_skill"]
Track = Literal["verifier", "process", "answer", "solution", "teacher", "labels", "base", "undeclared"]
Reason = Literal["match", "mismatch", "no_answer", "ambiguous", "timeout", "too_large", "unparsable", "verifier_error"]
Finish = Literal["stop", "length"]
Fate = Literal["never", "flickered", "lost", "held"]
Rule = Literal["strict", "lenient", "paper"]

GROUPS: tuple[GroupName, ...] = get_args(GroupName)
TWIN_KINDS: tuple[TwinKind, ...] = get_args(TwinKind)
TRACKS: tuple[Track, ...] = get_args(Track)  # from least to most privileged
READS: Mapping[str, Track] = {
    "process": "process",
    "answer": "answer",
    "verdict": "answer",
    "solution": "solution",
    "teacher": "teacher",
    "labels": "labels",
    "similar": "labels",
    "sub_problems": "labels",
    "base": "base",
}
"""The track of each privileged thing that a method may read through the contract (PROTOCOL 3.9)."""
DRAWN = ("policy", "hinted", "prefixed")
"""Sources of rollouts that the policy drew in this step: in the item's prompt, in another context, after a prefix."""
FATES: tuple[Fate, ...] = get_args(Fate)


class Record(BaseModel):
    """A validated, immutable record. Unknown fields are an error, so that a typo cannot pass silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __dir__(self) -> list[str]:
        """Its own fields and methods, without those of pydantic."""
        own = [name for cls in type(self).__mro__ if issubclass(cls, Record) for name in vars(cls)]
        return sorted({*type(self).model_fields, *(name for name in own if not name.startswith(("_", "model_")))})


class _Grown(Record):
    """A record with fields that came later: at their default they are not written, so that older hashes hold."""

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        stated: dict[str, Any] = serialise(self)
        at_default = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in stated.items() if name not in at_default}


# --- problems -------------------------------------------------------------------------------------------------


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
    """A problem whose stored gold `answer` is wrong on purpose: whoever converts it has read the gold."""

    item_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    true_answer: str = Field(min_length=1)
    family: str = Field(min_length=1)
    solution: str = ""
    """Ends in the wrong gold, so that nothing in a sealed copy tells canaries from items."""


class RelatedProblem(Record):
    """A generated problem that is like an item, or a step towards it: a row of similar or sub_problems.parquet."""

    problem_id: str = Field(min_length=1)
    item_id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    solution: str = ""
    leaked: bool = False
    """Its text is that of an item or a twin: not to be trained on."""


# --- split.yaml -----------------------------------------------------------------------------------------------


class Sampling(Record):
    """How text is drawn for an evaluation. Training always samples with temperature only."""

    temperature: float = Field(default=0.7, gt=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=5120, ge=1)


class Samples(Record):
    """Rollouts per item in each phase of the labelling protocol."""

    base: int = Field(default=32, ge=1)
    after: int = Field(default=32, ge=1)
    certify: int = Field(default=128, ge=0)
    base_fresh: int = Field(default=128, ge=1)
    twins: int = Field(default=128, ge=1)


class Protocol(_Grown):
    """How the groups of a split are measured (PROTOCOL 2)."""

    later = ("verifier",)
    tau: float = Field(default=0.1, gt=0, lt=1)
    runs: int = Field(default=3, ge=1)
    samples: Samples = Samples()
    sampling: Sampling = Sampling()
    min_successes: int = Field(default=2, ge=0)
    valid_trace: Literal["solution", "unknown"] = "unknown"
    """`solution`: a rewarded rollout's trace is valid iff its text equals the reference solution."""
    verifier_rule: Rule = "strict"
    verifier: Literal["math", "reasoning_gym"] = "math"
    """`reasoning_gym`: golds that are entries of its tasks are judged by the tasks' own scorers."""


class Lora(Record):
    """A low-rank adapter that is trained in place of the weights: W + alpha / rank B A (Hu et al. 2021, 2106.09685)."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    targets: Literal["all-linear"] | tuple[Annotated[str, Field(min_length=1)], ...] = "all-linear"
    """Names of the linear layers that are adapted; `all-linear` is all of them but the output layer."""


class Recipe(_Grown):
    """Hyper-parameters of the reference loop. Defaults are the paper's (arXiv 2605.16787; PROTOCOL 1)."""

    later = ("lora",)
    steps: int = Field(default=120, ge=1)
    prompts_per_step: int = Field(default=256, ge=1)
    group_size: int = Field(default=8, ge=1)
    updates_per_batch: int = Field(default=4, ge=1)
    max_rounds: int = Field(default=4, ge=1)
    max_tokens: int = Field(default=5120, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    learning_rate: float = Field(default=5e-7, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    adam_betas: tuple[float, float] = (0.9, 0.999)
    gradient_clip: float = Field(default=1.0, gt=0)
    clip_low: float = Field(default=0.2, ge=0)
    clip_high: float = Field(default=0.2, ge=0)
    kl: float = Field(default=1e-4, ge=0)
    entropy: float = Field(default=1e-3, ge=0)
    standardise: bool = True
    """Divide a group's advantages by the standard deviation of its rewards (GRPO) or not (Dr. GRPO)."""
    aggregation: Literal["token_mean", "sequence_mean", "constant"] = "token_mean"
    """Denominator of an update's loss: its loss tokens; each rollout's and then the rollouts; rollouts x max_tokens."""
    drop_zero_signal: bool = True
    micro_batch_tokens: int = Field(default=16384, ge=1)
    checkpoint_every: int = Field(default=25, ge=1)
    lora: Lora | None = None
    """Train an adapter with these settings; None trains all weights."""


class PolicyRef(Record):
    """Where a policy comes from: a folder relative to split.yaml, or a Hub id, and its exact revision."""

    path: str = Field(min_length=1)
    revision: str | None = None
    parameters: int | None = Field(default=None, ge=1)


class Pool(Record):
    """Where the problems of a split that is to be curated come from (files relative to split.yaml)."""

    items: str = "items.parquet"
    twins: str | None = None
    canaries: str | None = None


class BudgetRef(Record):
    """The cost of the reference runs (PROTOCOL 3.10): mean FLOPs over the labelling runs."""

    flops_1x: int = Field(ge=0)


class SplitConfig(Record):
    """split.yaml: what `curate --config` reads and what a finished split states. One schema for both."""

    schema_version: Literal[1] = 1
    label_version: str = "1"
    label_rule: Literal["protocol", "paper"] = "protocol"
    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = 0
    """Root of every random stream of this split's labels; another seed gives another, sealed variant."""
    base_policy: PolicyRef
    pool: Pool = Pool()
    prompt_format: Literal["raw", "chat"] = "raw"
    protocol: Protocol = Protocol()
    recipe: Recipe = Recipe()
    budget: BudgetRef | None = None
    provenance: str = ""
    licence: str = ""
    files: Mapping[str, str] = {}
    """sha256 of each file that the labels rest on, by its path relative to split.yaml."""


# --- rollouts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a completion states the gold answer. `correct` is None only after a `verifier_error`."""

    correct: bool | None
    answer: str | None
    reason: Reason
    rule: Rule = "strict"
    seconds: float = 0.0


Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One completion with everything that training needs to know about it.

    `prompt_ids` is the context that the tokens were sampled in, `context_ids` (default: the same) the one that the
    loss is computed in, `teacher_ids` (default: none) the one that a teacher reads the same tokens in
    (`LossBatch.divergence`). `logprobs` holds the behaviour log-probabilities, NaN where unknown; `mask` the weight of
    each token in the loss (default: ones). These two have one entry per token of the completion, the end token
    included.
    """

    item_id: str
    index: int
    prompt_ids: Tokens
    token_ids: Tokens
    logprobs: Floats
    completion: str
    finish: Finish
    verdict: Verdict
    reward: float
    iteration: int = 0
    round: int = 0
    policy_version: int = 0
    source: str = "policy"
    """`policy`, `hinted` (drawn in another context), `prefixed` (after a given beginning), or what a method injects."""
    context_ids: Tokens | None = None
    mask: Floats | None = None
    teacher_ids: Tokens | None = None


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All rollouts of one prompt in one step. `len(group)`, `group.rewards`, and iteration over rollouts work."""

    item_id: str
    prompt: str
    iteration: int
    rollouts: tuple[Rollout, ...]

    def __len__(self) -> int:
        return len(self.rollouts)

    def __iter__(self) -> Iterator[Rollout]:
        return iter(self.rollouts)

    @property
    def rewards(self) -> NDArray[np.float64]:
        """Rewards, shape (n,)."""
        return np.array([rollout.reward for rollout in self.rollouts], dtype=np.float64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each completion, shape (n,)."""
        return np.array([len(rollout.token_ids) for rollout in self.rollouts], dtype=np.int64)


# --- result.json ----------------------------------------------------------------------------------------------


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("an interval's lower end is above its upper end")
    return interval


Interval = Annotated[tuple[float, float], AfterValidator(_ordered)]


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
    seeds: Sequence[int]
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
