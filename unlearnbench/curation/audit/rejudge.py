"""Rollouts judged again: a batch's different completions by the verifier, under several rules, and a second grader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unlearnbench.curation.audit.record import Stored, StoredDifference
from unlearnbench.curation.audit.second_grader import SecondGrader
from unlearnbench.errors import DataError, VerifierError
from unlearnbench.io.rollout_store import StoredBatch, StoredFile, distinct
from unlearnbench.records import Rule, Verdict
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier

TAIL = 120
"""Characters of a completion that are shown, from its end."""

LISTED = 20
"""Stored verdicts that differ are listed up to this many different ones; all are counted."""


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


class StoredVerdicts:
    """Counts of them, and the first that differ."""

    def __init__(self, golds: Mapping[str, str]) -> None:
        self._golds = golds
        self._rows = self._rollouts = self._differ = self._without = 0
        self._found: dict[tuple[str, bool, str | None], tuple[str, int, Verdict, str]] = {}
        self._counts: Counter[tuple[str, bool, str | None]] = Counter()

    def add(self, judged: JudgedBatch) -> None:
        """Compare a batch that carries verdicts with today's."""
        batch, ids, verdicts, inverse = judged.batch, judged.ids, judged.verdicts, judged.inverse
        weight = batch.rows["count"].to_numpy()
        column = batch.rows["correct"]
        without = column.is_null().to_numpy(zero_copy_only=False)
        then = pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(bool)
        now = np.array([verdict.correct is True for verdict in verdicts], bool)[inverse]
        self._rows += len(weight)
        self._rollouts += int(weight.sum())
        self._without += int(weight[without].sum())
        for row in np.flatnonzero((then != now) & ~without).tolist():
            of = inverse[row]
            self._differ += int(weight[row])
            key = (ids[of], bool(then[row]), verdicts[of].answer)
            if key not in self._found:
                if len(self._found) >= LISTED:
                    continue
                self._found[key] = (str(batch.file.path), batch.numbers[row], verdicts[of], judged.pairs[of][1][-TAIL:])
            self._counts[key] += int(weight[row])

    def told(self, files: Sequence[StoredFile]) -> Stored | None:
        """None where no file carries verdicts."""
        judged = sum(file.judged for file in files)
        if not judged:
            return None
        return Stored(
            files=judged,
            rows=self._rows,
            rollouts=self._rollouts,
            differ=self._differ,
            without=self._without,
            differences=[
                StoredDifference(
                    file=file,
                    row=row,
                    problem_id=key[0],
                    gold=self._golds[key[0]],
                    stored=key[1],
                    correct=not key[1],
                    answer=verdict.answer,
                    reason=verdict.reason,
                    count=self._counts[key],
                    completion=completion,
                )
                for key, (file, row, verdict, completion) in self._found.items()
            ],
        )
