"""A bundle: one zip file with everything that a submission's numbers rest on, except the policies' weights.

run folder → `write_bundle` → BUNDLE → `open_bundle` → the same content, checked for form. Whether it is true is asked
in verification.py. docs/guide/leaderboard.md lists the members.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, ValidationError

from unlearnbench import __version__
from unlearnbench.errors import DataError, RunError
from unlearnbench.harness.privileged import ASKED
from unlearnbench.harness.training_jobs import SOURCE
from unlearnbench.io import files, tables
from unlearnbench.io.safe_zip import read_archive, write_archive
from unlearnbench.io.untrusted import read_json, require_name, require_source, require_url
from unlearnbench.leaderboard.bundle_tables import FORMS, LEDGER, ROLLOUTS, read_tables
from unlearnbench.methods import locate
from unlearnbench.records import READS, Cost, Record, Result, Track
from unlearnbench.scoring import fates
from unlearnbench.scoring.comparability import read_run
from unlearnbench.training.ledger import read_ledger, read_metrics

SCHEMA_VERSION = 1
MOST_SEEDS = 100

PHASES = {"items": "eval", "twins": "twin", "canaries": "canary", "start": "start"}
"""Evaluation file of a seed: phase of its rows, as in counts.parquet."""

_JSON, _SOURCE, _TABLE = 1 << 20, 256 << 10, 512 << 20
_MEMBERS = {
    r"manifest\.json|entry\.json|result\.json": _JSON,
    r"seeds/(?:0|[1-9][0-9]{0,17})/(?:config|environment|method|cost|asked)\.json": _JSON,
    r"rollouts\.parquet|counts\.parquet|fates\.parquet|ledger\.parquet": _TABLE,
    r"method/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.py": _SOURCE,
}
_REQUIRED = ("manifest.json", "entry.json", "result.json", *FORMS)
_SEED_FILES = ("config", "environment", "method", "cost")


class Member(Record):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Manifest(Record):
    """manifest.json: what else the bundle holds."""

    schema_version: Literal[1] = 1
    code_version: str
    members: Mapping[str, Member]


class Statement(Record):
    """entry.json of a bundle: what its authors say of it."""

    name: str = Field(min_length=1, max_length=100)
    authors: Sequence[str] = Field(default=(), max_length=100)
    url: str | None = None
    tried: int | None = Field(default=None, ge=1, strict=True)
    """Configurations (methods, settings, seeds) that were evaluated before this one was chosen, this one included."""


class SeedConfig(Record):
    """config.json of a seed. What later versions add is kept and not looked at."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    split: str
    split_hash: str
    method: str
    source_hash: str
    settings: Mapping[str, Any]
    samples: int = Field(ge=1)
    budget: float = Field(gt=0)
    purpose: str
    start: str | None
    quick: bool
    seed: int = Field(ge=0)


class SeedMethod(Record):
    """method.json of a seed: what the training process said of itself."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str
    source_hash: str
    track: Track
    reads: Sequence[str]
    settings: Mapping[str, Any]
    start: str = "base"
    class_name: str = Field(default="", alias="class", pattern=r"^[A-Za-z_]?[A-Za-z0-9_]{0,99}$")


class SeedCost(Cost):
    """cost.json of a seed."""

    generated_tokens: int = Field(ge=0)
    trained_tokens: int = Field(ge=0)
    forward_tokens: int = Field(ge=0)
    flops: int = Field(ge=0)
    verifier_calls: int = Field(ge=0)
    ungradable: int = Field(ge=0)
    seconds: float = Field(ge=0)


@dataclass(frozen=True)
class Seed:
    config: SeedConfig
    method: SeedMethod
    cost: SeedCost
    asked: Sequence[str]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, every member of the right form. Its tables are not read yet."""

    path: Path
    members: Mapping[str, bytes]
    manifest: Manifest
    statement: Statement
    result: Result
    seeds: Mapping[int, Seed]
    source_name: str

    @property
    def source(self) -> bytes:
        return self.members[self.source_name]

    @cached_property
    def sha256(self) -> str:
        """Names the bundle: the hash of its manifest, which has those of the members."""
        return hashlib.sha256(self.members["manifest.json"]).hexdigest()

    def tables(self, rows: int | None = None, most: Mapping[str, int] | None = None) -> dict[str, pa.Table]:
        """All tables by member's name, texts as dictionaries, `rows` and `most` as bundle_tables.py has them.

        Raises DataError naming member, row and field.
        """
        return read_tables(self.path, self.members, rows, most)


# --- writing --------------------------------------------------------------------------------------------------


def write_bundle(folder: Path, out: Path, statement: Statement, method: str | None = None) -> Bundle:
    """Write the bundle of a finished run of `eval`, and open it again.

    `method` names the method's source where it is not found by the run's name for it. The same run gives the same
    bytes. Raises RunError where something of the run is missing, DataError where it is malformed.
    """
    run = read_run(folder)
    if run.result.kind != "eval":
        raise RunError(
            f"{folder} is a result of kind {run.result.kind}: nothing shows how its policies were made, so its track "
            "is undeclared and it is never ranked; submit a run of `unlearnbench eval --method`"
        )
    members: dict[str, bytes] = {}
    for seed in run.result.seeds:
        place = folder / str(seed)
        for name in (*_SEED_FILES, Path(ASKED).stem):
            path = place / f"{name}.json"
            if path.is_file():
                members[f"seeds/{seed}/{name}.json"] = _bytes(path)
            elif name in _SEED_FILES:
                raise RunError(f"{path} is missing; give the same `eval` command again, which makes what is not there")
    file, content = _source(folder / str(run.result.seeds[0]), run.configuration, method)
    members[f"method/{file}"] = content
    members["result.json"] = _bytes(folder / "result.json")
    members["counts.parquet"] = _bytes(folder / "counts.parquet")
    members["fates.parquet"] = _parquet(tables.read_parquet(folder / "fates.parquet", fates.SCHEMA))
    members["rollouts.parquet"] = _parquet(_rollouts(folder, run.result.seeds))
    members["ledger.parquet"] = _parquet(_ledger(folder, run.result.seeds))
    members["entry.json"] = _json(statement)
    members["manifest.json"] = _json(_manifest(members))
    write_archive(out, members)
    return open_bundle(out)


def repack(members: Mapping[str, bytes], out: Path) -> None:
    """Write members that have changed as a bundle, with a manifest that is true of them."""
    rest = {name: content for name, content in members.items() if name != "manifest.json"}
    write_archive(out, rest | {"manifest.json": _json(_manifest(rest))})


def _manifest(members: Mapping[str, bytes]) -> Manifest:
    listed = {
        name: Member(sha256=hashlib.sha256(members[name]).hexdigest(), bytes=len(members[name]))
        for name in sorted(members)
    }
    return Manifest(code_version=__version__, members=listed)


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
    if len(content) > _SOURCE:
        raise RunError(f"{path} has {len(content):,} bytes, and a method's file may have {_SOURCE:,}; shorten it")
    file = f"{name}.py" if path == kept else path.name
    return file if member_limit(f"method/{file}") else SOURCE, content


def _rollouts(folder: Path, seeds: Sequence[int]) -> pa.Table:
    parts = []
    for seed in seeds:
        for stem, phase in PHASES.items():
            path = folder / str(seed) / "evaluation" / f"{stem}.parquet"
            if not path.is_file():
                if stem == "items":
                    raise RunError(f"{path} is missing; give the same `eval` command again, which makes it")
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
    """As `tables.write_parquet` writes it, packed harder."""
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


# --- opening --------------------------------------------------------------------------------------------------


def member_limit(name: str) -> int | None:
    """Bytes that a member of this name may have; None for what does not belong into a bundle."""
    return next((most for pattern, most in _MEMBERS.items() if re.fullmatch(pattern, name)), None)


def open_bundle(path: Path) -> Bundle:
    """A bundle with every member of the right form; none of its code is run, nothing is written.

    Raises DataError naming member and field: an unsafe archive (archive.py), a member missing or other than its hash,
    a schema version of the future, JSON that is malformed or hostile (foreign.py), an address that is none.
    """
    path = Path(path)
    members = read_archive(path, member_limit)
    for name in _REQUIRED:
        if name not in members:
            raise DataError(f"{path} lacks the member {name!r}; make the bundle with `unlearnbench submit`")
    manifest = _checked_manifest(path, members)
    result = _record(path, members, "result.json", Result)
    statement = _record(path, members, "entry.json", Statement)
    require_name(f"{path}, member 'result.json', field 'method.name'", result.method.name)
    for field, names in (("name", [statement.name]), ("authors", statement.authors)):
        for name in names:
            require_name(f"{path}, member 'entry.json', field '{field}'", name)
    if statement.url is not None:
        require_url(f"{path}, member 'entry.json', field 'url'", statement.url)
    sources = [name for name in members if name.startswith("method/")]
    if len(sources) != 1:
        raise DataError(f"{path} holds {len(sources)} files under method/, and a bundle has one: the method's source")
    require_source(f"{path}, member {sources[0]!r}", members[sources[0]])
    numbers = sorted({int(name.split("/")[1]) for name in members if name.startswith("seeds/")})
    if len(numbers) > MOST_SEEDS:
        raise DataError(f"{path} holds {len(numbers)} seeds, more than {MOST_SEEDS}")
    seeds = {number: _seed(path, members, number) for number in numbers}
    return Bundle(path, members, manifest, statement, result, seeds, sources[0])


def _checked_manifest(path: Path, members: Mapping[str, bytes]) -> Manifest:
    where = f"{path}, member 'manifest.json'"
    manifest: Manifest = _record(path, members, "manifest.json", Manifest)
    stated, there = set(manifest.members), set(members) - {"manifest.json"}
    if stated != there:
        odd = sorted(stated ^ there)[0]
        raise DataError(f"{where} and the bundle do not agree on member {odd!r:.200}: one has it and the other has not")
    for name, member in manifest.members.items():
        content = members[name]
        if len(content) != member.bytes or hashlib.sha256(content).hexdigest() != member.sha256:
            raise DataError(f"{path}, member {name!r} is not what manifest.json says (its hash differs)")
    return manifest


def _seed(path: Path, members: Mapping[str, bytes], number: int) -> Seed:
    root = f"seeds/{number}"
    for name in _SEED_FILES:
        if f"{root}/{name}.json" not in members:
            raise DataError(f"{path} lacks the member '{root}/{name}.json'; every seed has {', '.join(_SEED_FILES)}")
    read_json(f"{path}, member '{root}/environment.json'", members[f"{root}/environment.json"])
    asked = f"{root}/{ASKED}"
    names = _names(f"{path}, member {asked!r}", members[asked]) if asked in members else []
    return Seed(
        config=_record(path, members, f"{root}/config.json", SeedConfig),
        method=_record(path, members, f"{root}/method.json", SeedMethod),
        cost=_record(path, members, f"{root}/cost.json", SeedCost),
        asked=names,
    )


def _names(where: str, data: bytes) -> list[str]:
    """A JSON list of names of READS."""
    inside = read_json(where, b'{"asked": ' + data + b"}")["asked"]
    if not isinstance(inside, list) or any(name not in READS for name in inside):
        raise DataError(f"{where}: a list of names was expected, each one of {', '.join(READS)}")
    return [str(name) for name in inside]


def _record(path: Path, members: Mapping[str, bytes], name: str, model: type[Any]) -> Any:
    where = f"{path}, member {name!r}"
    version = read_json(where, members[name]).get("schema_version")
    if version is not None and type(version) is not int:
        raise DataError(f"{where}, field 'schema_version': {version!r:.40} is no whole number")
    if version is not None and version > SCHEMA_VERSION:
        raise DataError(
            f"{where}: schema version {version} is newer than {SCHEMA_VERSION}, the newest known here; update "
            "unlearnbench, or make the bundle with this version"
        )
    try:
        return model.model_validate_json(members[name])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{where}, field {field!r}: {first['msg']}") from error
