"""Labels made again from an audit's counts: whose would change by the second grader, and whether counts are today's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unlearnbench.curation.audit.record import Relabelled
from unlearnbench.scoring.labels import label_items
from unlearnbench.splits import Split


def relabelled(split: Split, labelling: Mapping[str, NDArray[np.int64]]) -> tuple[list[Relabelled], int, list[str]]:
    """Items that the second grader's counts would label otherwise; how many were asked; what is wrong with counts.

    The verifier's and the second grader's counts of the same rollouts take the place of the split's base counts;
    all other phases stay as they are. `labelling`: of phases base and base_fresh, an array of (3, items): rollouts,
    and those right by the verifier and by the second grader.
    """
    if not (split.path / "counts.parquet").is_file():
        return [], 0, []
    counts = split.counts()
    n, right, second = labelling["base"]
    covered: list[int] = np.flatnonzero(n).tolist()
    if not covered:
        return [], 0, []
    ours, theirs = (_groups(split, counts, n, correct, covered) for correct in (right, second))
    found = [
        Relabelled(
            item_id=split.items[place].item_id,
            group=ours[place],
            group_second=theirs[place],
            correct=int(right[place]),
            correct_second=int(second[place]),
            n=int(n[place]),
        )
        for place in covered
        if ours[place] != theirs[place]
    ]
    return found, len(covered), _miscounted(split, labelling, counts)


def _groups(
    split: Split, counts: pa.Table, n: NDArray[np.int64], correct: NDArray[np.int64], covered: Sequence[int]
) -> Sequence[str]:
    """The group of every item, where the covered ones have these base counts."""
    ids = [item.item_id for item in split.items]
    names = [ids[place] for place in covered]
    replaced = pc.and_(pc.equal(counts["phase"], "base"), pc.is_in(counts["item_id"], pa.array(names)))
    kept = counts.filter(pc.invert(replaced))
    columns = {
        "item_id": pa.array(names, pa.string()),
        "phase": pa.array(["base"] * len(names)),
        "run": pa.array(["0"] * len(names)),
        "n": pa.array(n[covered]),
        "correct": pa.array(correct[covered]),
    }
    if "best" in counts.column_names:
        columns["best"] = pa.nulls(len(names), pa.float64())
    config = split.config
    table = pa.concat_tables([kept, pa.table(columns).select(kept.column_names).cast(kept.schema)])
    return label_items(table, config.protocol, rule=config.label_rule, item_ids=ids).group


def _miscounted(split: Split, labelling: Mapping[str, NDArray[np.int64]], counts: pa.Table) -> list[str]:
    """Where the rollouts are those that the labels were counted from: whether today's counts are the split's."""
    index = {item.item_id: place for place, item in enumerate(split.items)}
    problems = []
    for phase, (n, right, _) in labelling.items():
        stated = counts.filter(pc.equal(counts["phase"], phase)).to_pylist()
        rows = [(row["item_id"], index.get(row["item_id"], -1), row["n"], row["correct"]) for row in stated]
        if not rows or any(place < 0 or n[place] != of for _, place, of, _ in rows):
            continue  # others, or only some of them
        wrong = [(name, correct, int(right[place])) for name, place, _, correct in rows if right[place] != correct]
        if wrong:
            name, correct, found = wrong[0]
            problems.append(
                f"{split.path / 'counts.parquet'}, phase {phase!r}: {len(wrong)} of {len(rows)} items have "
                f"another number of correct rollouts by today's verifier (first: item {name!r}, {correct} stated, "
                f"{found} found); make the split again, under a new label version"
            )
    return problems
