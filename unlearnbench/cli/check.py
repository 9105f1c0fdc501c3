"""`unlearnbench check M`: a method for two tiny steps, in seconds."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

TINY = {"prompts_per_step": 16, "group_size": 4, "checkpoint_every": 1}


@click.command("check")
@click.argument("method")
@click.option("--split", default="micro", show_default=True, help="A shipped split, or a folder with split.yaml.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting of the method.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(method: str, split: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Run METHOD for two tiny steps: hooks it overrides, what it reads (so its track), shapes, finiteness, cost."""
    from unlearnbench.cli.eval import parse_changes
    from unlearnbench.harness.trial_run import trial
    from unlearnbench.methods import locate
    from unlearnbench.splits import load_split

    source = locate(method)
    with tempfile.TemporaryDirectory() as folder:
        done = trial(load_split(split), source, "check", Path(folder), 2, parse_changes(changes), TINY)
    found: dict[str, Any] = done.summary()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{found['class']} ({source.file}): {found['steps']} steps, shapes and numbers are fine")
    click.echo(f"overrides: {', '.join(found['hooks']) or 'nothing: it is the reference GRPO'}")
    for name, near in found["not_hooks"].items():
        click.echo(f"warning: {name} is no hook and is never called" + (f"; did you mean {near}?" if near else ""))
    read = ", ".join(found["reads"]) or "nothing privileged"
    click.echo(f"track: {found['track']} (declared {found['declared_track']}; read {read})")
    cost = found["cost"]
    click.echo(f"cost: {cost['generated']} tokens generated, {cost['trained']} trained, {cost['flops']:.3g} FLOPs")
