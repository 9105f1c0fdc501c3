"""`unlearnbench verify`: one verdict, or a file of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unlearnbench.records import Rule, Verdict

_COLUMNS = ("correct", "answer", "reason", "rule", "seconds")
_FORMATS = (".jsonl", ".parquet")
_SHOWN = 20
"""Rows that are named on the terminal; JSON has them all."""


# -3 and -h are answers, not options; -h alone asks for help.
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
    help="Where to write all columns of FILE and correct, answer, reason, rule, seconds (replaced if it exists).",
)
@click.option(
    "--rule",
    type=click.Choice(["strict", "lenient", "paper"]),
    default="strict",
    show_default=True,
    help="What counts as stating an answer: a box; also 'the answer is'; or, without a box, the whole text.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes for algebra.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="A file that keeps verdicts for later commands (created if missing).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    gold: str | None,
    completion: str | None,
    source: Path | None,
    out: Path | None,
    rule: Rule,
    workers: int,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Say whether COMPLETION states the answer GOLD, or judge every row of a file.

    Rerun the same command to resume an interrupted file.
    """
    if gold == "-h" and completion is None and source is None:
        context = click.get_current_context()
        click.echo(context.get_help())
        context.exit()
    for text in (gold, completion):
        if text is not None and re.fullmatch(r"--[a-z][a-z-]*(=.*)?", text):
            raise click.NoSuchOption(text)
    if source is None and out is None and gold is not None and completion is not None:
        _one(gold, completion, rule, cache, as_json)
    elif source is not None and out is not None and gold is None:
        for path, option in ((source, "--file"), (out, "--out")):
            if path.suffix not in _FORMATS:
                raise click.UsageError(f"{option} must end in .jsonl or .parquet, not {path.name!r}.")
        if out.exists() and source.exists() and out.samefile(source):
            raise click.UsageError(f"--out {out} is the file that is read; name another one.")
        _file(source, out, rule, workers, cache, as_json)
    else:
        raise click.UsageError("Give either GOLD and COMPLETION, or --file and --out.")


def _one(gold: str, completion: str, rule: Rule, cache: Path | None, as_json: bool) -> None:
    from unlearnbench.verifier import Verifier

    with Verifier(rule, cache=cache) as verifier:
        verdict = _fields(verifier.verify(gold, completion))
    if as_json:
        _print_json(verdict)
        return
    word = {True: "right", False: "wrong", None: "not judged"}[verdict["correct"]]
    stated = "" if verdict["answer"] is None else f", answer {verdict['answer']}"
    if verdict["reason"] == "no_answer" and rule == "strict":
        stated = "; state it as \\boxed{...}, or see --rule"
    click.echo(f"{word} ({verdict['reason']}{stated})")


def _file(source: Path, out: Path, rule: Rule, workers: int, cache: Path | None, as_json: bool) -> None:
    from contextlib import ExitStack

    from unlearnbench.verifier.verify_file import judge_file

    with ExitStack() as shown:
        show = None
        if sys.stderr.isatty():
            from unlearnbench.cli.progress import Rows

            show = shown.enter_context(Rows()).show
        told = judge_file(source, out, rule=rule, workers=workers, cache=cache, progress=show)
    if as_json:
        reasons = dict(sorted(told.reasons.items()))
        _print_json({"rows": told.rows, "reasons": reasons, "resumed": told.resumed, "symbolic": list(told.symbolic)})
        return
    counts = ", ".join(f"{n} {reason}" for reason, n in sorted(told.reasons.items(), key=lambda entry: -entry[1]))
    kept = f", {told.resumed} of them judged before" if told.resumed else ""
    click.echo(f"{out}: {told.rows} rows{kept}{': ' if counts else ''}{counts}")
    if told.symbolic:
        named = ", ".join(map(str, told.symbolic[:_SHOWN])) + (", ..." if len(told.symbolic) > _SHOWN else "")
        click.echo(f"sympy judged {len(told.symbolic):,} of them, which is slow: row {named}")


def _fields(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in _COLUMNS}


def _print_json(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value))
