"""`unlearnbench plan`: what a run will cost and what it can show, before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from unlearnbench.cli.eval import Multiple, parse_changes

if TYPE_CHECKING:
    from unlearnbench.harness.plan import Planned
    from unlearnbench.harness.trial_run import Tokens

_EFFECTS = {"spread": "spread over all items alike", "families": "some families learned whole"}
_BOUNDS = {"interval": "these families", "interval_families": "beyond these families (the headline)"}


@click.command("plan")
@click.option("--split", default="micro", show_default=True, help="A shipped split, or a folder with split.yaml.")
@click.option("--method", "-m", default="grpo", show_default=True, help="As `eval` takes it.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Number of seeds.")
@click.option("--samples", default=32, show_default=True, type=click.IntRange(1), help="Rollouts per item and seed.")
@click.option(
    "--budget", default="1x", show_default=True, type=Multiple(), help="Multiple of the reference runs' cost."
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting of the method.")
@click.option("--device", help="Time by the published peak of a device, such as H100 [default: tried on this machine].")
@click.option(
    "--utilisation", type=click.FloatRange(0, 1, min_open=True), help="--device: share of the peak [default: 0.1]."
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["float32", "bf16"]),
    help="--device: precision of its peak; bf16 for --trainer precision=bf16.",
)
@click.option(
    "--length", type=click.FloatRange(0, min_open=True), help="Mean tokens per rollout, where nothing was measured."
)
@click.option("--workers", type=click.IntRange(1), help="Seeds at once [default: one per core].")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def plan(
    split: str,
    method: str,
    seeds: int,
    samples: int,
    budget: float,
    changes: tuple[str, ...],
    device: str | None,
    utilisation: float | None,
    precision: Literal["float32", "bf16"],
    length: float | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Say what `eval` with the same options will cost, and the smallest conversion gain that it can detect."""
    if utilisation is not None and device is None:
        raise click.UsageError("--utilisation is a share of a --device's published peak; name the device.")
    if precision != "float32" and device is None:
        raise click.UsageError("--precision chooses among a --device's published peaks; name the device.")
    settings = parse_changes(changes)
    from unlearnbench.cli.progress import Bar
    from unlearnbench.harness import plan
    from unlearnbench.harness.cost import UTILISATION
    from unlearnbench.splits import load_split

    with Bar("trying and simulating") as bar:
        told = plan.plan(
            load_split(split),
            method,
            seeds=seeds,
            samples=samples,
            multiple=budget,
            settings=settings,
            device=device,
            precision=precision,
            length=length,
            utilisation=UTILISATION if utilisation is None else utilisation,
            workers=workers,
            progress=bar.show,
        )
    if as_json:
        click.echo(told.model_dump_json(indent=2))
    else:
        _show(told)


def _show(told: Planned) -> None:
    from rich.table import Table

    from unlearnbench.cli.console import console
    from unlearnbench.reports.formatting import count, duration, pct, plain, plural, power

    shown = console()
    shown.print(
        f"\n{plain(told.method)} on {told.split}: {plural(told.seeds, 'seed')} x {told.samples} samples at "
        f"{told.multiple:g}x ({count(told.parameters)} parameters)\n"
    )
    table = Table(show_edge=False)
    for name in ("tokens", "generated", "prefilled", "forward", "trained", "FLOPs"):
        table.add_column(name, justify="left" if name == "tokens" else "right")

    def row(name: str, tokens: Tokens, flops: int) -> None:
        parts = (tokens.generated, tokens.prefilled, tokens.forward, tokens.trained)
        table.add_row(name, *(power(part) for part in parts), power(flops))

    row("training, per seed", told.training.tokens, told.training.flops)
    row("evaluation, per seed", told.evaluation.tokens, told.evaluation.flops)
    row("all seeds" if told.seeds > 1 else "the seed", told.total_tokens, told.total_flops)
    shown.print(table)
    shown.print(f"Training: {told.training.source}.\nEvaluation: {told.evaluation.source}.\n")

    timing, space, chance = told.timing, told.space, told.power
    least = "at least " if timing.source == "published" else ""
    if timing.training_seconds is None or timing.evaluation_seconds is None or timing.hours is None:
        shown.print(f"Time: unknown; {timing.how}.")
    else:
        seed = f"{duration(timing.training_seconds)} of training, {duration(timing.evaluation_seconds)} of evaluation"
        shown.print(
            f"Time on {timing.device}: {least}{duration(3600 * timing.hours)} in all, {timing.at_once} at once (per "
            f"seed: {seed}).\n  By {timing.how}."
        )
    if timing.reference_seconds is not None:
        at = "" if timing.reference_multiple is None else f" at {timing.reference_multiple:g}x"
        shown.print(
            f"  The null control{at} took {duration(timing.reference_seconds)} of training per seed on "
            f"{timing.reference_device}."
        )
    fits = {True: "", False: ": too little", None: ""}[space.fits]
    there = "" if space.available is None else f" of {_bytes(space.available)}{fits}"
    shown.print(
        f"Memory: {_bytes(space.memory)} per process x {timing.at_once}{there} ({space.memory_source}).\n"
        f"Disk: {_bytes(space.disk)} ({space.disk_source}).\n"
    )

    null = f"{chance.null_seeds} null seeds" if chance.null_shipped else f"{chance.null_seeds} assumed null seeds"
    where = f"{chance.items} unlearnable items in {chance.families} families against {null}"
    if chance.why_not is not None:
        shown.print(f"Power: none that counts, on {where}: {chance.why_not}.")
        return
    shown.print(f"Smallest conversion gain found with 80 % power (95 % interval above 0), on {where}:")
    table = Table(show_edge=False)
    for name in ("effect", "beyond 0 for", "gain, points", "items", "by simulation, 95 %"):
        table.add_column(name, justify="left" if name in ("effect", "beyond 0 for") else "right")
    for part in chance.detectable:
        table.add_row(
            _EFFECTS[part.effect],
            _BOUNDS[part.bound],
            "none" if part.gain is None else f"{100 * part.gain:.1f}",
            "-" if part.items is None else f"{part.items:.0f}",
            "-" if part.likely is None else " to ".join(f"{100 * end:.1f}" for end in part.likely),
        )
    shown.print(table)
    rate = "" if chance.null_conversion is None else f"; the null converts {pct(chance.null_conversion)}"
    simulated = "" if chance.world_conversion is None else f", the simulated one {pct(chance.world_conversion)}"
    shipped = "" if chance.null_shipped else f" There is no null control at {told.multiple:g}x yet: no gain without it."
    shown.print(f"Chance: {chance.world_source}{rate}{simulated if rate else ''}.{shipped}")


def _bytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
