"""The tables of a bundle, read in a process of their own, since a damaged parquet file can crash its reader.

That process has at most READER_MEMORY and READER_SECONDS. It sends back the checked tables in Arrow's format, or the
sentence that says what is wrong.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.io.child import command
from unlearnbench.io.untrusted import Bounds, read_table
from unlearnbench.scoring.fates import VISITS as VISIT_COLUMNS

MOST_ROWS = 8_000_000
"""Rollouts of a bundle."""
MOST_LEDGER = 200_000
"""Rows of a ledger; honest ones have some hundred per seed."""
MOST_VISITS = 8_000_000
READER_MEMORY = 6 << 30
READER_SECONDS = 300.0

ROLLOUTS = pa.schema(
    [
        ("seed", pa.int64()),
        ("phase", pa.string()),
        ("problem_id", pa.string()),
        ("sample", pa.int32()),
        ("completion", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("finish", pa.string()),
        ("correct", pa.bool_()),
    ]
)
"""Evaluation rollouts, one row each. `correct` is the claimed verdict."""
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
"""What training drew, one row per seed, step and source of rollouts (empty for a step that drew none); `flops` is the
cost of the seed up to the end of that step, null where the step logged none."""
VISITS = pa.schema(list(VISIT_COLUMNS.items()))
"""What the policy drew in the items' own prompts, one row per seed, step and item."""


@dataclass(frozen=True)
class Form:
    """A table's columns, and the most rows that it may have."""

    schema: pa.Schema
    most: int
    nulls: frozenset[str] = frozenset()


FORMS: Mapping[str, Form] = {
    "rollouts.parquet": Form(ROLLOUTS, MOST_ROWS),
    "counts.parquet": Form(tables.COUNTS, MOST_ROWS),
    "ledger.parquet": Form(LEDGER, MOST_LEDGER, frozenset({"flops"})),
    "visits.parquet": Form(VISITS, MOST_VISITS),
}


@dataclass(frozen=True)
class Sizes:
    """What the tables of one bundle may hold, by its split and configuration; nothing is known without them."""

    rollouts: int | None = None
    """Rows of rollouts.parquet, exactly."""
    counts: int | None = None
    """Rows of counts.parquet at most."""
    texts: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the longest text of a column of rollouts.parquet that does not hold names."""
    values: Mapping[str, int] = field(default_factory=dict)
    """Values of the longest list of a column of rollouts.parquet."""

    def bounds(self, name: str) -> dict[str, Any]:
        """As `Bounds` takes them, in JSON."""
        form = FORMS[name]
        told: dict[str, Any] = {"most": form.most, "nulls": sorted(form.nulls)}
        if name == "rollouts.parquet":
            told |= {"rows": self.rollouts, "texts": dict(self.texts), "values": dict(self.values)}
        if name == "counts.parquet" and self.counts is not None:
            told["most"] = self.counts
        return told


def read_tables(path: Path, members: Mapping[str, bytes], sizes: Sizes) -> dict[str, pa.Table]:
    """The tables of FORMS among a bundle's members, texts as dictionaries.

    Raises DataError naming member, row and field, also where a table crashes the process that reads it.
    """
    asked = [
        {"name": name, "where": f"{path}, member '{name}'", "bytes": len(members[name]), "bounds": sizes.bounds(name)}
        for name in FORMS
    ]
    question = json.dumps(asked).encode() + b"\n" + b"".join(members[name] for name in FORMS)
    try:
        done = subprocess.run(
            command("unlearnbench.leaderboard.bundles.tables:serve"),
            input=question,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=READER_SECONDS,
            check=False,
        )
        reply, status = io.BytesIO(done.stdout), f"it ended with status {done.returncode}"
    except subprocess.TimeoutExpired as error:
        reply, status = io.BytesIO(error.stdout or b""), f"it did not end within {READER_SECONDS:.0f} seconds"
    found: dict[str, pa.Table] = {}
    for name in FORMS:
        line = reply.readline()
        told = json.loads(line) if line.endswith(b"\n") else {"error": None}
        size = int(told.get("bytes") or 0)
        content = reply.read(size)
        if "error" in told or len(content) < size:
            why = f"the process that read it failed ({status}); create it again"
            lost = f"{path}, member '{name}' is not a table: {why}"
            raise DataError(told.get("error") or lost)
        with pa.ipc.open_stream(content) as stream:
            found[name] = stream.read_all()
    return found


def serve() -> None:
    """The other side of `read_tables`: the tables on standard input are read, checked and sent back."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (READER_MEMORY, READER_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    for asked in json.loads(source.readline()):
        bounds = Bounds(**{**asked["bounds"], "nulls": frozenset(asked["bounds"]["nulls"])})
        data = source.read(asked["bytes"])
        try:
            table = read_table(asked["where"], data, FORMS[asked["name"]].schema, bounds)
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
