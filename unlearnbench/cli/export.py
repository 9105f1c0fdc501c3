"""`unlearnbench export`: a split as files for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unlearnbench.adapters.export import Format


@click.command("export")
@click.option("--split", default="micro", show_default=True, help="A shipped split, or the folder of one.")
@click.option(
    "--format", "format", required=True, type=click.Choice(["trl", "verl", "jsonl"]), help="Program that reads it."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--part", default="train", show_default=True, help="All items (train), those of one group, or the twins.")
@click.option("--canaries", is_flag=True, help="Mix in the problems whose gold is wrong on purpose.")
def export(split: str, format: Format, out: Path, part: str, canaries: bool) -> None:
    """Write a split as files that TRL's GRPOTrainer (trl), verl, or anything else (jsonl) reads unchanged.

    Rewards for them: unlearnbench.adapters.trl.reward, unlearnbench.adapters.verl.compute_score.
    """
    from unlearnbench.adapters.export import export as run
    from unlearnbench.splits import load_split

    path = run(load_split(split), format, out, part=part, canaries=canaries)
    click.echo(path)
    if part == "twins":
        click.echo("twins are for evaluation: a score needs their rollouts, and no training may touch them", err=True)
    elif part != "train":
        click.echo("a run that trains on one group alone knows labels: track `labels`", err=True)
