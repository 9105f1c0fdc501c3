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
    from unlearnbench.cli.console import warn_of_golds
    from unlearnbench.cli.eval import parse_changes
    from unlearnbench.curation.validate import ungradable_items
    from unlearnbench.methods import locate
    from unlearnbench.splits import load_split, seal
    from unlearnbench.workers.jobs import run_job, train_job
    from unlearnbench.workers.privileged_data import Privileges

    source, chosen = locate(method), load_split(split)
    with tempfile.TemporaryDirectory() as folder:
        sealed = seal(chosen, Path(folder) / "sealed")
        job = train_job(
            chosen,
            sealed,
            source,
            1,
            "check",
            Path(folder) / "run",
            fingerprint="check",
            flops=None,
            steps=2,
            changes=parse_changes(changes),
            kind="check",
            recipe=TINY,
            answer=Privileges(chosen, Path(folder) / "run").answer,
            patience=600,
        )
        found: dict[str, Any] = dict(run_job(job)["checked"])
    found["ungradable"] = ungradable_items(chosen.items, chosen.path)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    warn_of_golds(found["ungradable"])
    click.echo(f"{found['class']} ({source.file}): {found['steps']} steps, shapes and numbers are fine")
    click.echo(f"overrides: {', '.join(found['hooks']) or 'nothing: it is the reference GRPO'}")
    for name, near in found["not_hooks"].items():
        click.echo(f"warning: {name} is no hook and is never called" + (f"; did you mean {near}?" if near else ""))
    read = ", ".join(found["reads"]) or "nothing privileged"
    click.echo(f"track: {found['track']} (declared {found['declared_track']}; read {read})")
    cost = found["cost"]
    click.echo(f"cost: {cost['generated']} tokens generated, {cost['trained']} trained, {cost['flops']:.3g} FLOPs")
