"""The copy of a split that a method's process gets: it shows nothing of the labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from unlearnbench.errors import SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import Item, Pool
from unlearnbench.splits.split import Split
from unlearnbench.splits.write import travels, visible_files, write_config

if TYPE_CHECKING:
    pass


_SEALED_COLUMNS = ("item_id", "prompt", "answer", "solution", "family")


def seal(split: Split, destination: Path) -> Path:
    """Write the copy of a split that a method's process gets, and return its folder.

    It holds the problems, with the canaries among them, the recipe, the protocol and the base policy; no group,
    twin, count, control or hash. Raises SplitError if the folder holds anything else, RunError if the disk is full.
    """
    destination = Path(destination)
    own = {"split.yaml", "items.parquet", "policy"}
    for left in destination.glob(".*.tmp"):  # by a kill in the middle of a write
        left.unlink()
    foreign = (
        sorted(path.name for path in destination.iterdir() if path.name not in own) if destination.exists() else []
    )
    if foreign:
        raise SplitError(f"{destination} is not empty (it holds {foreign[0]}); name a new folder for the sealed copy")
    rows = [item.model_dump(include=set(_SEALED_COLUMNS)) for item in split.items]
    rows += [canary.model_dump(exclude={"true_answer"}) for canary in split.canaries]
    rows.sort(key=lambda row: str(row["item_id"]))  # so that the order does not tell canaries from items
    rows = [{**row, "family": "hidden"} for row in rows]  # a family may name the cause, or what a name means
    schema = tables.record_schema(Item)
    sealed_schema = pa.schema([schema.field(name) for name in _SEALED_COLUMNS])
    tables.write_parquet(destination / "items.parquet", pa.Table.from_pylist(rows, schema=sealed_schema))
    changes: dict[str, Any] = {"files": {}, "pool": Pool()}
    policy = split.policy_path
    if isinstance(policy, Path):
        if travels(policy, split.path):
            for file in visible_files(policy):
                name = destination / "policy" / file.relative_to(policy)
                with files.atomic(name) as target, file.open("rb") as source:
                    shutil.copyfileobj(source, target)
            policy = Path("policy")
        changes["base_policy"] = split.config.base_policy.model_copy(update={"path": str(policy)})
    write_config(destination, split.config.model_copy(update=changes))
    return destination
