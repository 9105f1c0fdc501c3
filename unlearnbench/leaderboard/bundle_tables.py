"""The tables of a bundle, read by a process of their own: a damaged parquet file can end the one that reads it.

That process has no more memory than READER_MEMORY and no longer than READER_SECONDS. It sends back what it read in
Arrow's own form, checked (foreign.py), or the sentence that says what is wrong.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.io.child import command
from unlearnbench.io.untrusted import read_table
from unlearnbench.scoring import fates

MOST_ROWS = 8_000_000
"""Rollouts of a bundle."""
MOST_LEDGER = 200_000
"""Rows of a ledger: honest ones have some hundred a seed."""
READER_MEMORY = 6 << 30
READER_SECONDS = 600.0

ROLLOUTS = pa.schema(
    [
        ("seed", pa.int64()),
        ("phase", pa.string()),
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("completion", pa.string()),
        ("finish", pa.string()),
        ("correct", pa.bool_()),
    ]
)
"""Raw evaluation rollouts, one row each. `correct` is the verdict that is claimed."""
LEDGER = pa.schema(
    [
        ("seed", pa.int64()),
        ("step", pa.int64()),
        ("source", pa.string()),
        ("rollouts", pa.int64()),
        ("correct", pa.int64()),
        ("tokens", pa.int64()),
        ("flops", pa.int64()),
    ]
)
"""What training drew and injected, a row a step and source of rollouts; `flops` is the meter after that step, null
where the step logged none."""
FATES = pa.schema(list(fates.SCHEMA.items()))


@dataclass(frozen=True)
class Form:
    """Columns of a table, and those in which a value may be missing."""

    schema: pa.Schema
    nulls: frozenset[str] = frozenset()
    free: frozenset[str] = frozenset()
    """Columns whose texts may be long."""


FORMS: Mapping[str, Form] = {
    "rollouts.parquet": Form(ROLLOUTS, free=frozenset({"completion"})),
    "counts.parquet": Form(tables.COUNTS),
    "fates.parquet": Form(FATES, frozenset({"first_correct_step", "rewarded_valid_trace"})),
    "ledger.parquet": Form(LEDGER, frozenset({"flops"})),
}


def read_tables(
    path: Path, members: Mapping[str, bytes], rows: int | None = None, most: Mapping[str, int] | None = None
) -> dict[str, pa.Table]:
    """The tables of FORMS among a bundle's members, texts as dictionaries; `rows` are wanted of the rollouts, and at
    most so many as `most` says (by default: of rollouts) of another table.

    Raises DataError naming member, row and field, also where a table ends the process that reads it.
    """
    limits = {"ledger.parquet": MOST_LEDGER, **(most or {})}
    asked = [
        {"name": name, "where": f"{path}, member '{name}'", "bytes": len(members[name])}
        | {"rows": rows if name == "rollouts.parquet" else None, "most": limits.get(name, MOST_ROWS)}
        for name in FORMS
    ]
    question = json.dumps(asked).encode() + b"\n" + b"".join(members[name] for name in FORMS)
    try:
        done = subprocess.run(
            command("unlearnbench.leaderboard.bundle_tables:serve"),
            input=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=READER_SECONDS,
            check=False,
        )
        reply, status = io.BytesIO(done.stdout), f"ended it with status {done.returncode}"
    except subprocess.TimeoutExpired as error:
        reply, status = io.BytesIO(error.stdout or b""), f"kept it busy for {READER_SECONDS:.0f} seconds"
    found: dict[str, pa.Table] = {}
    for name in FORMS:
        line = reply.readline()
        told = json.loads(line) if line.endswith(b"\n") else {"error": None}
        size = int(told.get("bytes") or 0)
        content = reply.read(size)
        if "error" in told or len(content) < size:
            lost = (
                f"{path}, member '{name}' is no table: the process that read it failed ({status}); make the bundle anew"
            )
            raise DataError(told.get("error") or lost)
        with pa.ipc.open_stream(content) as stream:
            found[name] = stream.read_all()
    return found


def serve() -> None:
    """The other side of `read_tables`: what standard input holds, read, checked and sent back."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (READER_MEMORY, READER_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    for asked in json.loads(source.readline()):
        form, data = FORMS[asked["name"]], source.read(asked["bytes"])
        try:
            limits = {"rows": asked["rows"], "most": asked["most"]}
            table = read_table(asked["where"], data, form.schema, **limits, nulls=form.nulls, free=form.free)
        except DataError as error:
            sink.write(json.dumps({"error": str(error)}).encode() + b"\n")
            break
        with pa.BufferOutputStream() as buffer:
            with pa.ipc.new_stream(buffer, table.schema) as stream:
                stream.write_table(table)
            content = buffer.getvalue()
        sink.write(json.dumps({"bytes": content.size}).encode() + b"\n")
        sink.write(content)
        sink.flush()
    sink.flush()
