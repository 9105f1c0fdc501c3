"""split.yaml: protocol, recipe, policy, pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    Field,
)

from unlearnbench.records.base import Grown, Record, Rule


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


class Protocol(Grown):
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


class Recipe(Grown):
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
