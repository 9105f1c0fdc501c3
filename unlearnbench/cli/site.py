"""`unlearnbench leaderboard build`: the entries as a static site."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("build")
@click.option(
    "--entries",
    type=click.Path(path_type=Path),
    default=Path("leaderboard/entries"),
    show_default=True,
    help="Folder of the entries.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/site"),
    show_default=True,
    help="Folder to write the site to.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="FOLDER",
    help="A split that is not a shipped one, such as an edition's sealed variant; once a split.",
)
def build(entries: Path, out: Path, splits: tuple[str, ...]) -> None:
    """Write the board, a page an entry, a page a split and an introduction as static pages, and print the first.

    They need no server and load nothing from elsewhere.
    """
    from unlearnbench.site import build as run

    click.echo(run(entries, out, splits))
