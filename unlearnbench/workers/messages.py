"""What passes between the harness and its worker processes: frozen records, validated on both sides.

A worker is given one `Work` record; it sends events and, from a training, requests to the judge, each of which is
answered by a `Reply`. Large arrays travel beside a record as raw bytes (`channel.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from unlearnbench.records import Reason, Record, Rule, Track

Count = Annotated[int, Field(ge=0)]


class Work(Record):
    """A piece of work for one worker process; a subclass lists what it needs."""

    schema_version: Literal[1] = 1


# --- events: from a worker, not answered ------------------------------------------------------------------------------


class Progress(Record):
    """How far a training or a measuring is. `rate` is in steps, or rollouts, per second."""

    kind: Literal["progress"] = "progress"
    seed: int
    stage: str = Field(max_length=20)
    done: float = Field(ge=0, le=1)
    rate: float = Field(ge=0)
    step: int | None = None
    reward: float | None = None


class Items(Record):
    """So many further items of a diagnosis are done."""

    kind: Literal["items"] = "items"
    items: Count


class Trained(Record):
    """What a training process says of itself when it has ended; the judge compares it with what it counted."""

    kind: Literal["trained"] = "trained"
    class_name: str
    declared_track: Track
    start: Literal["base", "positive_control"]
    hooks: Sequence[str]
    not_hooks: Mapping[str, str | None]
    settings: Mapping[str, Any]
    steps: Count
    seconds: float = Field(ge=0)
    parameters: int = Field(ge=1)
    generated: Count
    prefilled: Count
    forward: Count
    trained: Count
    environment: Mapping[str, Any]


class Failed(Record):
    """The one sentence that says why a worker ends; `type` names a class of `errors`."""

    kind: Literal["failed"] = "failed"
    type: str
    message: str


class Done(Record):
    """The work is done."""

    kind: Literal["done"] = "done"


class Lost(Record):
    """The worker lost another process of its job, whose end is what is to be reported."""

    kind: Literal["lost"] = "lost"


# --- requests to the judge --------------------------------------------------------------------------------------------


class DrawHeader(Record):
    """The rollouts of one plan; their tokens, lengths and ends are in the message's arrays, one after the other."""

    item_id: str
    source: Literal["policy", "hinted", "prefixed"]
    prompt_tokens: Count
    policy_version: Count
    texts: Sequence[str]


class Round(Record):
    """All rollouts of a round, judged once. Arrays: lengths int32 (n,), tokens int32 (sum,), stopped uint8 (n,)."""

    kind: Literal["round"] = "round"
    step: Count
    round: Count
    draws: Sequence[DrawHeader]


class StepRecord(Record):
    """Rewards of a step's rollouts, in the order of its groups, and the items that it trains on."""

    kind: Literal["step"] = "step"
    step: Count
    rewards: Sequence[float]
    kept: Sequence[str]


class Metrics(Record):
    """A line of metrics.jsonl."""

    kind: Literal["metrics"] = "metrics"
    metrics: Mapping[str, float | int | None]


class Save(Record):
    """A checkpoint at `steps` is about to be written: what was judged before belongs to it."""

    kind: Literal["save"] = "save"
    steps: Count


class Resume(Record):
    """The process starts from its checkpoint at `steps`."""

    kind: Literal["resume"] = "resume"
    steps: Count


class Ask(Record):
    """A question about something privileged, by its name in `records.READS`."""

    kind: Literal["ask"] = "ask"
    name: str
    item_id: str | None = None
    text: str | None = None


class Reply(Record):
    """The answer to a request, or the sentence that says why there is none."""

    schema_version: Literal[1] = 1
    value: Any = None
    error: str | None = None


class VerdictMessage(Record):
    """A verdict, as it crosses the pipe."""

    correct: bool | None
    answer: str | None
    reason: Reason
    rule: Rule


Request = Round | StepRecord | Metrics | Save | Resume | Ask
Event = Progress | Items | Trained | Failed | Done | Lost
Message = Annotated[Event | Request, Field(discriminator="kind")]
MESSAGES: TypeAdapter[Event | Request] = TypeAdapter(Message)
