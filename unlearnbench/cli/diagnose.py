"""`unlearnbench diagnose`: arguments in, a table out; `unlearnbench.diagnosis.diagnose` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearnbench.cli.ray_option import ray_option
from unlearnbench.cli.score import columns_option

if TYPE_CHECKING:
    from rich.table import Table

    from unlearnbench.diagnosis.record import Diagnosis, Memory, SimilarityRecord


class Size(click.ParamType[int]):
    """A size such as 4GiB, 512MiB or a number of bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        units = {"": 1, "B": 1}
        for power, letter in enumerate("KMGT", start=1):
            units |= {f"{letter}iB": 1024**power, f"{letter}B": 1000**power}
        text = str(value).strip()
        digits = text.rstrip("BKMGTi ")
        try:
            size = float(digits) * units[text[len(digits) :].strip()]
        except (ValueError, KeyError):
            self.fail(f"{value!r} is not a size; write it as 4GiB, 512MiB or in bytes", param, ctx)
        if not 1 <= size < 1 << 60:
            self.fail(f"{value!r} is not a size; write it as 4GiB, 512MiB or in bytes", param, ctx)
        return int(size)


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "NAME,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(name.strip() for name in str(value).split(",")) if isinstance(value, str) else tuple(value)
        if not all(names) or len(set(names)) != len(names):
            self.fail(f"{value!r} is not a list of different names; write easy,learnable", param, ctx)
        return names


@click.command("diagnose")
@click.argument("policies", metavar="POLICY...", nargs=-1, required=True)
@click.option("--split", help="A shipped split, or a folder with split.yaml [default: micro].")
@click.option("--rollouts", type=click.Path(path_type=Path), help="A file of rollouts to use first, as `score` reads.")
@columns_option
@click.option("--step", type=click.IntRange(0), help="Use the rollouts of this training step in the file alone.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--revision", help="Revision of a policy on the Hub.")
@click.option(
    "--rollouts-per-item", default=20, show_default=True, type=click.IntRange(1), help="The same for every item."
)
@click.option("--cap", default=1024, show_default=True, type=click.IntRange(1), help="Samples per item, at most.")
@click.option(
    "--reward",
    default="correct",
    show_default=True,
    type=click.Choice(["correct", "group"]),
    help="Correct rollouts alone, or all, weighted by their reward standardised as in GRPO.",
)
@click.option(
    "--entropy-share",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of each rollout's tokens that counts: those of highest entropy.",
)
@click.option("--parameters", default="lora", show_default=True, help="lora, all, or parts of weights' names: NAME,...")
@click.option("--targets", default="q_proj,v_proj", show_default=True, type=Names(), help="Modules with an adapter.")
@click.option("--rank", default=16, show_default=True, type=click.IntRange(1), help="Rank of the adapter.")
@click.option("--adapter-seeds", default=1, show_default=True, type=click.IntRange(1), help="Random adapters.")
@click.option(
    "--parts", default=4, show_default=True, type=click.IntRange(1), help="Parts of an item's rollouts, to know noise."
)
@click.option("--groups", type=Names(), help="Groups to compare [default: easy,learnable,unlearnable].")
@click.option(
    "--items-per-group", type=click.IntRange(1), help="At most this many of each group, by a shuffle [default: all]."
)
@click.option("--prompt-format", type=click.Choice(["raw", "chat"]), help="[default: the split's, else raw].")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of adapter, samples, shuffle.")
@click.option("--max-memory", default="4GiB", show_default=True, type=Size(), help="Memory of all processes together.")
@click.option("--workers", type=click.IntRange(1), help="Processes [default: one per core; one with an accelerator].")
@ray_option
@click.option("--json", "as_json", is_flag=True, help="Print similarity.json (a list if several) instead of tables.")
def diagnose(
    policies: tuple[str, ...],
    split: str | None,
    rollouts: Path | None,
    columns: tuple[tuple[str, str], ...],
    step: int | None,
    out: Path,
    revision: str | None,
    max_memory: int,
    workers: int | None,
    ray: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare the policy gradients of a split's items: which point the same way, and which away from the others.

    POLICY is a folder, a name on the Hub, a shipped split's name (its base policy), a run or one of its checkpoints;
    if several are given, each is diagnosed. Rerun the same command to resume an interrupted diagnosis.
    """
    from unlearnbench.cli.progress import Rows
    from unlearnbench.diagnosis.diagnose import diagnose_each
    from unlearnbench.diagnosis.options import Options
    from unlearnbench.errors import RunError
    from unlearnbench.harness.rollouts.files import Reading

    if rollouts is None and (columns or step is not None):
        raise click.UsageError("--column and --step say how --rollouts is read; give --rollouts.")
    try:
        Options(**options)
    except RunError as problem:
        raise click.UsageError(f"{problem}.") from problem

    with Rows("items") as bar:

        def planned(memory: Memory) -> None:
            if not as_json:
                click.echo(_plan(memory))

        found = diagnose_each(
            policies,
            split,
            rollouts=rollouts,
            reading=Reading(columns=dict(columns), step=step),
            out=out,
            revision=revision,
            max_memory=max_memory,
            workers=workers,
            ray=ray,
            progress=lambda stage, done, total: bar.show(stage, done, done / max(total, 1)),
            planned=planned,
            **options,
        )
    if as_json:
        import json

        records = [diagnosis.record.model_dump(mode="json") for diagnosis in found]
        click.echo(json.dumps(records[0] if len(records) == 1 else records, indent=2, ensure_ascii=False))
        return
    for diagnosis in found:
        _show(diagnosis)
    if len(found) > 1:
        click.echo(f"all policies side by side: {out / 'report.html'}")


def _plan(memory: Memory) -> str:
    from unlearnbench.diagnosis.record import gib
    from unlearnbench.reports.formatting import plural

    divided = f"; {plural(memory.divided, 'part')} of items too long for that take several" if memory.divided else ""
    return (
        f"gradients: {plural(memory.workers, 'process', 'processes')} of up to {memory.tokens_per_pass:,} tokens per "
        f"pass{divided}; about {gib(memory.total)} of memory in all, the longest rollout having {memory.longest:,} "
        f"tokens with its prompt; vectors take {gib(memory.vectors)} on disk until they are compared"
    )


def _show(diagnosis: Diagnosis) -> None:
    """One policy's diagnosis as tables, on standard output."""
    from rich.table import Table

    from unlearnbench.cli.console import console
    from unlearnbench.diagnosis.page import finding
    from unlearnbench.reports.formatting import plain, plural

    record = diagnosis.record
    shown = console()
    shown.print(f"\n{finding(record)}\n")
    what = f"{plural(len(record.item_ids), 'item')} x {plural(record.rollouts_per_item, 'rollout')}"
    table = Table(title=f"{plain(record.policy)}: mean cosines, {what}, {plain(record.parameters)}")
    for name in ("group", "with", "pairs", "raw", "95 % interval", "corrected", "95 % interval", "p"):
        table.add_column(name, justify="left" if name in ("group", "with") else "right")
    for block in record.blocks:
        table.add_row(
            plain(block.a),
            plain(block.b),
            f"{block.pairs:,}",
            _cosine(block.raw),
            _interval(block.interval),
            _cosine(block.corrected),
            _interval(block.corrected_interval),
            "-" if block.p is None else f"{block.p:.3f}",
        )
    shown.print(table)
    medians = ", ".join(
        f"{plain(row.group)} {'-' if row.median is None else f'{row.median:.2f}'}" for row in record.reliability
    )
    shown.print(f"median reliability: {medians}")
    if record.auc is not None:
        ends = "" if record.auc.interval is None else " ({:.3f} to {:.3f})".format(*record.auc.interval)
        told = (
            "similarity predicts the label" if ends else "too few items to say how well similarity predicts the label"
        )
        shown.print(f"{told} (AUC): {record.auc.value:.3f}{ends}")
    if record.pair_spread is not None:
        shown.print(f"spread of a pair's cosine over {len(record.adapter_seeds)} adapters: {record.pair_spread:.3f}")
    if record.excluded:
        shown.print(_left_out(record))
    shown.print(f"report: {diagnosis.folder / 'report.html'}")


def _left_out(record: SimilarityRecord) -> Table:
    from rich.table import Table

    from unlearnbench.diagnosis.record import left_out
    from unlearnbench.reports.formatting import plain

    table = Table(title="left out; each item is in similarity.json")
    for name in ("group", "left out", "of items", "why"):
        table.add_column(name, justify="left" if name in ("group", "why") else "right")
    for row in left_out(record):
        table.add_row(plain(row.group), f"{row.left_out:,}", f"{row.items:,}", row.why or "-")
    return table


def _cosine(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
