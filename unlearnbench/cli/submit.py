"""`unlearnbench submit`: a finished run as one file, verified, with the words of its pull request."""

from __future__ import annotations

from pathlib import Path

import click

LARGEST_IN_A_REPOSITORY = 95_000_000


@click.command("submit")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The bundle to write (.zip).")
@click.option("--name", help="Name of the entry [default: the method's].")
@click.option("--author", "authors", multiple=True, help="Who made it; once for each.")
@click.option("--url", help="Address of a paper or repository.")
@click.option("--tried", type=click.IntRange(1), help="Configurations evaluated before this was chosen, it included.")
@click.option("--method", help="The method's file, where it is not found by the run's name for it.")
@click.option("--split", help="The split that was run on, if it is not a shipped one: its folder.")
@click.option("--workers", type=click.IntRange(1), help="Processes for algebra [default: one a core].")
def submit(
    folder: Path,
    out: Path,
    name: str | None,
    authors: tuple[str, ...],
    url: str | None,
    tried: int | None,
    method: str | None,
    split: str | None,
    workers: int | None,
) -> int:
    """Bundle the run in DIR for the leaderboard, verify the bundle, and print the pull request's text.

    The bundle holds result, configuration, environment, raw evaluation rollouts, counts, fates, a summary of the
    budget's ledger and the method's source; docs/guide/leaderboard.md says what is done with it.
    """
    if out.suffix != ".zip":
        raise click.UsageError(f"--out must end in .zip, not {out.name!r}.")
    from unlearnbench.leaderboard.bundle import Statement, write_bundle
    from unlearnbench.leaderboard.pull_request import pull_request
    from unlearnbench.leaderboard.verification import verify_bundle
    from unlearnbench.scoring.comparability import read_run

    statement = Statement(name=name or read_run(folder).result.method.name, authors=authors, url=url, tried=tried)
    bundle = write_bundle(folder, out, statement, method)
    found = verify_bundle(out, split, workers=workers)
    size = out.stat().st_size
    click.echo(f"{out}: {size / 1e6:.2f} MB; {found.words}", err=not found.verified)
    if not found.verified:
        return 1
    if size > LARGEST_IN_A_REPOSITORY:
        click.echo(
            f"{out} is larger than a repository takes ({LARGEST_IN_A_REPOSITORY / 1e6:.0f} MB): publish it elsewhere "
            "and name its address in the pull request",
            err=True,
        )
    click.echo("\n" + pull_request(bundle, found))
    return 0
