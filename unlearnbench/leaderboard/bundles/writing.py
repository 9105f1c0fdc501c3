"""Writing the bundle of a finished run: the same run gives the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unlearnbench import __version__
from unlearnbench.errors import RunError
from unlearnbench.harness.null_speed import SPEED
from unlearnbench.harness.privileged import ASKED
from unlearnbench.harness.training_jobs import SOURCE
from unlearnbench.io import files, tables
from unlearnbench.io.safe_zip import write_archive
from unlearnbench.leaderboard.bundles.bundle import (
    PHASES,
    SEED_FILES,
    Bundle,
    Manifest,
    Member,
    Statement,
    holds_weights,
    member_limit,
)
from unlearnbench.leaderboard.bundles.opening import open_bundle, require_statement
from unlearnbench.leaderboard.bundles.tables import LEDGER, ROLLOUTS
from unlearnbench.methods import locate
from unlearnbench.records import Record
from unlearnbench.scoring.comparisons.comparability import read_run
from unlearnbench.training.ledger import read_ledger, read_metrics, read_visits

Content = bytes | Path
"""Of a member: its bytes, or the file that holds them."""


def write_bundle(
    folder: Path, out: Path, statement: Statement, method: str | None = None, *, weights: bool = True
) -> Bundle:
    """Write the bundle of a finished run of `eval`, and open it again. Nothing is left at `out` where that fails.

    `method` names the method's source if it is not found by its name in the run. Without `weights` the bundle
    cannot be measured again. Raises RunError where something of the run is missing, DataError where it is malformed.
    """
    require_statement("the statement of the bundle", statement)
    run = read_run(folder)
    if run.result.kind != "eval":
        raise RunError(
            f"{folder} is a result of kind {run.result.kind}: nothing shows how its policies were made, so its track "
            "is undeclared and it is never ranked; submit a run of `unlearnbench eval --method`"
        )
    members: dict[str, Content] = {}
    for seed in run.result.seeds:
        members |= _seed(folder / str(seed), seed, weights=weights)
    file, content = _source(folder / str(run.result.seeds[0]), run.configuration, method)
    members[f"method/{file}"] = content
    members["result.json"] = _bytes(folder / "result.json")
    members["counts.parquet"] = _parquet(tables.read_counts(folder / "counts.parquet"))
    members["rollouts.parquet"] = _parquet(_rollouts(folder, run.result.seeds))
    members["ledger.parquet"] = _parquet(_ledger(folder, run.result.seeds))
    members["visits.parquet"] = _parquet(
        pa.concat_tables([read_visits(folder / str(seed), seed) for seed in run.result.seeds])
    )
    if (folder / SPEED).is_file():
        members[SPEED] = _bytes(folder / SPEED)
    members["entry.json"] = _json(statement)
    fresh = out.with_name(f".{out.name}.new")
    try:
        write_members(members, fresh)
        open_bundle(fresh)
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)
    return open_bundle(out)


def write_members(members: Mapping[str, Content], out: Path) -> None:
    """Write these members as a bundle, with a manifest that is true of them."""
    rest = {name: content for name, content in members.items() if name != "manifest.json"}
    listed = {name: _member(rest[name]) for name in sorted(rest)}
    write_archive(out, rest | {"manifest.json": _json(Manifest(code_version=__version__, members=listed))})


def _member(content: Content) -> Member:
    if isinstance(content, Path):
        return Member(sha256=files.sha256(content), bytes=content.stat().st_size)
    return Member(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def _seed(place: Path, seed: int, *, weights: bool) -> dict[str, Content]:
    """Members of one seed."""
    found: dict[str, Content] = {}
    for name in (*SEED_FILES, Path(ASKED).stem):
        path = place / f"{name}.json"
        if path.is_file():
            found[f"seeds/{seed}/{name}.json"] = _bytes(path)
        elif name in SEED_FILES:
            raise RunError(f"{path} is missing; run the same `eval` command again, which makes what is missing")
    if not weights:
        return found
    stored = {f"seeds/{seed}/weights/{path.name}": path for path in (place / "checkpoint").glob("*.safetensors")}
    if odd := [path for name, path in stored.items() if not holds_weights(name)]:
        raise RunError(f"{odd[0]} is not named as a run's checkpoint is; submit the run as `eval` left it")
    if not stored:
        raise RunError(f"{place / 'checkpoint'} holds no weights; run the same `eval` command again")
    return found | stored


def _source(seed: Path, config: Mapping[str, Any], method: str | None) -> tuple[str, bytes]:
    """Name and content of the method's file: as the run kept it, or found by `method` or the run's name for it.

    Raises RunError where the file found is not the one that was run.
    """
    name, wanted = str(config.get("method")), str(config.get("source_hash"))
    kept = seed / SOURCE
    path = kept if kept.is_file() and method is None else Path(locate(method or name).file)
    content = _bytes(path)
    if hashlib.sha256(content).hexdigest() != wanted:
        raise RunError(
            f"{path} is not the source that was run (its hash differs from config.json's); name the file as it was "
            "with --method, or run `eval` again with the file as it is"
        )
    if len(content) > (most := member_limit("method/a.py") or 0):
        raise RunError(f"{path} has {len(content):,} bytes, and a method's file may have {most:,}; shorten it")
    file = f"{name}.py" if path == kept else path.name
    return file if member_limit(f"method/{file}") else SOURCE, content


def _rollouts(folder: Path, seeds: Sequence[int]) -> pa.Table:
    parts = []
    for seed in seeds:
        for stem, phase in PHASES.items():
            path = folder / str(seed) / "evaluation" / f"{stem}.parquet"
            if not path.is_file():
                if stem == "items":
                    raise RunError(f"{path} is missing; run the same `eval` command again, which makes it")
                continue
            key = "twin_id" if stem == "twins" else "item_id"
            wanted = {key: pa.string(), **{name: ROLLOUTS.field(name).type for name in ROLLOUTS.names[3:]}}
            rows = tables.read_parquet(path, wanted)
            head = [pa.array([seed] * rows.num_rows, pa.int64()), pa.array([phase] * rows.num_rows, pa.string())]
            parts.append(pa.table([*head, *rows.columns], schema=ROLLOUTS))
    return pa.concat_tables(parts)


def _ledger(folder: Path, seeds: Sequence[int]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        place = folder / str(seed)
        drawn = read_ledger(place, ("step", "source", "correct", "token_ids"))
        drawn = drawn.append_column("tokens", pc.list_value_length(drawn["token_ids"]))
        drawn = drawn.append_column("right", pc.cast(pc.fill_null(drawn["correct"], False), pa.int64()))
        sums = drawn.group_by(["step", "source"]).aggregate([("tokens", "sum"), ("right", "sum"), ([], "count_all")])
        by_step: dict[int, list[dict[str, Any]]] = {}
        for row in sums.to_pylist():
            by_step.setdefault(row["step"], []).append(row)
        spent = {int(line["step"]): line.get("flops") for line in read_metrics(place) if "step" in line}
        for step in sorted({*by_step, *spent}):
            nothing = {"source": "", "count_all": 0, "right_sum": 0, "tokens_sum": 0}
            for row in sorted(by_step.get(step, [nothing]), key=lambda row: str(row["source"])):
                rows.append(
                    {"seed": seed, "step": step, "source": row["source"], "rollouts": row["count_all"]}
                    | {"correct": row["right_sum"], "tokens": row["tokens_sum"], "flops": spent.get(step)}
                )
    return pa.Table.from_pylist(rows, schema=LEDGER)


def _parquet(table: pa.Table) -> bytes:
    """As `tables.write_parquet` writes it, compressed more."""
    table = table.combine_chunks()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", compression_level=15) as writer:
        if table.num_rows:
            writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _json(record: Record) -> bytes:
    return (json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _bytes(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise files.unreadable(path, error) from error
