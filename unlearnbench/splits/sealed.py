"""The copy of a split that a method's process gets: prompts, recipe, protocol and base policy; no answer, no label."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from unlearnbench.errors import SplitError
from unlearnbench.io import tables
from unlearnbench.io.files import atomic
from unlearnbench.records import Pool, SplitConfig
from unlearnbench.splits.split import Split
from unlearnbench.splits.write import travels, visible_files, write_config

_POOL = "pool.parquet"
_COLUMNS = {"item_id": pa.string(), "prompt": pa.string()}


@dataclass(frozen=True)
class Sealed:
    """What a sealed copy holds."""

    config: SplitConfig
    pool: tuple[tuple[str, str], ...]
    """Id and prompt of every item and canary, in an order that does not distinguish them."""
    policy: Path | str
    """The base policy's folder, or its name on the Hub."""


def seal(split: Split, destination: Path) -> Path:
    """Write the sealed copy of a split and return its folder.

    Raises SplitError if the folder holds anything else, RunError if the disk is full.
    """
    destination = Path(destination)
    own = {"split.yaml", _POOL, "policy"}
    for left in destination.glob(".*.tmp"):  # by a kill in the middle of a write
        left.unlink()
    foreign = (
        sorted(path.name for path in destination.iterdir() if path.name not in own) if destination.exists() else []
    )
    if foreign:
        raise SplitError(f"{destination} is not empty (it holds {foreign[0]}); name a new folder for the sealed copy")
    rows = [{"item_id": item.item_id, "prompt": item.prompt} for item in split.items]
    rows += [{"item_id": canary.item_id, "prompt": canary.prompt} for canary in split.canaries]
    rows.sort(key=lambda row: row["item_id"])
    tables.write_parquet(destination / _POOL, pa.Table.from_pylist(rows, schema=pa.schema(_COLUMNS)))
    changes: dict[str, Any] = {"files": {}, "pool": Pool()}
    policy = split.policy_path
    if isinstance(policy, Path):
        if travels(policy, split.path):
            for file in visible_files(policy):
                name = destination / "policy" / file.relative_to(policy)
                with atomic(name) as target, file.open("rb") as source:
                    shutil.copyfileobj(source, target)
            policy = Path("policy")
        changes["base_policy"] = split.config.base_policy.model_copy(update={"path": str(policy)})
    write_config(destination, split.config.model_copy(update=changes))
    return destination


def read_sealed(folder: Path) -> Sealed:
    """What a sealed copy holds. Raises DataError for a malformed one."""
    config = tables.read_yaml_record(folder / "split.yaml", SplitConfig)
    rows = tables.read_parquet(folder / _POOL, _COLUMNS).to_pylist()
    policy = folder / config.base_policy.path
    pool = tuple((row["item_id"], row["prompt"]) for row in rows)
    return Sealed(config, pool, policy if policy.is_dir() else config.base_policy.path)
