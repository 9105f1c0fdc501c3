"""How `eval` and `score` end: the headline, four figures, the gain and its interval as a drawn bar, what to do next."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from unlearnbench.records import Result
    from unlearnbench.reports.run_files import Run

WIDTH = 56
"""Characters of the drawn bar."""


def show(result: Result, folder: Path | None = None, method: str | None = None) -> None:
    """A result on standard output; with the run's folder also what gain it could have detected, and what is next.

    `method` is what the user gave as `--method`, for the next command; by default the file that the run keeps.
    """
    from unlearnbench.cli.console import console
    from unlearnbench.reports.detectable import smallest_gain
    from unlearnbench.reports.formatting import plain
    from unlearnbench.reports.headline import verdict
    from unlearnbench.reports.summary import about, figures

    run = None if folder is None else _run(result, folder)
    shown = console()
    told = verdict(result, None if run is None else smallest_gain(run))
    # a method's name is foreign text: no markup, and its control characters are spelled out
    shown.print(f"\n{plain(result.method.name)} on {result.split}", style="bold")
    shown.print(" \u00b7 ".join(about(run)) if run else f"{result.method.track} track")
    shown.print(f"\n{told.label}", style={"more": "bold green", "less": "bold red"}.get(told.tone, "bold"))
    shown.print(" ".join(told.summary) + "\n")
    _table(shown, [(of.what, f"{of.value} {of.unit}".strip(), of.below) for of in figures(result)])
    bar = drawn_bar(result)
    if bar:
        shown.print()
        for line in bar:
            shown.print(line, no_wrap=True, overflow="crop")
    shown.print()
    _groups(shown, result)
    _fates(shown, result, None if run is None or run.fates is None else int(run.fates.undrawn.sum()))
    for caveat in told.caveats:
        shown.print(f"! {plain(caveat)}")
    if folder is not None:
        shown.print(f"\nreport: {folder / 'report.html'}", soft_wrap=True)
        if (following := _next(result, folder, method)) is not None:
            shown.print(f"next:   {following}", soft_wrap=True)


def drawn_bar(result: Result, width: int = WIDTH) -> list[str]:
    """The gain and its interval on a scale with 0, and the scale; nothing where there is no interval."""
    from unlearnbench.reports.charts import Scale

    score = result.conversion
    gain, interval = score.gain, score.interval_families
    if gain is None:
        gain, interval = score.solved_gain, score.solved_interval
    if gain is None or interval is None:
        return []
    line, dot, zero = ("\u2500", "\u25cf", "\u2502") if _unicode() else ("-", "o", "|")
    scale = Scale.over([*interval, gain], least=0.02)

    def at(value: float) -> int:
        return round(scale.at(value) / 100 * (width - 1))

    cells = [" "] * width
    cells[at(0.0)] = zero
    for place in range(at(interval[0]), at(interval[1]) + 1):
        cells[place] = line if place != at(0.0) else ("\u253c" if _unicode() else "+")
    cells[at(gain)] = dot
    low, high = (f"{100 * end:+.3g}" for end in (scale.low, scale.high))
    marks = [" "] * width
    marks[: len(low)] = low
    marks[-len(high) :] = high
    if len(low) < at(0.0) < width - len(high) - 1:
        marks[at(0.0)] = "0"
    return ["gain  " + "".join(cells), "      " + "".join(marks) + " points"]


def _table(shown: Console, rows: Sequence[tuple[str, str, str]]) -> None:
    """Lines of name, value and what stands beside it, which goes on below itself where the terminal is narrow."""
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)]
    margin = " " * (sum(widths) + 7)
    for name, value, beside in rows:
        line = f"  {name:<{widths[0]}}  {value:>{widths[1]}}   {beside}".rstrip()
        for part in textwrap.wrap(line, max(shown.width, len(margin) + 20), subsequent_indent=margin) or [""]:
            shown.print(part)


def _groups(shown: Console, result: Result) -> None:
    """Groups that have items: rates before and after, and what is solved of them per seed; no empty columns."""
    from rich.table import Table

    from unlearnbench.reports.formatting import number, pct, span

    rows = [
        {
            "group": group,
            "items": str(of.items),
            "before": "-" if of.rate_before is None else pct(of.rate_before),
            "after": "-" if of.rate_after is None else pct(of.rate_after),
            "95 % interval": "-" if of.rate_after_interval is None else span(of.rate_after_interval),
            "solved": "-" if of.solved is None else number(of.solved),
            "converted": "" if of.converted is None else number(of.converted),
        }
        for group, of in result.groups.items()
        if of.items
    ]
    if not rows:
        return
    names = [name for name in rows[0] if {row[name] for row in rows} - {"", "-"}]
    table = Table(show_edge=False, pad_edge=False, box=None)
    for name in names:
        table.add_column(name, justify="left" if name == "group" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    shown.print(table)


def _fates(shown: Console, result: Result, undrawn: int | None) -> None:
    """What became of the unlearnable items in training; `undrawn` of the never solved ones were not drawn at all."""
    from unlearnbench.records import FATES
    from unlearnbench.reports.formatting import plural

    if (met := result.fates) is not None:
        beside = {"never": f" ({undrawn} of them not drawn)" if undrawn else ""}
        counted = ", ".join(f"{getattr(met, name)} {name}{beside.get(name, '')}" for name in FATES)
        size = f"{result.groups['unlearnable'].items} items x {plural(len(result.seeds), 'seed')}"
        shown.print(f"\nunlearnable items in training ({size}): {counted}")


def _run(result: Result, folder: Path) -> Run | None:
    """The run with its split; None where the split is not found by the result's name."""
    from contextlib import suppress

    from unlearnbench.errors import UnlearnBenchError
    from unlearnbench.reports.run_files import Run
    from unlearnbench.scoring.comparisons.comparability import read_run
    from unlearnbench.scoring.counted import labels_of

    with suppress(UnlearnBenchError):
        return Run(folder, labels_of([read_run(folder)], None), result)
    return None


def _next(result: Result, folder: Path, given: str | None) -> str | None:
    """The command that a reader may want now."""
    import shlex

    from unlearnbench.reports.headline import converts_more
    from unlearnbench.reports.reproduce import method_of

    method = shlex.quote(method_of(result, folder, given))
    if result.quick:
        return f"unlearnbench eval --method {method} --split {result.split}"
    if result.kind == "eval" and result.comparable and converts_more(result.conversion):
        return f"unlearnbench submit {shlex.quote(str(folder))} --out {shlex.quote(result.method.name)}.zip"
    if result.kind == "eval" and result.comparable and result.conversion.gain is not None:
        return f"unlearnbench plan --method {method} --split {result.split} --seeds 10"
    return None


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
