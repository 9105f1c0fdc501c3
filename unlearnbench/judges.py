"""Rollouts judged again: a batch's different completions by the verifier, under several rules, and a second grader."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyarrow as pa
from numpy.typing import NDArray

from unlearnbench.errors import DataError, VerifierError
from unlearnbench.records import Rule, Verdict
from unlearnbench.second_grader import SecondGrader
from unlearnbench.splits import Split
from unlearnbench.stored import StoredBatch, distinct
from unlearnbench.verifier import Verifier

TAIL = 120
"""Characters of a completion that are shown, from its end."""


class JudgedBatch(NamedTuple):
    """A batch of rollouts with today's verdicts on its different completions."""

    batch: StoredBatch
    first: NDArray[Any]
    """For each different completion, the first row that holds it."""
    inverse: NDArray[Any]
    """For each row, the place of its completion in the three fields below."""
    ids: Sequence[str]
    """Of the items, canaries or twins."""
    pairs: Sequence[tuple[str, str]]
    """Golds and completions."""
    verdicts: Sequence[Verdict]


class Judges:
    """The verifier under the split's rule, under `strict` and `paper`, and the second grader."""

    def __init__(self, split: Split, workers: int, stack: ExitStack) -> None:
        self.split = split
        self.golds = {item.item_id: item.answer for item in split.items}
        self.golds |= {canary.item_id: canary.answer for canary in split.canaries}
        self.golds |= {twin.twin_id: twin.answer for twin in split.twins}
        self.rule: Rule = split.config.protocol.verifier_rule
        rules: tuple[Rule, ...] = (self.rule, "strict", "paper")
        self._verifiers = {name: stack.enter_context(Verifier(name, workers=workers)) for name in dict.fromkeys(rules)}
        self.second = stack.enter_context(SecondGrader())

    def batch(self, batch: StoredBatch) -> JudgedBatch:
        """Judge the different completions of a batch. Raises DataError where the split has no such problem."""
        first, inverse = distinct(batch.rows)
        ids = batch.rows["problem_id"].take(pa.array(first)).to_pylist()
        texts = batch.rows["completion"].take(pa.array(first)).to_pylist()
        for place, name in enumerate(ids):
            if name not in self.golds:
                raise DataError(
                    f"{batch.where(int(first[place]))}, field {batch.file.key!r}: split {self.split.name} has no "
                    f"{batch.file.key.removesuffix('_id')} {name!r}; name rollouts of this split only"
                )
        pairs = [(self.golds[name], text) for name, text in zip(ids, texts, strict=True)]
        return JudgedBatch(batch, first, inverse, ids, pairs, self.judge(pairs))

    def judge(self, pairs: Sequence[tuple[str, str]], rule: Rule | None = None) -> list[Verdict]:
        """Verdicts of today on pairs of gold and completion, under `rule` or the split's. Raises VerifierError."""
        verdicts = self._verifiers[rule or self.rule].verify_many(pairs)
        for (gold, completion), verdict in zip(pairs, verdicts, strict=True):
            if verdict.correct is None:
                raise VerifierError(
                    f"the verifier failed twice on {completion[-TAIL:]!r} against {gold!r}; run the same command again"
                )
        return verdicts
