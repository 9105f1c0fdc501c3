"""`unlearnbench check M`: a method for two tiny steps, in seconds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

TINY = {"prompts_per_step": 16, "group_size": 4, "checkpoint_every": 1}


@click.command("check")
@click.argument("method")
@click.option("--split", default="micro", show_default=True, help="A shipped split, or a folder with split.yaml.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting of the method.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(method: str, split: str, changes: tuple[str, ...], as_json: bool) -> int:
    """Run METHOD for two tiny steps: hooks it overrides, what it reads (so its track), shapes, finiteness, cost.

    Warns of functions that are not hooks and settings that no code reads. Exits 1 if nothing would be trained.
    """
    from unlearnbench.cli.console import warn_of_golds
    from unlearnbench.cli.eval import parse_changes
    from unlearnbench.curation.ungradable import ungradable_items
    from unlearnbench.harness.trial_run import trial
    from unlearnbench.methods import locate
    from unlearnbench.splits import load_split

    source, chosen = locate(method), load_split(split)
    with tempfile.TemporaryDirectory() as folder:
        done = trial(chosen, source, "check", Path(folder), 2, parse_changes(changes), TINY)
    found = done.summary() | {"ungradable": ungradable_items(chosen.items, chosen.path / "items.parquet")}
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        warn_of_golds(found["ungradable"])
        _show(found, source.file)
    if found["untrained"]:
        click.echo(f"unlearnbench: {found['name']} trains on nothing: {found['untrained']}", err=True)
        return 1
    return 0


def _show(found: Mapping[str, Any], file: str) -> None:
    trained = found["cost"]["trained"]
    state = "shapes and numbers are fine" if not found["untrained"] else "and nothing was trained"
    click.echo(f"{found['class']} ({file}): {found['steps']} steps, {state}")
    click.echo(f"overrides: {', '.join(found['hooks']) or 'nothing: it is the reference GRPO'}")
    for name, near in found["not_hooks"].items():
        click.echo(f"warning: {name} is not a hook and is never called" + (f"; did you mean {near}?" if near else ""))
    for name, meant in found["unread_settings"].items():
        click.echo(f"warning: the setting {name} is never read" + (f"; the recipe has {meant}" if meant else ""))
    read = ", ".join(found["reads"]) or "nothing privileged"
    click.echo(f"track: {found['track']} (declared {found['declared_track']}; read {read})")
    if not trained and not found["untrained"]:
        click.echo("note: no token was trained on in these steps")
    cost = found["cost"]
    click.echo(f"cost: {cost['generated']} tokens generated, {trained} trained, {cost['flops']:.3g} FLOPs")
