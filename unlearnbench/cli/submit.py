"""`unlearnbench submit`: a finished run as one file, verified, with the text of its pull request."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("submit")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The bundle to write (.zip).")
@click.option("--name", help="Name of the entry [default: the method's].")
@click.option("--author", "authors", multiple=True, help="An author; may be repeated.")
@click.option("--url", help="Address of a paper or repository.")
@click.option("--tried", type=click.IntRange(1), help="Configurations evaluated to choose this one, itself included.")
@click.option("--address", help="Where the bundle will be: https://... or hf://datasets/OWNER/NAME@REVISION/FILE.zip.")
@click.option("--no-weights", is_flag=True, help="Leave the weights out: the entry can only be self-reported.")
@click.option("--method", help="The method's file, if it is not found by its name in the run.")
@click.option("--split", help="The split that was run on, if it is not a shipped one: its folder.")
@click.option("--workers", type=click.IntRange(1), help="Processes at once [default: one per core].")
def submit(
    folder: Path,
    out: Path,
    name: str | None,
    authors: tuple[str, ...],
    url: str | None,
    tried: int | None,
    address: str | None,
    no_weights: bool,
    method: str | None,
    split: str | None,
    workers: int | None,
) -> int:
    """Bundle the run in DIR for the leaderboard, verify the bundle, and print the pull request's text.

    The bundle holds result, configuration, final weights of every seed, evaluation rollouts, counts, what training drew
    and spent, and the method's source. It is published at an address of yours; the pull request names it.
    """
    if out.suffix != ".zip":
        raise click.UsageError(f"--out must end in .zip, not {out.name!r}.")
    from unlearnbench.leaderboard.bundles.address import ref_of, require_address
    from unlearnbench.leaderboard.bundles.bundle import Statement
    from unlearnbench.leaderboard.bundles.writing import write_bundle
    from unlearnbench.leaderboard.editions import ENTRIES, editions
    from unlearnbench.leaderboard.entries import free_id
    from unlearnbench.leaderboard.pull_request import pull_request
    from unlearnbench.leaderboard.verification import verify_bundle
    from unlearnbench.scoring.comparisons.comparability import read_run

    if address is not None:
        require_address("--address", address)
    statement = Statement(name=name or read_run(folder).result.method.name, authors=authors, url=url, tried=tried)
    bundle = write_bundle(folder, out, statement, method, weights=not no_weights)
    found = verify_bundle(out, split, workers=workers, measure=not no_weights)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.2f} MB; {found.words}", err=not found.verified)
    if not found.verified:
        return 1
    if bundle.result.quick:
        click.echo("A quick run cannot be an entry of the board; run `eval` without --quick, then submit that run.")
        return 0
    known = [edition.name for edition in editions(ENTRIES) if edition.split_hash == bundle.result.split_hash]
    id_, edition = free_id(bundle.result, bundle.sha256), known[-1] if known else None
    click.echo("\n" + pull_request(bundle, ref_of(out, address), found, id_, edition))
    return 0
