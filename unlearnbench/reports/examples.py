"""A few completions of each item that a reader may want to see: the last right and the last wrong ones of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unlearnbench.errors import DataError

EACH = 3
"""Right, and wrong, completions of an item."""
_MOST_TEXT = 2000


@dataclass(frozen=True)
class Example:
    """A completion with its verdict's reason; `step` is None where it was drawn after training."""

    correct: bool
    seed: str
    step: int | None
    reason: str
    text: str


def examples(folder: Path, seeds: Sequence[str], ids: Sequence[str]) -> dict[str, list[Example]]:
    """Of each item, at most EACH right and EACH wrong completions: the last of training, else of the evaluation.

    Two passes: small columns of all rollouts say which are wanted, then the texts of these alone are kept. Raises
    DataError naming the file.
    """
    training = [(seed, file) for seed in seeds for file in sorted((folder / seed / "rollouts").glob("*.parquet"))]
    found = _examples(training, ids, "step")
    if found:
        return found
    evaluated = [(seed, folder / seed / "evaluation" / "items.parquet") for seed in seeds]
    return _examples([(seed, file) for seed, file in evaluated if file.is_file()], ids, "sample")


def _examples(files: Sequence[tuple[str, Path]], ids: Sequence[str], order: str) -> dict[str, list[Example]]:
    index = [_columns(file, ["item_id", order, "correct"]) for _, file in files]
    if not index or not ids:
        return {}
    known = pa.array(ids, pa.string())
    item = np.concatenate(
        [pc.fill_null(pc.index_in(part["item_id"], value_set=known), -1).to_numpy() for part in index]
    )
    right = np.concatenate([pc.cast(pc.fill_null(part["correct"], False), pa.int8()).to_numpy() for part in index])
    when = np.concatenate([part[order].to_numpy() for part in index])
    file_of = np.repeat(np.arange(len(index)), [part.num_rows for part in index])
    row_of = np.concatenate([np.arange(part.num_rows) for part in index])
    chosen = _last(item, right, when)
    found: dict[str, list[Example]] = {}
    for number in np.unique(file_of[chosen]).tolist():
        here = chosen[file_of[chosen] == number]
        seed, file = files[number]
        names = ["completion", "reason"] if "reason" in pq.read_schema(file).names else ["completion"]
        rows = _columns(file, names).take(pa.array(row_of[here]))
        texts, reasons = rows["completion"].to_pylist(), rows["reason"].to_pylist() if "reason" in names else None
        for place, at in enumerate(here.tolist()):
            found.setdefault(ids[int(item[at])], []).append(
                Example(
                    correct=bool(right[at]),
                    seed=seed,
                    step=int(when[at]) if order == "step" else None,
                    reason=str(reasons[place] or "") if reasons else "",
                    text=str(texts[place] or "")[:_MOST_TEXT],
                )
            )
    return found


def _last(item: NDArray[np.int64], right: NDArray[np.int64], when: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the last EACH of every item's right, and wrong, ones."""
    rows = np.flatnonzero(item >= 0)
    order = rows[np.lexsort((rows, when[rows], right[rows], item[rows]))]
    key = item[order] * 2 + right[order]
    ends = np.flatnonzero(np.append(key[1:] != key[:-1], True)) if len(key) else np.zeros(0, np.int64)
    last = np.repeat(ends, np.diff(np.append(-1, ends)))
    kept: NDArray[np.int64] = order[last - np.arange(len(order)) < EACH]
    return kept


def _columns(file: Path, names: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(file, columns=list(names))
    except (OSError, KeyError, pa.ArrowException) as problem:
        raise DataError(f"{file} is not a readable table of rollouts: {str(problem).splitlines()[0]}") from problem
