"""The released rewards of a training run: a csv with the mean reward of every prompt at every step.

Columns `step, prompt_id` (an item's number in the source data)`, mean_reward, n` (rollouts), and in some releases
`processed`: rows where it is true repeat a prompt's rollouts after a selection, and are left out.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.io import files, rows, values
from unlearnbench.splits.manifest import released_of

SCHEMA = pa.schema([("step", pa.int64()), ("item_id", pa.string()), ("rollouts", pa.int64()), ("reward", pa.float64())])
"""One row per prompt and time that it was sampled; `reward` is the mean over its `rollouts`."""
_WANTED = ("step", "prompt_id", "mean_reward", "n")


def released_rewards(folder: Path) -> pa.Table | None:
    """The rewards in the folder of a built split (columns of SCHEMA); None where nothing was released or taken along.

    Raises DataError if the file is not the released one, or a row is malformed.
    """
    released = released_of(folder)
    log = released.release.rewards if released and released.release else None
    if log is None or not (folder / log.name).is_file():
        return None
    if files.git_blob(folder / log.name) != log.git_blob:
        raise DataError(
            f"{folder / log.name} is not the released file (its git blob id differs); remove it, or run `unlearnbench "
            "splits build` again"
        )
    return read_rewards(folder / log.name)


def read_rewards(path: Path) -> pa.Table:
    """The rows of such a file, in its order. Raises DataError naming file, row and field."""
    present = rows.column_names(path)
    rows.require_columns(path, present, _WANTED)
    names = [*_WANTED, *(["processed"] if "processed" in present else [])]
    parts = [_part(batch) for batch in rows.read_rows(path, names)]
    return pa.concat_tables([SCHEMA.empty_table(), *parts])


def _part(batch: rows.Rows) -> pa.Table:
    found = {
        "step": values.column(batch, "step", values.WHOLE, required=True),
        "item_id": values.column(batch, "prompt_id", values.WHOLE, required=True).cast(pa.string()),
        "rollouts": values.column(batch, "n", values.WHOLE, required=True),
        "reward": values.column(batch, "mean_reward", values.NUMBER, required=True),
    }
    for name, wrong, wanted in (
        ("n", pc.less(found["rollouts"], 1), "a number of rollouts from 1"),
        ("mean_reward", pc.invert(pc.is_finite(found["reward"])), "a finite number"),
    ):
        if (row := pc.index(wrong, True).as_py()) >= 0:
            raise DataError(f"{batch.where(row)}, field {name!r}: {wanted} was expected")
    table = pa.table(found, schema=SCHEMA)
    if "processed" not in batch.columns:
        return table
    repeats = values.column(batch, "processed", values.FLAG)
    return table.filter(pc.invert(pc.fill_null(repeats, False)))
