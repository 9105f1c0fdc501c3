"""`unlearnbench report`: rebuild a run's page from its files."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--split", help="The split that DIR was scored on, if it is not a shipped one: its folder.")
def report(directory: Path, split: str | None) -> None:
    """Rebuild report.html of the run in DIR from its files, and print its path."""
    from unlearnbench.reports.run_report import rebuild

    click.echo(rebuild(directory, split))
