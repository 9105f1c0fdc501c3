"""`unlearnbench score`: rollouts made anywhere, judged anew and scored."""

from __future__ import annotations

from pathlib import Path

import click

from unlearnbench.cli.ending import show


@click.command("score")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", default="micro", show_default=True, help="A shipped split, or a folder with split.yaml.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=click.IntRange(0),
    help="Training run of a FILE that names none, once for every FILE in their order [default: 0].",
)
@click.option("--partial", is_flag=True, help="Score what is there, though items are missing: not comparable.")
@click.option("--workers", type=click.IntRange(1), help="Processes for algebra [default: one a core].")
@click.option("--json", "as_json", is_flag=True, help="Print result.json instead of a table.")
def score(
    files: tuple[Path, ...],
    split: str,
    out: Path,
    seeds: tuple[int, ...],
    partial: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Score rollouts made anywhere: FILEs (.jsonl or .parquet) with item_id, completion and, if wanted, seed.

    Per-sample logs of lm-eval-harness (samples_*.jsonl) and inspect_ai (.eval, .json) are read as they are. Several
    files are one set. Every verdict is made anew; every item of the split must be there, with the same number of
    rollouts in every seed.
    """
    from unlearnbench.adapters.eval_logs import SUFFIXES
    from unlearnbench.io.rollout_reader import FORMATS

    for path in files:
        if path.suffix not in (*FORMATS, *SUFFIXES):
            raise click.UsageError(f"FILE must end in {' or '.join((*FORMATS, *SUFFIXES))}, not {path.name!r}.")
    if seeds and len(seeds) != len(files):
        raise click.UsageError(
            f"--seed is wanted once for each of the {len(files)} FILEs, and was given {len(seeds)} times."
        )
    from unlearnbench.cli.progress import Bar
    from unlearnbench.harness.score_rollouts import score_rollouts

    with Bar("judging") as bar:
        result = score_rollouts(
            files, split, out, seeds=seeds or None, partial=partial, workers=workers, progress=bar.show
        )
    if as_json:
        click.echo(result.model_dump_json(indent=2))
        return
    cost = result.cost
    click.echo(f"{cost.verifier_calls:,} rollouts judged anew, {cost.ungradable:,} of them ungradable, so wrong")
    show(result, out)
