"""Writing a labelled split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import yaml

from unlearnbench.io import files, tables
from unlearnbench.records import Canary, Item, Pool, RelatedProblem, SplitConfig, Twin
from unlearnbench.splits.split import PARTS, Split, item_schema, item_table, policy_name

if TYPE_CHECKING:
    pass


def write_split(
    folder: Path,
    config: SplitConfig,
    items: Sequence[Item],
    *,
    twins: Sequence[Twin] | None = None,
    canaries: Sequence[Canary] | None = None,
    counts: pa.Table | None = None,
    twin_counts: pa.Table | None = None,
    related: Mapping[str, Sequence[RelatedProblem]] | None = None,
) -> Split:
    """Write a labelled split and return it; split.yaml, with the hashes, comes last.

    `related` holds generated problems by the name of their file, as `similar`; only those given here are hashed.

    What is None is left as it is in the folder; the base policy's files, if `base_policy.path` is a folder there,
    must be in place. The same arguments give the same bytes. Raises RunError if the disk is full.
    """
    folder = Path(folder)
    tables.write_parquet(folder / "items.parquet", item_table(items))
    for part in PARTS:
        rows = [item for item in items if part in ("train", item.group)]
        tables.write_parquet(folder / "data" / f"{part}.parquet", item_table(rows, item_schema(items)))
    if twins is not None:
        tables.write_records(folder / "twins.parquet", twins, Twin)
    if canaries is not None:
        tables.write_records(folder / "canaries.json", canaries, Canary)
    if counts is not None:
        tables.write_parquet(folder / "counts.parquet", counts)
    if twin_counts is not None:
        tables.write_parquet(folder / "twin_counts.parquet", twin_counts)
    pool = Pool(
        twins="twins.parquet" if (folder / "twins.parquet").is_file() else None,
        canaries="canaries.json" if (folder / "canaries.json").is_file() else None,
    )
    names = label_files(folder, config)
    for kind, problems in (related or {}).items():
        tables.write_records(folder / f"{kind}.parquet", problems, RelatedProblem)
        names = sorted([*names, f"{kind}.parquet"])
    hashes = {name: files.sha256(folder / name) for name in names}
    write_config(folder, config.model_copy(update={"pool": pool, "files": hashes}))
    return Split(folder)


def label_files(folder: Path, config: SplitConfig) -> list[str]:
    """The files there that the labels rest on, by path relative to split.yaml, sorted."""
    names = ["items.parquet", "twins.parquet", "canaries.json", "counts.parquet", "twin_counts.parquet"]
    names += [f"data/{part}.parquet" for part in PARTS]
    policy = folder / policy_name(config)
    if travels(policy, folder):
        names += [file.relative_to(folder).as_posix() for file in visible_files(policy)]
    return sorted(name for name in names if (folder / name).is_file())


def write_config(folder: Path, config: SplitConfig) -> None:
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    files.write_text(folder / "split.yaml", text)


def travels(policy: Path, folder: Path) -> bool:
    """Whether the policy is part of the split's folder, and not a model that lies elsewhere on this machine."""
    return policy.is_dir() and policy.resolve().is_relative_to(folder.resolve())


def visible_files(folder: Path) -> list[Path]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
