"""A bundle: one zip file with everything that a submission's numbers rest on, each seed's final weights included."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import ConfigDict, Field

from unlearnbench.harness.null_speed import SPEED, NullSpeed
from unlearnbench.io.safe_zip import LARGEST_FILE, Archive
from unlearnbench.leaderboard.bundles.tables import FORMS
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.records import Cost, Lora, Record, Result, Track

MOST_SEEDS = 100
PHASES = {"items": "eval", "twins": "twin", "canaries": "canary", "start": "start"}
"""Evaluation file of a seed: phase of its rows, as in counts.parquet."""
SEED_FILES = ("config", "environment", "method", "cost")

_JSON, _SOURCE, _TABLE = 1 << 20, 256 << 10, 512 << 20
_SEED = r"seeds/(?:0|[1-9][0-9]{0,17})"
WEIGHTS = re.compile(_SEED + r"/weights/((?:model|adapter_model)(?:-[0-9]{5}-of-[0-9]{5})?\.safetensors)")
_MEMBERS = {
    rf"manifest\.json|entry\.json|result\.json|{re.escape(SPEED)}": _JSON,
    _SEED + r"/(?:config|environment|method|cost|asked)\.json": _JSON,
    "|".join(map(re.escape, FORMS)): _TABLE,
    r"method/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.py": _SOURCE,
    WEIGHTS.pattern: LARGEST_FILE,
}
REQUIRED = ("manifest.json", "entry.json", "result.json", *FORMS)


def member_limit(name: str) -> int | None:
    """Bytes that a member of this name may have; None for a name that no bundle has."""
    return next((most for pattern, most in _MEMBERS.items() if re.fullmatch(pattern, name)), None)


def holds_weights(name: str) -> bool:
    """Whether a member of this name holds weights, which stay in the file until they are measured."""
    return WEIGHTS.fullmatch(name) is not None


class Member(Record):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(Record):
    """manifest.json: what else the bundle holds."""

    schema_version: Literal[2] = 2
    code_version: str
    members: Mapping[str, Member]


class Statement(Record):
    """entry.json of a bundle: what its authors say of it."""

    name: str = Field(min_length=1, max_length=100)
    authors: Sequence[str] = Field(default=(), max_length=100)
    url: str | None = None
    tried: int | None = Field(default=None, ge=1, strict=True)
    """Configurations (methods, settings, seeds) that were evaluated before this one was chosen, this one included."""


class Sampler(Record):
    """Which sampler drew, where it was not transformers'."""

    name: Literal["transformers", "vllm"]
    options: Mapping[str, Any] = {}


class SeedConfig(Record):
    """config.json of a seed. Fields of later versions are kept and ignored."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    split: str
    split_hash: str
    method: str
    source_hash: str
    settings: Mapping[str, Any]
    samples: int = Field(ge=1)
    budget: float = Field(gt=0)
    purpose: str
    start: str | None
    quick: bool
    seed: int = Field(ge=0)
    sampler: Sampler | None = None

    @property
    def engine(self) -> Engine:
        """The sampler that drew, without its options: they may name files and code, and a bundle's are a stranger's."""
        return TRANSFORMERS if self.sampler is None else Engine(self.sampler.name)


class SeedMethod(Record):
    """method.json of a seed: what the judge wrote down of its method."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str
    source_hash: str
    track: Track
    reads: Sequence[str]
    settings: Mapping[str, Any]
    hooks: Sequence[str] = ()
    start: Literal["base", "positive_control"] = "base"
    class_name: str = Field(default="", alias="class", pattern=r"^[A-Za-z_]?[A-Za-z0-9_]{0,99}$")

    @property
    def lora(self) -> Lora | None:
        """The adapter that was trained; None where all weights were. Raises pydantic.ValidationError."""
        told = self.settings.get("lora")
        return None if told is None else Lora.model_validate(told)


class SeedCost(Cost):
    """cost.json of a seed."""

    generated_tokens: int = Field(ge=0)
    trained_tokens: int = Field(ge=0)
    forward_tokens: int = Field(ge=0)
    flops: int = Field(ge=0)
    verifier_calls: int = Field(ge=0)
    ungradable: int = Field(ge=0)
    seconds: float = Field(ge=0)
    cpu_seconds: float | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class Seed:
    config: SeedConfig
    method: SeedMethod
    cost: SeedCost
    asked: Sequence[str]
    weights: Sequence[str]
    """Members that hold its final weights."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, every member of the right form. Its tables and weights are not read yet."""

    archive: Archive
    manifest: Manifest
    statement: Statement
    result: Result
    seeds: Mapping[int, Seed]
    speed: NullSpeed | None
    source_name: str

    @property
    def source(self) -> bytes:
        return self.archive.members[self.source_name]

    @cached_property
    def sha256(self) -> str:
        """Names the bundle: the hash of its manifest, which has those of the members."""
        return hashlib.sha256(self.archive.members["manifest.json"]).hexdigest()

    @property
    def first(self) -> Seed:
        """The seed that result.json names first."""
        return self.seeds[self.result.seeds[0]]
