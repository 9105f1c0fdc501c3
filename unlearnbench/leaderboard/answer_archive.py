"""answers.parquet: what an entry's rollouts stated, small enough to keep forever, and enough to judge them again.

A row is a distinct tail of the completions of a problem in a seed, with the number of rollouts that end in it. The tail
is the shortest of a few candidates that the verifier judges exactly as the whole completion: nothing, the last box, the
last TAIL characters, or the completion itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.leaderboard.bundles.tables import MOST_ROWS
from unlearnbench.leaderboard.verification.rollouts import Drawn, problems_of
from unlearnbench.records import Rule
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier

TAIL = 300
ANSWERS = pa.schema(
    [
        ("seed", pa.int64()),
        ("phase", pa.string()),
        ("item_id", pa.string()),
        ("tail", pa.string()),
        ("count", pa.int64()),
    ]
)
"""`item_id` holds a twin's id in phase twin, as in counts.parquet."""


def answers_of(drawn: Drawn, split: Split) -> pa.Table:
    """The answers that rollouts state, rows in the order of their cells."""
    asked = drawn.asked
    samples, problem = asked.samples, asked.problem
    codes = problem[:, None] * max(1, len(drawn.texts)) + drawn.text
    _, first, pair = np.unique(codes, return_index=True, return_inverse=True)
    flat = drawn.text.reshape(-1)
    golds = [asked.golds[problem[row // samples]] for row in first.tolist()]
    texts = [drawn.texts[flat[row]] for row in first.tolist()]
    tails = _tails(golds, texts, split.config.protocol.verifier_rule)
    counts: dict[tuple[int, str], int] = {}
    rows = np.repeat(np.arange(len(drawn.text)), samples).tolist()
    for row, number in zip(rows, pair.reshape(-1).tolist(), strict=True):
        key = (row, tails[number])
        counts[key] = counts.get(key, 0) + 1
    cells = asked.cells
    columns = {
        "seed": [cells[cell][0] for cell, _ in counts],
        "phase": [cells[cell][1] for cell, _ in counts],
        "item_id": [cells[cell][2] for cell, _ in counts],
        "tail": [tail for _, tail in counts],
        "count": list(counts.values()),
    }
    return pa.table(columns, schema=ANSWERS)


def _tails(golds: Sequence[str], texts: Sequence[str], rule: Rule) -> list[str]:
    """Of each pair of gold and completion, the shortest candidate that the verifier judges the same."""
    tails = list(texts)
    open_ = list(range(len(texts)))
    with Verifier(rule) as verifier:
        wanted = verifier.verify_many(list(zip(golds, texts, strict=True)))
        for shorten in (lambda text: "", lambda text: text[max(text.rfind("\\boxed"), 0) :], lambda text: text[-TAIL:]):
            tried = [shorten(texts[place]) for place in open_]
            found = verifier.verify_many([(golds[place], tail) for place, tail in zip(open_, tried, strict=True)])
            left = []
            for place, tail, verdict in zip(open_, tried, found, strict=True):
                told = wanted[place]
                if (verdict.correct, verdict.answer, verdict.reason) == (told.correct, told.answer, told.reason):
                    tails[place] = tail
                else:
                    left.append(place)
            open_ = left
    return tails


def counts_of_answers(path: Path, split: Split, workers: int = 1) -> pa.Table:
    """Counts (columns of `tables.COUNTS`) of the answers in a file, every one judged by the verifier as it is now.

    Raises DataError naming file and row: a problem that the split does not have, a count below 1 or above MOST_ROWS.
    """
    table = tables.read_parquet(path, {field.name: field.type for field in ANSWERS})
    golds = problems_of(split)
    golds["start"] = golds["eval"]
    rows = table.to_pylist()
    questions = []
    for number, row in enumerate(rows, start=1):
        gold = golds.get(row["phase"], {}).get(row["item_id"])
        if gold is None or row["tail"] is None or not 1 <= (row["count"] or 0) <= MOST_ROWS:
            raise DataError(
                f"{path}, row {number}: {row['phase']!r} {row['item_id']!r} with count {row['count']} is not an answer "
                f"to a problem of split {split.name}; enter the bundle again with `unlearnbench leaderboard enter`"
            )
        questions.append((gold, row["tail"]))
    with Verifier(split.config.protocol.verifier_rule, workers=workers) as verifier:
        verdicts = verifier.verify_many(questions)
    sums: dict[tuple[str, str, int], list[int]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        cell = sums.setdefault((row["phase"], row["item_id"], row["seed"]), [0, 0])
        cell[0] += row["count"]
        cell[1] += row["count"] * bool(verdict.correct)
    made = [
        {"item_id": item, "phase": phase, "run": str(seed), "n": n, "correct": correct}
        for (phase, item, seed), (n, correct) in sums.items()
    ]
    return pa.Table.from_pylist(made, schema=tables.COUNTS)
