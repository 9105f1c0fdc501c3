"""`unlearnbench score`: rollouts made anywhere, graded again and scored, or drawn as curves over training steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearnbench.cli.ending import show

if TYPE_CHECKING:
    from unlearnbench.harness.rollouts.curves import StepCurves

_ROWS = 12
"""Most steps of a table of curves; the files have all of them."""


class ColumnName(click.ParamType[tuple[str, str]]):
    """NAME=COLUMN: which column of a file one of ours is."""

    name = "NAME=COLUMN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        from unlearnbench.io.rollout_reader import NAMES

        if isinstance(value, tuple):
            return value
        name, _, column = str(value).partition("=")
        if name not in NAMES or not column:
            self.fail(f"{value!r} is not NAME=COLUMN with a NAME of {', '.join(NAMES)}", param, ctx)
        return name, column


columns_option = click.option(
    "--column",
    "columns",
    multiple=True,
    type=ColumnName(),
    help="A file's own column for one that is read, such as completion=output or item_id=extra_info.id.",
)


@click.command("score")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", default="micro", show_default=True, help="A shipped split, or a folder with split.yaml.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=click.IntRange(0),
    help="Seed of a FILE without seeds; given once for each FILE, in the same order [default: 0].",
)
@columns_option
@click.option("--step", type=click.IntRange(0), help="Score the rollouts of this training step alone.")
@click.option(
    "--skip-failed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Leave out up to this many samples of logs that failed in the evaluation, and name them.",
)
@click.option("--partial", is_flag=True, help="Score what is there, though items are missing: not comparable.")
@click.option("--workers", type=click.IntRange(1), help="Processes for algebra [default: one per core].")
@click.option("--json", "as_json", is_flag=True, help="Print result.json (or curves.json) instead of a table.")
def score(
    files: tuple[Path, ...],
    split: str,
    out: Path,
    seeds: tuple[int, ...],
    columns: tuple[tuple[str, str], ...],
    step: int | None,
    skip_failed: int,
    partial: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Score rollouts made anywhere: FILEs with item_id (or a prompt), completion and, if wanted, seed and step.

    FILEs are jsonl, json, csv, tsv (also .gz, .zst) or parquet, with rows of your own or as TRL, verl, OpenRLHF,
    prime-rl and verifiers log them, or per-sample logs of lm-eval-harness, lighteval and inspect_ai. Several files are
    one set. Every verdict is recomputed; every item of the split must be there, with the same number of rollouts in
    every seed.

    Of rollouts from several steps of a training, each group's mean rate is drawn over the steps; --step scores one.
    """
    from unlearnbench.adapters.eval_logs import SUFFIX
    from unlearnbench.io.streams import ENDINGS, is_tabular

    for path in files:
        if path.suffix != SUFFIX and not is_tabular(path):
            raise click.UsageError(f"FILE must end in {SUFFIX}, {ENDINGS}, not {path.name!r}.")
    if seeds and len(seeds) != len(files):
        raise click.UsageError(
            f"--seed is wanted once for each of the {len(files)} FILEs, and was given {len(seeds)} times."
        )
    from unlearnbench.adapters.log_samples import Failures
    from unlearnbench.cli.progress import Bar
    from unlearnbench.harness.rollouts.files import Reading, SeveralSteps
    from unlearnbench.harness.rollouts.score import score_rollouts

    failures = Failures(skip_failed)
    reading = Reading(columns=dict(columns), step=step, failures=failures)
    told: dict[str, Any] = {"seeds": seeds or None, "reading": reading, "workers": workers}
    with Bar("judging") as bar:
        try:
            result = score_rollouts(files, split, out, partial=partial, progress=bar.show, **told)
        except SeveralSteps:
            result = None
    if result is None:
        from unlearnbench.harness.rollouts.curves import step_curves  # it loads matplotlib

        failures.names.clear()
        with Bar("judging") as bar:
            curves = step_curves(files, split, out, progress=bar.show, **told)
    for name in failures.names:
        click.echo(f"left out, as the evaluation failed: {name}", err=True)
    if as_json:
        click.echo((curves if result is None else result).model_dump_json(indent=2))
    elif result is None:
        _show_curves(curves, out)
    else:
        cost = result.cost
        click.echo(f"{cost.verifier_calls:,} rollouts graded again, {cost.ungradable:,} of them ungradable, so wrong")
        show(result, out)


def _show_curves(curves: StepCurves, out: Path) -> None:
    """The rates of each group at some of the steps, on standard output."""
    from unlearnbench.cli.console import print_table
    from unlearnbench.records import GROUPS

    groups = [group for group in GROUPS if any(point.group == group for point in curves.points)]
    found = {(point.seed, point.step, point.group): point for point in curves.points}
    places = sorted({(point.seed, point.step) for point in curves.points})
    shown = places if len(places) <= _ROWS else [places[k * (len(places) - 1) // (_ROWS - 1)] for k in range(_ROWS)]
    several = len({seed for seed, _ in places}) > 1
    rows = [
        [
            *([seed] if several else []),
            step,
            *(_rate(found.get((seed, step, group))) for group in groups),
        ]
        for seed, step in shown
    ]
    click.echo("mean rate of the items of each group that have rollouts at a step (items in brackets)")
    print_table([*(["seed"] if several else []), "step", *groups], rows, right=["step", *groups])
    if len(shown) < len(places):
        click.echo(f"{len(shown)} of {len(places)} steps; all of them are in {out / 'curves.csv'}")
    click.echo(f"curves: {out / 'curves.png'}; score the rollouts of one step with --step N")


def _rate(point: Any) -> str:
    return "-" if point is None else f"{100 * point.rate:.1f} % ({point.items})"
