"""`unlearnbench verify`: one verdict, or a file of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

if TYPE_CHECKING:
    import pyarrow as pa

    from unlearnbench.records import Rule, Verdict
    from unlearnbench.verifier import Verifier

_BATCH = 8192
_COLUMNS = ("correct", "answer", "reason", "rule", "seconds")
_FORMATS = (".jsonl", ".parquet")


# -3 and -h are answers, not options.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("gold", required=False)
@click.argument("completion", required=False)
@click.option(
    "--file",
    "source",
    type=click.Path(path_type=Path),
    help="Rows with gold and completion (.jsonl or .parquet).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write all columns of FILE and correct, answer, reason, rule, seconds (replaced if there).",
)
@click.option(
    "--rule",
    type=click.Choice(["strict", "lenient", "paper"]),
    default="strict",
    show_default=True,
    help="What counts as stating an answer: a box; also 'the answer is'; or, without a box, the whole text.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes for algebra.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    gold: str | None,
    completion: str | None,
    source: Path | None,
    out: Path | None,
    rule: Rule,
    workers: int,
    as_json: bool,
) -> None:
    """Say whether COMPLETION states the answer GOLD, or judge every row of a file."""
    for text in (gold, completion):
        if text is not None and re.fullmatch(r"--[a-z][a-z-]*(=.*)?", text):
            raise click.NoSuchOption(text)
    if source is None and out is None and gold is not None and completion is not None:
        _one(gold, completion, rule, as_json)
    elif source is not None and out is not None and gold is None:
        for path, option in ((source, "--file"), (out, "--out")):
            if path.suffix not in _FORMATS:
                raise click.UsageError(f"{option} must end in .jsonl or .parquet, not {path.name!r}.")
        _file(source, out, rule, workers, as_json)
    else:
        raise click.UsageError("Give either GOLD and COMPLETION, or --file and --out.")


def _one(gold: str, completion: str, rule: Rule, as_json: bool) -> None:
    from unlearnbench.verifier import Verifier

    with Verifier(rule) as verifier:
        verdict = _fields(verifier.verify(gold, completion))
    if as_json:
        _print_json(verdict)
        return
    word = {True: "right", False: "wrong", None: "not judged"}[verdict["correct"]]
    stated = "" if verdict["answer"] is None else f", answer {verdict['answer']}"
    click.echo(f"{word} ({verdict['reason']}{stated})")


def _file(source: Path, out: Path, rule: Rule, workers: int, as_json: bool) -> None:
    from collections import Counter

    from unlearnbench.tables import atomic
    from unlearnbench.verifier import Verifier

    reasons: Counter[str] = Counter()
    with Verifier(rule, workers=workers) as verifier, atomic(out) as file:
        judge = _Judge(source, verifier, reasons)
        if source.suffix == ".jsonl" and out.suffix == ".jsonl":
            _jsonl_to_jsonl(judge, file)
        elif out.suffix == ".jsonl":
            for table in _tables(source):
                _write_lines(judge.table(table).to_pylist(), file)
        else:
            _to_parquet(judge, file)
    if as_json:
        _print_json({"rows": reasons.total(), "reasons": dict(sorted(reasons.items()))})
    else:
        counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
        click.echo(f"{out}: {reasons.total()} rows{': ' if counts else ''}{counts}")


class _Judge:
    """Adds the verdict's columns to batches of rows and counts reasons. Raises DataError on a bad row."""

    def __init__(self, source: Path, verifier: Verifier, reasons: dict[str, int]) -> None:
        self.source = source
        self._verifier = verifier
        self._reasons = reasons
        self._rows = 0

    def verdicts(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        from unlearnbench.errors import DataError

        pairs = []
        for row in rows:
            self._rows += 1
            for field in ("gold", "completion"):
                value = row.get(field)
                if not isinstance(value, str) or (field == "gold" and not value.strip()):
                    found = "missing" if field not in row else "empty" if value == "" else f"{value!r:.60}"
                    raise DataError(
                        f"{self.source}, row {self._rows}, field {field!r}: text was expected, but it is {found}"
                    )
            pairs.append((row["gold"], row["completion"]))
        verdicts = [_fields(verdict) for verdict in self._verifier.verify_many(pairs)]
        for verdict in verdicts:
            self._reasons[verdict["reason"]] += 1
        return verdicts

    def table(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        wanted = [name for name in ("gold", "completion") if name in table.column_names]
        verdicts = self.verdicts(table.select(wanted).to_pylist())
        types = dict(zip(_COLUMNS, (pa.bool_(), pa.string(), pa.string(), pa.string(), pa.float64()), strict=True))
        for name, type_ in types.items():
            column = pa.array([verdict[name] for verdict in verdicts], type_)
            if name in table.column_names:
                table = table.set_column(table.column_names.index(name), name, column)
            else:
                table = table.append_column(name, column)
        return table


def _jsonl_to_jsonl(judge: _Judge, file: BinaryIO) -> None:
    from itertools import islice

    from unlearnbench.tables import read_jsonl

    rows = read_jsonl(judge.source)
    while batch := list(islice(rows, _BATCH)):
        verdicts = judge.verdicts(batch)
        _write_lines([row | verdict for row, verdict in zip(batch, verdicts, strict=True)], file)


def _to_parquet(judge: _Judge, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    try:
        for table in _tables(judge.source):
            judged = judge.table(table)
            writer = writer or pq.ParquetWriter(file, judged.schema, compression="zstd")
            writer.write_table(judged)
    finally:
        if writer is not None:
            writer.close()


def _tables(source: Path) -> Iterator[pa.Table]:
    """The rows of a file in batches; of a jsonl file at once, as only all rows show a column's type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from unlearnbench.errors import DataError
    from unlearnbench.tables import read_jsonl

    try:
        if source.suffix == ".jsonl":
            yield pa.Table.from_pylist(list(read_jsonl(source)))
            return
        with pq.ParquetFile(source) as file:
            if file.metadata.num_rows == 0:
                yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(_BATCH):
                yield pa.Table.from_batches([batch])
    except pa.ArrowException as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(f"{source} cannot be read as a table: {first_line}") from error
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from error


def _write_lines(rows: list[dict[str, Any]], file: BinaryIO) -> None:
    import json

    for row in rows:
        file.write(json.dumps(row, default=str).encode() + b"\n")


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in _COLUMNS}


def _print_json(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value))
