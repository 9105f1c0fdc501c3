"""`unlearnbench eval`: arguments in, a table out; `unlearnbench.harness.evaluate` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from unlearnbench.cli.ray_option import ray_option

if TYPE_CHECKING:
    from unlearnbench.records import Result


class Multiple(click.ParamType[float]):
    """A budget such as 1x, 0.5x or 4."""

    name = "MULTIPLE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(str(value).removesuffix("x"))
        except ValueError:
            self.fail(f"{value!r} is no budget; give a multiple such as 1x", param, ctx)
        if not 0 < number <= 1000:
            self.fail(f"{value!r} is no budget; give a multiple above 0 and up to 1000x", param, ctx)
        return number


def parse_changes(pairs: tuple[str, ...], option: str = "--set") -> dict[str, Any]:
    """`--set key=value` pairs; a value is read as JSON where it is JSON, else as text. `a.b=1` sets b of a."""
    import json

    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{pair!r} is not key=value", param_hint=option)
        try:
            read = json.loads(value, parse_constant=_refuse_constant)
        except json.JSONDecodeError:
            read = value
        whole, _, part = key.partition(".")
        if not part:
            changes[key] = read
        elif isinstance(changes.setdefault(whole, {}), dict):
            changes[whole][part] = read
        else:
            raise click.BadParameter(f"{whole!r} is set as a whole, and then {key!r} of it", param_hint=option)
    return changes


def _refuse_constant(word: str) -> None:
    raise click.BadParameter(f"{word} is no number", param_hint="--set")


@click.command("eval")
@click.option(
    "--method", "-m", help="Built-in name, entry point, FILE.py[:Class], MODULE:Class, or my_algo for ./my_algo.py."
)
@click.option("--checkpoint", multiple=True, type=click.Path(path_type=Path), help="A finished policy; one per seed.")
@click.option("--split", default="micro", show_default=True, help="A shipped split, or a folder with split.yaml.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Number of seeds.")
@click.option("--samples", default=32, show_default=True, type=click.IntRange(1), help="Rollouts per item and seed.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder [default: runs/<split>/<method>-<hash>-<budget>]."
)
@click.option(
    "--budget", default="1x", show_default=True, type=Multiple(), help="Multiple of the reference runs' cost."
)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting of the method.")
@click.option("--quick", is_flag=True, help="One seed, few steps and samples: a smoke test, not comparable.")
@click.option("--sampler", default="transformers", show_default=True, type=click.Choice(["transformers", "vllm"]))
@click.option(
    "--engine",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the sampler: dtype=bfloat16, or for vLLM tensor_parallel_size=2.",
)
@click.option("--trainer", multiple=True, metavar="KEY=VALUE", help="How to compute, such as logprob_chunk=512.")
@click.option("--workers", type=click.IntRange(1), help="Seeds at once [default: one per core].")
@click.option(
    "--processes", default=1, show_default=True, type=click.IntRange(1), help="Processes that train each seed together."
)
@click.option(
    "--patience",
    default=1800.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds without a report after which a seed's process is ended.",
)
@ray_option
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of a table.")
def evaluate(
    method: str | None,
    checkpoint: tuple[Path, ...],
    split: str,
    seeds: int,
    samples: int,
    out: Path | None,
    budget: float,
    changes: tuple[str, ...],
    quick: bool,
    sampler: Literal["transformers", "vllm"],
    engine: tuple[str, ...],
    trainer: tuple[str, ...],
    workers: int | None,
    processes: int,
    patience: float,
    ray: str | None,
    as_json: bool,
) -> None:
    """Train a method on a split for every seed, evaluate what it left, and score it against the null control.

    Rerun the same command to resume an interrupted run.
    """
    if (method is None) == (not checkpoint):
        raise click.UsageError("Give either --method or --checkpoint, once per seed.")
    given = click.get_current_context().get_parameter_source
    for name in ("seeds", "budget", "changes", "quick", "trainer"):
        if checkpoint and given(name) != click.core.ParameterSource.DEFAULT:
            option = "set" if name == "changes" else name
            raise click.UsageError(f"--{option} says how to train; a --checkpoint is only evaluated.")
    from unlearnbench.cli.progress import Bars
    from unlearnbench.policies.samplers.engine import Engine
    from unlearnbench.training.options import trainer_options
    from unlearnbench.workers.jobs import Compute

    options = trainer_options(parse_changes(trainer, "--trainer"))
    settings, draws = parse_changes(changes), Engine(sampler, parse_changes(engine, "--engine"))
    compute = Compute(workers=workers, processes=processes, engine=draws, trainer=options, patience=patience, ray=ray)
    places: list[Path] = []
    with Bars() as bars:
        together: dict[str, Any] = {"out": out, "compute": compute, "progress": bars.show, "placed": places.append}
        if checkpoint:
            from unlearnbench.harness.evaluate import evaluate_checkpoints

            result = evaluate_checkpoints(checkpoint, split, samples=samples, **together)
        else:
            from unlearnbench.harness.evaluate import evaluate as run

            assert method is not None
            together |= {"samples": samples, "budget": budget, "settings": settings, "quick": quick}
            result = run(method, split, seeds, **together)
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    else:
        show(result)
        click.echo(f"report: {places[0] / 'report.html'}")


def show(result: Result) -> None:
    """The result as tables, on standard output."""
    from rich.table import Table

    from unlearnbench.cli.console import console
    from unlearnbench.records import FATES
    from unlearnbench.reports.formatting import plain, plural
    from unlearnbench.reports.headline import verdict

    # A method's name is foreign text: no markup, and its control characters are spelled out.
    shown = console()
    shown.print(f"\n{plain(verdict(result).sentence)}\n")
    size = f"{plural(len(result.seeds), 'seed')} x {result.samples} samples"
    table = Table(title=f"{plain(result.method.name)} on {result.split}, {size}")
    for name in ("group", "items", "rate before", "rate after", "95 % interval", "converted"):
        table.add_column(name, justify="left" if name == "group" else "right")
    for name, group in result.groups.items():
        table.add_row(
            name,
            str(group.items),
            _rate(group.rate_before),
            _rate(group.rate_after),
            _interval(group.rate_after_interval),
            "-" if group.converted is None else f"{group.converted} ({_rate(group.conversion)})",
        )
    shown.print(table)
    twins = Table(title="twins of converted items")
    for name in ("kind", "eligible", "rate", "null", "gain", "95 % interval", "verdict"):
        twins.add_column(name, justify="left" if name in ("kind", "verdict") else "right")
    for kind, twin in result.twins.items():
        cells = (_rate(twin.rate), _rate(twin.null_rate), _rate(twin.gain), _interval(twin.interval))
        twins.add_row(kind, str(twin.eligible), *cells, twin.verdict)
    shown.print(twins)
    if met := result.fates:
        counted = ", ".join(f"{name} {getattr(met, name)}" for name in FATES)
        shown.print(f"fates in training of the unlearnable items, once a seed: {counted}")
    lost, spent = result.retention, f"cost {result.cost.flops:.3g} FLOPs in {result.cost.seconds:.0f} s of training"
    shown.print(
        f"easy items lost: {'-' if lost.easy_lost is None else lost.easy_lost} of {lost.easy_items}; canaries "
        f"converted: {result.canaries.converted if result.canaries.converted is not None else '-'} of "
        f"{result.canaries.items}; {spent if result.budget.used else 'cost unknown'}"
    )


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
