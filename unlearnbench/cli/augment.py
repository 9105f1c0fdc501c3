"""`unlearnbench augment`: generated problems for a split's items, by any OpenAI-compatible endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from unlearnbench.curation.augment.augment import Bound


@click.command("augment")
@click.option("--kind", required=True, type=click.Choice(["similar", "sub_problems"]), help="What is generated.")
@click.option("--split", default="micro", show_default=True, help="A shipped split, or a folder with split.yaml.")
@click.option("--endpoint", required=True, metavar="URL", help="Base URL, such as http://localhost:8000/v1.")
@click.option("--model", required=True, help="The model that writes the problems.")
@click.option(
    "--second-model", required=True, help="The model that solves them: problems on which both agree are kept."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of <kind>.parquet.")
@click.option(
    "--group", "groups", multiple=True, default=("unlearnable",), show_default=True, help="Group of the items."
)
@click.option("--count", default=5, show_default=True, type=click.IntRange(1, 100), help="Problems per item.")
@click.option("--limit", type=click.IntRange(1), help="Process at most this many items.")
@click.option("--temperature", default=0.7, show_default=True, type=click.FloatRange(0))
@click.option(
    "--max-tokens", default=4096, show_default=True, type=click.IntRange(1), help="Tokens of one answer, at most."
)
@click.option("--workers", default=8, show_default=True, type=click.IntRange(1, 256), help="Requests at once.")
@click.option("--json", "as_json", is_flag=True, help="Print augment.json instead of a table.")
def augment(
    kind: Literal["similar", "sub_problems"],
    split: str,
    endpoint: str,
    model: str,
    second_model: str,
    out: Path,
    groups: tuple[str, ...],
    count: int,
    limit: int | None,
    temperature: float,
    max_tokens: int,
    workers: int,
    as_json: bool,
) -> None:
    """Ask an endpoint for problems like a split's items, or for the steps towards them; keep what two models agree on.

    A key is read from OPENAI_API_KEY. Rerun the same command to resume an interrupted one.
    """
    from unlearnbench.cli.progress import Bar
    from unlearnbench.curation.augment.augment import augment as run
    from unlearnbench.curation.augment.openai_client import Endpoint
    from unlearnbench.splits import load_split

    chosen, server = load_split(split), Endpoint(endpoint)
    with Bar("items") as bar:
        summary = run(
            chosen,
            kind,
            server,
            model,
            second_model,
            out,
            groups=groups,
            count=count,
            temperature=temperature,
            max_tokens=max_tokens,
            limit=limit,
            workers=workers,
            announce=_announce,
            progress=bar.show,
        )
    if summary.items_unread:
        told = f"{model} wrote nothing of its own in the form that was asked for to {summary.items_unread:,} of"
        click.echo(f"{told} {summary.items:,} items; what it wrote stands in {out / 'items'}", err=True)
    if unanswered := summary.generated - summary.compared:
        told = f"{second_model} boxed no answer to {unanswered:,} of {summary.generated:,} problems"
        click.echo(f"{told}; what it wrote stands in {out / 'items'}", err=True)
    if as_json:
        click.echo(summary.model_dump_json(indent=2))
        return
    click.echo(
        f"{summary.agreed:,} of {summary.generated:,} problems kept for {summary.items_with_problems:,} of "
        f"{summary.items:,} items, {summary.leaked:,} of them leaked: {out / f'{kind}.parquet'}\n"
        f"{summary.requests:,} requests, {summary.prompt_tokens:,} tokens of prompts, {summary.completion_tokens:,} "
        "of answers, as the endpoint counts them"
    )


def _announce(bound: Bound) -> None:
    """The cost, before the first request."""
    click.echo(
        f"{bound.items:,} items to do: at most {bound.requests:,} requests, {bound.prompt_tokens:,} tokens of prompts "
        f"and {bound.completion_tokens:,} of answers",
        err=True,
    )
