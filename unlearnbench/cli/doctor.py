"""`unlearnbench doctor`: what this machine can run."""

from __future__ import annotations

import json

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(as_json: bool) -> None:
    """Say what runs here, and for each thing that is missing the one command that fixes it."""
    from unlearnbench.harness.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([finding.model_dump() for finding in findings], indent=2, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    from unlearnbench.cli.console import console

    table = Table("", "", "found", "needed for")
    for finding in findings:
        cells = (finding.name, finding.state, finding.found, finding.needed)
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    console().print(table)
    for finding in findings:
        if finding.remedy:  # on its own line, to be copied
            click.echo(f"{finding.name}: {finding.remedy}")
