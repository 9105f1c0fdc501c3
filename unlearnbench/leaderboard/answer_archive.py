"""answers.parquet: what an entry's rollouts stated, small enough to keep for ever, and enough to judge them again.

A row is a different tail of the completions of a problem in a seed, with how many rollouts end so. The tail is the
shortest of a few candidates on which the verifier says exactly what it said of the whole completion: nothing, the last
box, the last TAIL characters, or else the completion itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.leaderboard.bundle_tables import MOST_ROWS
from unlearnbench.leaderboard.rejudge import Judged, problems_of
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


def answers_of(judged: Judged, split: Split) -> pa.Table:
    """The answers of a judged bundle, rows in the order of its cells."""
    golds = problems_of(split)
    golds["start"] = golds["eval"]
    cells, samples = judged.text.shape
    _, first = np.unique(judged.pair, return_index=True)
    gold_of = [golds[judged.phases[place]][judged.names[place]] for place in judged.problem[first // samples].tolist()]
    texts = [judged.texts[code] for code in judged.text.reshape(-1)[first].tolist()]
    tails = _tails(gold_of, texts, split.config.protocol.verifier_rule)
    rows: dict[tuple[int, str], int] = {}
    for row, pair in zip(np.repeat(np.arange(cells), samples).tolist(), judged.pair.reshape(-1).tolist(), strict=True):
        key = (row, tails[pair])
        rows[key] = rows.get(key, 0) + 1
    places = [(cell, int(judged.problem[cell]), tail, count) for (cell, tail), count in rows.items()]
    columns = {
        "seed": [int(judged.seed[cell]) for cell, _, _, _ in places],
        "phase": [judged.phases[place] for _, place, _, _ in places],
        "item_id": [judged.names[place] for _, place, _, _ in places],
        "tail": [tail for _, _, tail, _ in places],
        "count": [count for _, _, _, count in places],
    }
    return pa.table(columns, schema=ANSWERS)


def _tails(golds: Sequence[str], texts: Sequence[str], rule: Rule) -> list[str]:
    """The shortest text on which the verifier says the same, of each pair of gold and completion."""
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

    Raises DataError naming file and row: a problem that the split does not have, a count below 1 or beyond bundles.
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
                f"{path}, row {number}: {row['phase']!r} {row['item_id']!r} with count {row['count']} is no answer to "
                f"a problem of split {split.name}; enter the bundle again with `unlearnbench leaderboard enter`"
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
