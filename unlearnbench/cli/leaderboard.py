"""`unlearnbench leaderboard`: bundles verified, the board scored again, its rules and pages written."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("leaderboard")
def leaderboard() -> None:
    """Verify bundles, and score, rank and show the leaderboard's entries."""


@leaderboard.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--split", help="The split that was run on, if it is not a shipped one: its folder.")
@click.option("--workers", type=click.IntRange(1), help="Processes for algebra [default: one a core].")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(bundle: Path, split: str | None, workers: int | None, as_json: bool) -> int:
    """Check a bundle: every verdict and every number made anew from its rollouts. Its code is not run.

    Prints `verified`, or the reasons why not (exit status 1).
    """
    from unlearnbench.verification import verify_bundle

    found = verify_bundle(bundle, split, workers=workers)
    click.echo(found.model_dump_json(indent=2) if as_json else found.words)
    return 0 if found.verified else 1
