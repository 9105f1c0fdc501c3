"""A few completions of each item that a reader may want to see: the last right and the last wrong ones of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
_BATCH = 16_384
_PLACE = ("item", "right", "when", "file", "row")
"""What is kept of a rollout until its text is read."""


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
    known = pa.array(ids, pa.string())
    chosen = np.zeros((len(_PLACE), 0), np.int64)
    for number, (_, file) in enumerate(files):
        for first, part in _parts(file, ["item_id", order, "correct"]):
            found = [
                pc.index_in(part["item_id"], value_set=known),
                pc.cast(pc.fill_null(part["correct"], False), pa.int64()),
                pc.cast(part[order], pa.int64()),
            ]
            rows = [pc.fill_null(column, -1).to_numpy(zero_copy_only=False) for column in found]
            rows += [np.full(len(part), number), np.arange(first, first + len(part))]
            chosen = _last(np.concatenate([chosen, np.stack(rows)], axis=1))
    examples: dict[str, list[Example]] = {}
    for number, (seed, file) in enumerate(files):
        here = chosen[:, chosen[3] == number]
        for (item, right, when, *_), (text, reason) in zip(here.T.tolist(), _texts(file, here[4]), strict=True):
            step = when if order == "step" else None
            examples.setdefault(ids[item], []).append(Example(bool(right), seed, step, reason, text[:_MOST_TEXT]))
    return examples


def _last(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of rows (one a column, of _PLACE), the last EACH of every item's right, and wrong, ones, in this order."""
    rows = rows[:, rows[0] >= 0]
    ordered = rows[:, np.lexsort((rows[4], rows[3], rows[2], rows[1], rows[0]))]
    key = ordered[0] * 2 + ordered[1]
    ends = np.flatnonzero(np.append(key[1:] != key[:-1], True)) if len(key) else np.zeros(0, np.int64)
    last = np.repeat(ends, np.diff(np.append(-1, ends)))
    kept: NDArray[np.int64] = ordered[:, last - np.arange(len(key)) < EACH]
    return kept


def _texts(file: Path, rows: NDArray[np.int64]) -> list[tuple[str, str]]:
    """Completion and reason (empty in files without that column) of these rows of a file, in the order of `rows`."""
    if not len(rows):
        return []
    wanted, found = np.sort(rows), []
    for first, part in _parts(file, ["completion"], ["reason"]):
        inside = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + len(part))] - first
        if len(inside):
            columns = part.take(pa.array(inside)).to_pydict()
            reasons = columns.get("reason", [""] * len(inside))
            found += [(text or "", reason or "") for text, reason in zip(columns["completion"], reasons, strict=True)]
    return [found[place] for place in np.searchsorted(wanted, rows).tolist()]


def _parts(file: Path, names: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Columns of a file in batches, each with the number of its first row, from 0: a run has millions of rollouts."""
    first = 0
    try:
        with pq.ParquetFile(file, pre_buffer=False) as table:
            there = table.schema_arrow.names
            if missing := [name for name in names if name not in there]:
                raise DataError(f"{file} is not a readable table of rollouts: it has no column {missing[0]!r}")
            columns = [*names, *(name for name in optional if name in there)]
            for part in table.iter_batches(_BATCH, columns=columns):
                yield first, part
                first += len(part)
    except (OSError, pa.ArrowException) as problem:
        raise DataError(f"{file} is not a readable table of rollouts: {str(problem).splitlines()[0]}") from problem
