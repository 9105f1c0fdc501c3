"""What the audit of a split's verdicts says: plain records, without the verifier and without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from unlearnbench.records import Interval, Reason, Record, Rule


class Share(Record):
    """`count` of `n` rollouts, with the exact 95 % interval of the rate; null where n is 0.

    The interval treats rollouts as independent; those of one item are not, so it is too narrow if there are few items.
    """

    count: int
    n: int
    rate: float | None
    interval: Interval | None


class Guesses(Record):
    """How often an item's most frequent answer was stated, over the items of a group that have rollouts."""

    items: int
    median: float | None
    ninetieth: float | None
    above_half: int
    gold: int
    """Items whose most frequent answer is right."""


class GroupAudit(Record):
    items: int
    rollouts: int
    accepted: int
    false_negatives: Share
    """Of the rollouts that the second grader accepts, those that the verifier refuses."""
    false_positives: Share
    """Of those that the second grader refuses, those that the verifier accepts."""
    unknown: Share
    """Of all, those that the second grader cannot read."""
    answerless: Share
    """Of the rollouts accepted under the rule `paper`, those that state no answer under `strict`."""
    truncated: Share
    """Of the rollouts whose end is known, those that met the length limit."""
    guesses: Guesses


class Disagreement(Record):
    item_id: str
    group: str
    gold: str
    answer: str | None
    reason: Reason
    verifier: bool
    second: bool
    count: int
    completion: str
    """The end of one of these completions."""


class Guessable(Record):
    item_id: str
    group: str
    answer: str
    count: int
    n: int
    rate: float
    gold: bool


class Relabelled(Record):
    """An item whose group would be another if the second grader had counted its base rollouts."""

    item_id: str
    group: str
    group_second: str
    correct: int
    correct_second: int
    n: int


class StoredDifference(Record):
    """A stored verdict that today's verifier does not repeat. `file` and `row` are its first."""

    file: str
    row: int
    problem_id: str
    gold: str
    stored: bool
    correct: bool
    answer: str | None
    reason: Reason
    count: int
    completion: str


class Stored(Record):
    """Stored verdicts against today's, over all files that carry some."""

    files: int
    rows: int
    rollouts: int
    differ: int
    """Rollouts whose stored verdict is not today's."""
    without: int
    """Rollouts whose stored verdict is null: the verifier had failed."""
    differences: Sequence[StoredDifference]


class Golds(Record):
    """`n` gold answers, of which `unverified` failed their check; those that only their own text can match."""

    n: int
    unverified: int
    ungradable: list[str] = []


class Audit(Record):
    """What `splits validate --audit` found. Rates are fractions; every rate has its n."""

    schema_version: Literal[1] = 1
    code_version: str
    split: str
    split_hash: str
    rule: Rule
    golds: Golds
    files: Sequence[str]
    rollouts: int
    different: int
    """Different completions of an item, as they came in batches: how many were judged."""
    groups: Mapping[str, GroupAudit]
    disagreements: Sequence[Disagreement]
    different_disagreements: int
    relabelled: Sequence[Relabelled]
    labels_checked: int
    """Items whose label was made again with the second grader's counts."""
    guessable: Sequence[Guessable]
    only_truncated: Sequence[str]
    """Items at or below tau whose every wrong rollout met the length limit (PROTOCOL 4)."""
    stored: Stored | None
    problems: Sequence[str]
    """What is wrong with the split, a sentence each; what only deserves to be known is not among them."""
