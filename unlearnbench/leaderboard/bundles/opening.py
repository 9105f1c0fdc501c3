"""Opening a bundle from anybody: every member of the right form, none of its code run, nothing written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unlearnbench.errors import DataError
from unlearnbench.harness.null_speed import SPEED, NullSpeed
from unlearnbench.harness.privileged import ASKED
from unlearnbench.io.safe_zip import Archive, read_archive
from unlearnbench.io.untrusted import read_json, require_name, require_source, require_url
from unlearnbench.leaderboard.bundles.bundle import (
    MOST_SEEDS,
    REQUIRED,
    SEED_FILES,
    Bundle,
    Manifest,
    Seed,
    SeedConfig,
    SeedCost,
    SeedMethod,
    Statement,
    holds_weights,
    member_limit,
)
from unlearnbench.records import READS, Result

NEWEST = {"manifest.json": 2, "result.json": 2}
"""Newest schema version of a member that is known here; 1 of all others."""


def open_bundle(path: Path) -> Bundle:
    """Open a bundle.

    Raises DataError naming member and field: an unsafe archive (safe_zip.py), a member missing or with another hash,
    an unknown schema version, JSON that is malformed or hostile (untrusted.py), a source that is no plain Python, a
    name or an address that misleads.
    """
    archive = read_archive(Path(path), member_limit, holds_weights)
    members = archive.members
    for name in REQUIRED:
        if name not in members:
            raise DataError(f"{archive.path} lacks the member {name!r}; create the bundle with `unlearnbench submit`")
    manifest = _checked_manifest(archive)
    result: Result = _record(archive, "result.json", Result)
    statement: Statement = _record(archive, "entry.json", Statement)
    require_name(f"{archive.path}, member 'result.json', field 'method.name'", result.method.name)
    require_statement(f"{archive.path}, member 'entry.json'", statement)
    sources = [name for name in members if name.startswith("method/")]
    if len(sources) != 1:
        raise DataError(f"{archive.path} has {len(sources)} files under method/; a bundle has one, the method's source")
    require_source(f"{archive.path}, member {sources[0]!r}", members[sources[0]])
    names = [*members, *archive.large]
    numbers = sorted({int(name.split("/")[1]) for name in names if name.startswith("seeds/")})
    if len(numbers) > MOST_SEEDS:
        raise DataError(f"{archive.path} has {len(numbers)} seeds, more than {MOST_SEEDS}")
    seeds = {number: _seed(archive, number) for number in numbers}
    speed = _record(archive, SPEED, NullSpeed) if SPEED in members else None
    return Bundle(archive, manifest, statement, result, seeds, speed, sources[0])


def require_statement(where: str, statement: Statement) -> None:
    """Raise DataError, which begins with `where`, unless names and address are what they look like."""
    for field, names in (("name", [statement.name]), ("authors", statement.authors)):
        for name in names:
            require_name(f"{where}, field '{field}'", name)
    if statement.url is not None:
        require_url(f"{where}, field 'url'", statement.url)


def _checked_manifest(archive: Archive) -> Manifest:
    """The manifest, which names all members. Those that stay in the file are checked when they are read."""
    where = f"{archive.path}, member 'manifest.json'"
    manifest: Manifest = _record(archive, "manifest.json", Manifest)
    stated, there = set(manifest.members), {*archive.members, *archive.large} - {"manifest.json"}
    if stated != there:
        odd = sorted(stated ^ there)[0]
        raise DataError(f"{where} and the bundle disagree on member {odd!r:.200}: only one of them has it")
    for name, member in manifest.members.items():
        content = archive.members.get(name)
        size = archive.large[name] if content is None else len(content)
        if size != member.bytes or (content is not None and hashlib.sha256(content).hexdigest() != member.sha256):
            raise DataError(f"{archive.path}, member {name!r} is not what manifest.json says (its hash differs)")
    return manifest


def _seed(archive: Archive, number: int) -> Seed:
    root, members = f"seeds/{number}", archive.members
    for name in SEED_FILES:
        if f"{root}/{name}.json" not in members:
            raise DataError(
                f"{archive.path} lacks the member '{root}/{name}.json'; every seed has {', '.join(SEED_FILES)}"
            )
    read_json(f"{archive.path}, member '{root}/environment.json'", members[f"{root}/environment.json"])
    asked = f"{root}/{ASKED}"
    return Seed(
        config=_record(archive, f"{root}/config.json", SeedConfig),
        method=_record(archive, f"{root}/method.json", SeedMethod),
        cost=_record(archive, f"{root}/cost.json", SeedCost),
        asked=_names(f"{archive.path}, member {asked!r}", members[asked]) if asked in members else [],
        weights=sorted(name for name in archive.large if name.startswith(f"{root}/")),
    )


def _names(where: str, data: bytes) -> list[str]:
    """A JSON list of names of READS."""
    inside = read_json(where, b'{"asked": ' + data + b"}")["asked"]
    if not isinstance(inside, list) or any(name not in READS for name in inside):
        raise DataError(f"{where}: a list of names was expected, each one of {', '.join(READS)}")
    return [str(name) for name in inside]


def _record(archive: Archive, name: str, model: type[Any]) -> Any:
    where = f"{archive.path}, member {name!r}"
    found: Mapping[str, Any] = read_json(where, archive.members[name])
    version, newest = found.get("schema_version"), NEWEST.get(name, 1)
    if version is not None and type(version) is not int:
        raise DataError(f"{where}, field 'schema_version': {version!r:.40} is not a whole number")
    if version is not None and version > newest:
        raise DataError(
            f"{where}: schema version {version} is newer than {newest}, the newest known here; update unlearnbench, or "
            "create the bundle with this version"
        )
    if name == "manifest.json" and (version or 0) < newest:
        raise DataError(
            f"{where}: schema version {version}: a bundle without weights, of an earlier version; create it again with "
            "`unlearnbench submit`"
        )
    try:
        return model.model_validate_json(archive.members[name])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{where}, field {field!r}: {first['msg']}") from error
