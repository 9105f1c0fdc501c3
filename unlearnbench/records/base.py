"""The base class of all records, and the types that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

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


class Grown(Record):
    """A record with fields that came later: at their default they are not written, so that older hashes hold."""

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        stated: dict[str, Any] = serialise(self)
        at_default = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in stated.items() if name not in at_default}


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("an interval's lower end is above its upper end")
    return interval


Interval = Annotated[tuple[float, float], AfterValidator(_ordered)]
