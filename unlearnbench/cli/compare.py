"""`unlearnbench compare`: runs against one another, and the null control against itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from unlearnbench.scoring.comparisons.comparison import Comparison, Moved, Pair
    from unlearnbench.scoring.comparisons.null_vs_null import NullAgainstNull, Repeats
    from unlearnbench.scoring.comparisons.pilot import PilotComparison

MAX_ROWS = 10  # of each table on the screen; --json has all


@click.command("compare")
@click.argument("folders", metavar="DIR...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--aa", is_flag=True, help="Compare the null control's seeds with one another instead of runs.")
@click.option("--pilot", is_flag=True, help="Show rates of quick or partial runs side by side, without any claim.")
@click.option(
    "--split", help="The split that the runs were scored on, if it is not a shipped one [--aa: micro]: its folder."
)
@click.option("--seeds", type=click.IntRange(1), help="--aa: seeds of one side [default: 3].")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write comparison.html, with figures, and comparison.json there."
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def compare(
    folders: tuple[Path, ...],
    aa: bool,
    pilot: bool,
    split: str | None,
    seeds: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Compare the runs in two or more DIRs item by item, each pair as the first minus the second.

    Runs that it would be unfair to compare are refused. With --aa: GRPO against GRPO, from the seeds of a split's null
    control. It is no better than itself, so at least 95 % of the intervals should include 0.
    """
    if aa and pilot:
        raise click.UsageError("--pilot shows runs; --aa compares the seeds of a null control.")
    if aa and folders:
        raise click.UsageError("--aa compares the seeds of a split's null control; it takes no DIR.")
    if aa and out is not None:
        raise click.UsageError("--out writes the page of compared runs; --aa has none.")
    if not aa and seeds is not None:
        raise click.UsageError("--seeds belongs to --aa; runs are compared with the seeds that they have.")
    if not aa and len(folders) < 2:
        raise click.UsageError("Give the folders of at least two runs, or --aa.")
    if twice := [folder for place, folder in enumerate(folders) if folder.resolve() in _resolved(folders[:place])]:
        raise click.UsageError(f"{twice[0]} is given twice; a run is no evidence against itself.")
    from unlearnbench.scoring.comparisons import comparison
    from unlearnbench.scoring.comparisons import null_vs_null as against_itself
    from unlearnbench.splits import load_split

    if aa:
        from unlearnbench.cli.progress import Bar

        with Bar("GRPO against GRPO") as bar:
            found = against_itself.null_against_null(load_split(split or "micro"), seeds or 3, bar.show)
        _print(found.model_dump(mode="json")) if as_json else _show_null(found)
        return
    from unlearnbench.reports import comparison_report
    from unlearnbench.scoring.comparisons.comparability import read_run
    from unlearnbench.scoring.counted import labels_of

    labels, page = None if split is None else load_split(split), None
    if pilot:
        from unlearnbench.scoring.comparisons import pilot as side_by_side

        beside = side_by_side.pilot(folders, labels)
        page = None if out is None else comparison_report.write_pilot(out, beside)
        _print(beside.model_dump(mode="json")) if as_json else _show_pilot(beside)
    else:
        told = comparison.compare(folders, labels)
        if out is not None:  # before anything is shown: a reader like `head` may leave
            known = labels_of([read_run(folder) for folder in folders], labels)
            prompts = {item.item_id: item.prompt for item in known.items}
            page = comparison_report.write_page(out, told, prompts)
        _print(told.model_dump(mode="json")) if as_json else _show(told)
    if page is not None:
        click.echo(f"with figures: {page}", err=as_json)


def _resolved(folders: Iterable[Path]) -> set[Path]:
    return {folder.resolve() for folder in folders}


def _print(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _table(shown: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """A table whose first `left` columns are words and the others numbers."""
    from rich.table import Table
    from rich.text import Text

    from unlearnbench.reports.formatting import plain

    table = Table(show_edge=False)
    for place, name in enumerate(head):
        table.add_column(name, justify="left" if place < left else "right", overflow="fold")
    for row in rows[:MAX_ROWS]:
        table.add_row(*(Text(plain(cell)) for cell in row))
    if title:
        shown.print(title)
    shown.print(table)
    if len(rows) > MAX_ROWS:
        shown.print(f"... and {len(rows) - MAX_ROWS} more; --json has all")
    shown.print()


# --- runs -----------------------------------------------------------------------------------------------------


def _show(told: Comparison) -> None:
    from unlearnbench.cli.console import console
    from unlearnbench.reports.comparison_report import several
    from unlearnbench.reports.formatting import pct, power, span

    shown = console()
    first = told.runs[0]
    families = len(told.pairs[0].families)
    shown.print()
    for pair in told.pairs:
        _show_verdict(shown, told, pair)
    if (warning := several(told)) is not None:
        shown.print(f"{warning}\n")
    shown.print(
        f"Compared on {told.split}: {first.items} unlearnable items in {families} families, and {first.easy_items} "
        f"easy ones (track {first.track}).\n"
    )
    _table(
        shown,
        "",
        ["run", "method", "folder", "seeds", "converted", "conversion", "95 % interval", "easy lost", "FLOPs per seed"],
        [
            [
                run.label,
                run.method,
                run.folder,
                str(len(run.seeds)),
                f"{run.converted:.3g} of {run.items}",
                pct(run.conversion),
                "-" if run.conversion_interval is None else span(run.conversion_interval),
                f"{run.easy_lost:.3g} of {run.easy_items}",
                "-" if run.flops_per_seed is None else power(run.flops_per_seed),
            ]
            for run in told.runs
        ],
        left=3,
    )
    if told.differences:
        rows = [
            [part.setting, *(_value(value, part.meaning) for value in part.values), part.meaning, part.why]
            for part in told.differences
        ]
        _table(shown, "What differs", ["setting", *(run.label for run in told.runs), "meaning", "why"], rows, left=99)
    else:
        shown.print("What differs and could move the score: nothing that these folders record.\n")
    if first.track == "undeclared":
        shown.print(
            "Nothing of these runs' training was metered: whether they cost alike, and what they read, is their "
            "makers' word.\n"
        )
    for pair in told.pairs:
        _show_pair(shown, told, pair)


def _show_verdict(shown: Console, told: Comparison, pair: Pair) -> None:
    """What a pair shows, first of all."""
    from unlearnbench.reports.comparison_report import named, pair_verdict

    verdict = pair_verdict(told, pair)
    shown.print(f"{named(told, pair.first)} minus {named(told, pair.second)}")
    shown.print(verdict.label, style="bold")
    shown.print(f"{verdict.summary}\n")


def _show_pilot(told: PilotComparison) -> None:
    from unlearnbench.cli.console import console
    from unlearnbench.reports.formatting import pct, plural

    shown = console()
    shown.print("\nNo claim: a pilot. Quick or partial runs say nothing of chance.\n", style="bold")
    for run in told.runs:
        size = f"{plural(len(run.seeds), 'seed')} x {plural(run.samples, 'sample')}"
        shown.print(f"{run.label}: {run.method}, {size} ({run.folder})")
    shown.print()
    labels = [run.label for run in told.runs]
    groups = [
        [row.name, str(row.items), "-" if row.before is None else pct(row.before), *map(pct, row.rates)]
        for row in told.groups
    ]
    _table(shown, "", ["group", "items", "before", *labels], groups)
    families = [[row.name, str(row.items), *map(pct, row.rates)] for row in told.families]
    _table(shown, "", ["family of unlearnable items", "items", *labels], families)


def _show_pair(shown: Console, told: Comparison, pair: Pair) -> None:
    from unlearnbench.reports.comparison_report import named, sentences
    from unlearnbench.reports.formatting import plural

    shown.rule(f"{named(told, pair.first)} minus {named(told, pair.second)}", align="left")
    for sentence in sentences(told, pair):
        shown.print(sentence)
    shown.print()
    moved = [
        [name, str(part.items), f"{part.first:.3g}", f"{part.second:.3g}"]
        for name, part in sorted(pair.families.items(), key=lambda named: -abs(named[1].first - named[1].second))
        if part.first != part.second
    ]
    if moved:
        title = f"Families that differ ({len(moved)} of {len(pair.families)}), converted items"
        _table(shown, title, ["family", "items", pair.first, pair.second], moved)
    for winner, items in ((pair.first, pair.only_first), (pair.second, pair.only_second)):
        if items:
            loser = pair.second if winner == pair.first else pair.first
            title = f"Solved in {winner} and not in {loser}: {plural(len(items), 'item')}"
            _table(shown, title, ["item", "family", pair.first, pair.second], [_row(item) for item in items], left=2)


def _row(item: Moved) -> list[str]:
    from unlearnbench.reports.formatting import pct

    return [
        item.item_id,
        item.family,
        *(f"{pct(part.rate)} ({part.correct} of {part.n})" for part in (item.first, item.second)),
    ]


def _value(value: Any, meaning: str) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    missing = "-" if meaning == "intended" else "unknown"  # a method need not have another's setting
    return missing if value is None else str(value)


# --- the null control against itself --------------------------------------------------------------------------


def _show_null(told: NullAgainstNull) -> None:
    from unlearnbench.cli.console import console
    from unlearnbench.reports.formatting import pct, plural

    shown = console()
    total, k = len(told.null_seeds), told.seeds
    shown.print(
        f"\nGRPO against GRPO on {told.split}: {plural(total, 'null seed')}, {told.items} unlearnable items in "
        f"{told.families} families. With {plural(k, 'seed')} GRPO converts {pct(told.rate)}.\n"
    )
    kinds = {
        f"{plural(k, 'seed')} as the method, {total - k} as its null": told.method_against_rest,
        f"{k} seeds against {k} others": told.disjoint,
        "one seed against another": told.single,
    }
    _table(
        shown,
        "",
        ["comparison", "n", "with 0", "with 0, beyond", "mean |gain|", "sd of gain", "largest |gain|"],
        [_repeats(name, part) for name, part in kinds.items() if part is not None],
    )
    shown.print(
        "with 0: 95 % intervals for these families that include 0; with 0, beyond: those beyond these families; both "
        "should be at least 95 %.\nThe comparisons share seeds, so they are not independent: their number is no "
        "sample size."
    )


def _repeats(name: str, part: Repeats) -> list[str]:
    from unlearnbench.reports.formatting import pct

    def share(held: int) -> str:
        return f"{held} ({pct(held / part.intervals)})" if part.intervals else "no interval"

    return [
        name,
        str(part.comparisons) + ("" if part.comparisons == part.of else f" of {part.of}"),
        share(part.interval_holds_zero),
        share(part.interval_families_holds_zero),
        *(
            f"{100 * size:.2f} points"
            for size in (part.mean_absolute_gain, part.gain_sd, max(part.largest_gain, -part.smallest_gain))
        ),
    ]
