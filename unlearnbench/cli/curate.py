"""`unlearnbench curate`: label a pool by the protocol, or from counts alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from unlearnbench.cli.eval import parse_changes
from unlearnbench.cli.ray_option import ray_option


@click.command("curate")
@click.option("--config", type=click.Path(path_type=Path), help="split.yaml of the pool, beside its files.")
@click.option("--from-counts", "counts", type=click.Path(path_type=Path), help="Counts instead of a pool.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the labelled split.")
@click.option("--rule", default="protocol", show_default=True, type=click.Choice(["protocol", "paper"]))
@click.option("--sampler", default="transformers", show_default=True, type=click.Choice(["transformers", "vllm"]))
@click.option(
    "--engine",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the sampler: dtype=bfloat16, or for vLLM tensor_parallel_size=2.",
)
@click.option("--workers", type=click.IntRange(1), help="Runs at once [default: one per core].")
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Processes that train a run together and share out what is drawn.",
)
@ray_option
@click.option("--json", "as_json", is_flag=True, help="Print labels.json instead of a table.")
def curate(
    config: Path | None,
    counts: Path | None,
    out: Path,
    rule: Literal["protocol", "paper"],
    sampler: Literal["transformers", "vllm"],
    engine: tuple[str, ...],
    workers: int | None,
    processes: int,
    ray: str | None,
    as_json: bool,
) -> None:
    """Measure which items of a pool a policy can learn, and write the groups.

    Rerun the same command to resume an interrupted curation.

    Counts (csv, tsv, jsonl, json or parquet) have the columns item_id, phase, run, n and correct: in a phase and run,
    `correct` of `n` rollouts of an item. The phases are base (before training), train (during it; wanted for items
    that are hard and never learned), after (after each run) and certify (more rollouts after each run, which
    certify unlearnable items). With --rule paper, rows of phase train also have best, the largest logged mean reward.
    """
    if (config is None) == (counts is None):
        raise click.UsageError("Give either --config or --from-counts.")
    if sampler != "transformers" and counts is not None:
        raise click.UsageError("--sampler says how to draw; --from-counts draws nothing.")
    if counts is not None:
        from unlearnbench.curation.curate import curate_counts

        told = curate_counts(counts, out, rule=rule)
    else:
        from unlearnbench.cli.console import warn_of_golds
        from unlearnbench.cli.progress import Bars
        from unlearnbench.curation.curate import curate as run
        from unlearnbench.curation.ungradable import ungradable_items
        from unlearnbench.policies.samplers.engine import Engine
        from unlearnbench.splits import Split
        from unlearnbench.workers.jobs import Compute

        assert config is not None
        if config.is_file():  # before the first sample is drawn
            pool = Split(config.parent)
            warn_of_golds(ungradable_items(pool.items, pool.path / pool.config.pool.items))
        draws = Engine(sampler, parse_changes(engine, "--engine"))
        with Bars() as bars:
            compute = Compute(workers=workers, processes=processes, engine=draws, patience=None, ray=ray)
            run(config, out, rule=rule, compute=compute, progress=bars.show)
        told = json.loads((out / "labels.json").read_text())
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    from unlearnbench.cli.console import print_table

    click.echo(f"labels by the rule `{rule}`")
    print_table(["group", "items"], list(told["counts"].items()), right=["items"])
    if rule == "protocol" and told["counts"]["unlearnable"] and not told["n"]["certify"]:
        click.echo(_uncertified(told["counts"]["unlearnable"]))
    if config is not None:
        click.echo(_smallest_gain(out))
    null = out / "null_control" / "1x"
    if config is not None and not null.is_dir():
        click.echo(
            "next, the null control, without which no gain can be computed: "
            f"unlearnbench eval --method grpo --split {out} --seeds 10 --out {null}"
        )


def _uncertified(items: int) -> str:
    """What is lacking where no row is of phase certify, in a sentence."""
    from unlearnbench.records import Protocol

    return (
        f"not certified: there are no rows of phase certify, so `certified` is null for all {items} unlearnable items; "
        f"to certify them, sample each {Protocol().samples.certify} times more after every run, and add the counts as "
        "rows of phase certify"
    )


def _smallest_gain(out: Path) -> str:
    """The smallest conversion gain that a run of three seeds could detect on a split, in a sentence."""
    from unlearnbench.harness.assumed import pool_of
    from unlearnbench.harness.plan import power_of
    from unlearnbench.reports.formatting import number
    from unlearnbench.splits import load_split

    split = load_split(out)
    found = power_of(split, pool_of(split), 1.0, 3, 32, 200, lambda _: None)
    if found.why_not is not None:
        return f"no gain can be detected on this split: {found.why_not}"
    how = {"spread": "if spread over all items", "families": "if whole families are learned"}
    told = [
        f"{'none' if row.gain is None else f'{number(100 * row.gain)} points'} {how[row.effect]}"
        for row in found.detectable
        if row.bound == "interval_families"
    ]
    return (
        f"smallest conversion gain that 3 seeds against {found.null_seeds} null seeds detect on its {found.items} "
        f"unlearnable items: {', '.join(told)} ({found.world_source})"
    )
