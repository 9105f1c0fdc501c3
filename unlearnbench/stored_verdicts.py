"""Stored verdicts against today's: how many differ, and which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from unlearnbench.grading_record import Stored, StoredDifference
from unlearnbench.judges import TAIL, JudgedBatch
from unlearnbench.records import Verdict
from unlearnbench.stored import StoredFile

LISTED = 20
"""Stored verdicts that differ are listed up to this many different ones; all are counted."""


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
