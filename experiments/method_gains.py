"""Every method at 1x, and the best at 4x: one table per track, and a picture of all gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path

from experiments.figures import Gain, gains_figure
from experiments.markdown import Section, blocks, or_dash, paragraph, table, with_interval
from experiments.runs import Runs
from experiments.sweep import LONG, NO_CLAIM, TUNED
from unlearnbench.leaderboard.ranking import holm
from unlearnbench.methods import BUILT_IN
from unlearnbench.records import TRACKS, Result, Track
from unlearnbench.reports.formatting import duration, p_value, pct, plural
from unlearnbench.scoring.comparisons.comparability import Finished
from unlearnbench.scoring.inference.permutation import MOST_P

HEAD = ["method", "seeds", "solved gain", "conversion gain", "p", "Holm", "memorised", "frontier gain", "easy lost"]
HEAD += ["over tuned null", "at learning rate", "tokens (M)", "FLOPs (1x)"]


def section(runs: Runs, pictures: Path) -> Section:
    """The tables of all methods that were run."""
    by_track = grouped(runs.methods)
    tables = [blocks(f"### Track `{track}`", _table(rows)) for track, rows in by_track.items()]
    if by_track:
        _picture(by_track, pictures / "experiments-gains.png")
    text = blocks(
        paragraph(f"{runs.built_in} of {len(BUILT_IN)} built-in methods were run.", _missing(runs)),
        _legend(runs) if by_track else "",
        "![Conversion and frontier gain of every method](experiments-gains.png)" if by_track else "",
        *tables,
        _tuned(runs),
        _not_comparable(runs),
        _long(runs),
        _time(runs),
    )
    return Section("Every method", text)


def grouped(found: Mapping[str, Finished]) -> dict[Track, dict[str, Result]]:
    """Results by track, the largest frontier gain first within each."""
    by_track: dict[Track, dict[str, Result]] = {}
    for track in TRACKS:
        rows = {name: run.result for name, run in found.items() if run.result.method.track == track}
        if rows:
            by_track[track] = dict(sorted(rows.items(), key=lambda row: (-(_frontier(row[1])[0] or -1.0), row[0])))
    return by_track


def adjusted(results: Mapping[str, Result]) -> dict[str, float]:
    """p of each method of a track by Holm's rule; the null's own method and the controls take no part."""
    tested = {name: result.conversion.p for name, result in results.items() if name not in NO_CLAIM}
    known = {name: p for name, p in tested.items() if p is not None}
    return dict(zip(known, holm(list(known.values())), strict=True))


def _missing(runs: Runs) -> str:
    return f"Not run: {', '.join(f'`{name}`' for name in runs.missing)}." if runs.missing else ""


def _not_comparable(runs: Runs) -> str:
    """Runs that have no gain, and why."""
    tuned = {TUNED.format(name): run for name, run in runs.tuned.items()}
    found = {name: run.result.why_not_comparable for name, run in {**runs.methods, **tuned, **runs.long}.items()}
    told = [f"`{name}`: {why}." for name, why in found.items() if why is not None]
    return paragraph("Runs without a gain:", *told) if told else ""


def _legend(runs: Runs) -> str:
    first = next(iter(runs.methods.values())).result
    nulls, seeds = first.conversion.null_seeds, len(first.seeds)
    ways = comb(nulls + seeds, seeds) if nulls else 0
    most = int(MOST_P * ways)
    return paragraph(
        f"Each at the budget of the reference runs (1x), {first.samples} samples per item and seed, default settings.",
        "Gains are over the null control (GRPO with fresh seeds), in points. Solved: the item alone; converted: the",
        "item and its probe, a held-out problem of the same skill with other numbers; memorised: share of items",
        "solved without their probe. Frontier: items solved of the unlearnable and unstable, weighted by the share",
        "of labelling runs that failed them. Intervals are 95 %, beyond these families of problems. p is of the",
        "conversion gain; Holm adjusts it for the methods of the track, without GRPO itself and the controls.",
        f"With {seeds} seeds against {nulls} of the null no p is below 1/{ways}, so in a track of more than {most}"
        " methods none can pass Holm's rule."
        if ways
        else "",
        "Over tuned null: conversion beyond GRPO at the best learning rate that forgets no more easy items, given as",
        "a multiple of the recipe's. Easy lost: share of easy items, the mean over seeds. Tokens drawn and FLOPs",
        "are per seed.",
    )


def _table(results: Mapping[str, Result]) -> str:
    return table(HEAD, _rows(results, adjusted(results)))


def _rows(results: Mapping[str, Result], holms: Mapping[str, float] | None = None) -> list[list[str]]:
    return [[name, *_cells(result, (holms or {}).get(name))] for name, result in results.items()]


def _cells(result: Result, adjusted_p: float | None) -> list[str]:
    score, kept, seeds = result.conversion, result.retention, len(result.seeds)
    tuned, cost, multiple = score.tuned_null, result.cost, result.budget.multiple or 1.0
    lost = None if kept.easy_lost is None or not kept.easy_items else kept.easy_lost / kept.easy_items
    spent = cost.flops / seeds / result.budget.limit * multiple if result.budget.limit else None
    return [
        str(seeds),
        with_interval(score.solved_gain, score.solved_interval),
        with_interval(score.gain, score.interval_families),
        or_dash(score.p, p_value),
        or_dash(adjusted_p, p_value),
        or_dash(score.memorised_rate, pct),
        with_interval(*_frontier(result)),
        or_dash(lost, pct),
        "-" if tuned is None else with_interval(tuned.gain, tuned.interval),
        "-" if tuned is None else f"{tuned.learning_rate:g}",
        f"{cost.generated_tokens / seeds / 1e6:.2f}",
        or_dash(spent, "{:.2f}".format),
    ]


def _frontier(result: Result) -> Gain:
    found = result.frontier
    return (None, None) if found is None else (found.gain, found.interval_families)


def _picture(by_track: Mapping[Track, Mapping[str, Result]], path: Path) -> None:
    rows = {f"{name} ({track})": result for track, results in by_track.items() for name, result in results.items()}
    converted = {name: (one.conversion.gain, one.conversion.interval_families) for name, one in rows.items()}
    frontier = {name: _frontier(one) for name, one in rows.items()}
    gains_figure(path, {"conversion gain": converted, "frontier gain": frontier})


def _tuned(runs: Runs) -> str:
    """Each tuned method beside itself with its own settings."""
    rows: dict[str, Result] = {}
    for name, run in runs.tuned.items():
        if name in runs.methods:
            rows[f"{name}, as published"] = runs.methods[name].result
        rows[f"{name}, tuned ({run.result.method.settings['learning_rate']:g})"] = run.result
    if not rows:
        return ""
    chosen = paragraph(
        "As much tuned as the null is: two seeds at each of its six learning rates, of which the one with the largest",
        "frontier gain that loses at most 5 % of the easy items; then fresh seeds at that rate (in brackets).",
    )
    return blocks("### Tuned over learning rates", chosen, table(HEAD, _rows(rows)))


def _long(runs: Runs) -> str:
    if not runs.long:
        return ""
    chosen = paragraph(
        "Chosen by their frontier gain at 1x, over all tracks. A longer run begins as the run at 1x does, with the",
        "same seeds, so these gains are not independent of the choice.",
    )
    tables = [blocks(f"Track `{track}`:", _table(rows)) for track, rows in grouped(runs.long).items()]
    return blocks(f"### The best at {LONG:g}x", chosen, *tables)


def _time(runs: Runs) -> str:
    every: Sequence[Finished] = [*runs.methods.values(), *runs.tuned.values(), *runs.long.values()]
    if not every:
        return ""
    seconds = sum(run.result.cost.seconds for run in every)
    seeds = sum(len(run.result.seeds) for run in every)
    return paragraph(
        f"All runs of this page together: {plural(len(every), 'run')}, {seeds} seeds, {duration(seconds)} of training",
        "and evaluation (cost.seconds of result.json).",
    )
