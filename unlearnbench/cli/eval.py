"""`unlearnbench eval`: arguments in, a result out; `unlearnbench.diagnosis.evaluate` does the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from unlearnbench.cli.ray_option import ray_option

if TYPE_CHECKING:
    pass


class Multiple(click.ParamType[float]):
    """A budget such as 1x, 0.5x or 4."""

    name = "MULTIPLE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(str(value).removesuffix("x"))
        except ValueError:
            self.fail(f"{value!r} is not a budget; give a multiple such as 1x", param, ctx)
        if not 0 < number <= 1000:
            self.fail(f"{value!r} is not a budget; give a multiple above 0 and up to 1000x", param, ctx)
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
    raise click.BadParameter(f"{word} is not a number", param_hint="--set")


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
@click.option(
    "--diagnose/--no-diagnose",
    default=True,
    show_default=True,
    help="Compare items' gradients at start and end (about a minute on micro; not with --quick).",
)
@click.option(
    "--log-to",
    multiple=True,
    type=click.Choice(["tensorboard", "wandb", "trackio", "mlflow"]),
    help="Also log the training curves there; may be repeated.",
)
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
    diagnose: bool,
    log_to: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train a method on a split for every seed, evaluate what it left, and score it against the null control.

    Rerun the same command to resume an interrupted run.
    """
    _refuse_contradictions(method, checkpoint, seeds if quick else None)
    from unlearnbench.cli.ending import show
    from unlearnbench.cli.progress import run_progress
    from unlearnbench.diagnosis import evaluate as whole
    from unlearnbench.harness.trackers import Trackers
    from unlearnbench.policies.samplers.engine import Engine
    from unlearnbench.training.options import trainer_options
    from unlearnbench.workers.jobs import Compute

    options = trainer_options(parse_changes(trainer, "--trainer"))
    settings, draws = parse_changes(changes), Engine(sampler, parse_changes(engine, "--engine"))
    compute = Compute(workers=workers, processes=processes, engine=draws, trainer=options, patience=patience, ray=ray)
    trackers = Trackers(log_to)
    with run_progress() as shown:
        progress, placed = trackers.beside(shown.show, shown.place)
        together: dict[str, Any] = {"out": out, "compute": compute, "progress": progress, "placed": placed}
        together["diagnose"] = diagnose
        if checkpoint:
            from unlearnbench.harness.policy_ref import checkpoint_notes
            from unlearnbench.splits import load_split

            done = whole.evaluate_checkpoints(checkpoint, split, samples=samples, **together)
            for note in (note for one in checkpoint for note in checkpoint_notes(one, load_split(split))):
                click.echo(note, err=True)
        else:
            assert method is not None
            together |= {"samples": samples, "budget": budget, "settings": settings, "quick": quick}
            done = whole.evaluate(method, split, seeds, **together)
        trackers.finish(done.result)
    if as_json:
        click.echo(done.result.model_dump_json(indent=2))
    else:
        show(done.result, done.folder, method)


def _refuse_contradictions(method: str | None, checkpoint: Sequence[Path], quick_seeds: int | None) -> None:
    """Raises UsageError where options contradict one another; `quick_seeds` is None without --quick."""
    if (method is None) == (not checkpoint):
        raise click.UsageError("Give either --method or --checkpoint, once per seed.")
    given = click.get_current_context().get_parameter_source
    for name in ("seeds", "budget", "changes", "quick", "trainer", "log_to"):
        if checkpoint and given(name) != click.core.ParameterSource.DEFAULT:
            option = {"changes": "set", "log_to": "log-to"}.get(name, name)
            raise click.UsageError(f"--{option} says how to train; a --checkpoint is only evaluated.")
    if quick_seeds not in (None, 1) and given("seeds") != click.core.ParameterSource.DEFAULT:
        raise click.UsageError("--quick trains one seed: leave out --seeds, or --quick.")
