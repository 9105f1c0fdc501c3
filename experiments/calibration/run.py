"""`make calibrate`: how often the intervals contain the true value, as the tables of docs/reference/statistics.md.

    python -m experiments.calibration.run [--repeats 1000] [--twin-repeats 1000] [--workers 2] [--only "held out"]

Every setting has a random stream of its own, so the tables do not depend on the number of workers. Progress is one line
on a terminal.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

import numpy as np

from experiments.calibration import probe_verdicts
from experiments.calibration.settings import Setting, all_sets, twin_settings
from experiments.calibration.simulations import Covered, coverage, null_against_null

ENOUGH = 20
"""Converted items in either arm from which coverage is to be within `WITHIN`."""
WITHIN = (0.93, 0.97)
LEAST_REPEATS = 20

Job = TypeVar("Job")
Done = TypeVar("Done")


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description="Simulate how often the score's intervals contain the true value.")
    parser.add_argument("--repeats", type=int, default=1000, help="experiments per setting")
    parser.add_argument("--twin-repeats", type=int, default=1000, help="experiments per setting, for twins")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", choices=(*all_sets(), "twins", "null seeds"), help="print this table alone")
    chosen = parser.parse_args()
    if min(chosen.repeats, chosen.twin_repeats) < LEAST_REPEATS or chosen.workers < 1:
        parser.error(f"give at least {LEAST_REPEATS} repeats and 1 worker")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the workers: the arrays are too small for threads
    for name, settings in all_sets().items():
        if chosen.only in (None, name):
            done = _each(chosen.workers, partial(coverage, repeats=chosen.repeats), settings, name)
            print(_coverage_table(name, settings, done, chosen.repeats), flush=True)
    if chosen.only in (None, "null seeds"):
        print(_null_table(), flush=True)
    if chosen.only in (None, "twins"):
        jobs = [(setting, carried) for setting in twin_settings() for carried in probe_verdicts.CARRIED]
        task = partial(probe_verdicts.probe_verdicts, repeats=chosen.twin_repeats)
        found = _each(chosen.workers, task, jobs, "twins")
        print(probe_verdicts.table(jobs, found, chosen.twin_repeats), flush=True)


def _each(workers: int, task: Callable[[Job], Done], jobs: Sequence[Job], name: str) -> list[Done]:
    """Results of all jobs in order, with one line of progress."""
    if workers == 1:
        return list(_shown(map(task, jobs), len(jobs), name))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(_shown(pool.map(task, jobs), len(jobs), name))


def _shown(results: Iterator[Done], total: int, name: str) -> Iterator[Done]:
    terminal = sys.stderr.isatty()
    for number, result in enumerate(results, 1):
        if terminal:
            end = "\n" if number == total else ""
            print(f"\r{name}: {number} of {total} settings", end=end, file=sys.stderr, flush=True)
        yield result


def _coverage_table(name: str, settings: Sequence[Setting], done: Sequence[Covered], repeats: int) -> str:
    lines = [
        f"### {name.capitalize()}: {len(settings)} settings, {repeats} experiments each",
        "",
        "| design | world | converted, method | null | `interval` holds | below, above | width "
        "| `interval_families` holds | below, above | width |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for setting, row in zip(settings, done, strict=True):
        lines.append(
            f"| {setting.design_name} | {setting.world_name} | {row.converted:.0f} | {row.null_converted:.1f} | "
            + " | ".join(
                f"{_percent(1 - below - above)} | {_percent(below)}, {_percent(above)} | {100 * width:.1f}"
                for below, above, width in (row.these, row.beyond)
            )
            + " |"
        )
    return "\n".join([*lines, "", *_summary(settings, done, repeats), ""])


def _summary(settings: Sequence[Setting], done: Sequence[Covered], repeats: int) -> list[str]:
    """How many settings have the claimed coverage, those with few conversions separately; Monte Carlo error."""
    error = 100 * np.sqrt(0.95 * 0.05 / repeats)
    lines = []
    for field, name in (("these", "`interval`"), ("beyond", "`interval_families`")):
        held = np.array([1 - getattr(row, field)[0] - getattr(row, field)[1] for row in done])
        enough = np.array([max(row.converted, row.null_converted) >= ENOUGH for row in done])
        for part, words in ((enough, f"at least {ENOUGH} converted"), (~enough, "fewer")):
            if not part.any():
                continue
            rates = held[part]
            lines.append(
                f"- {name}, {words}: {part.sum()} settings, {_percent(rates.min())} to {_percent(rates.max())}, mean "
                f"{_percent(rates.mean())}; {(rates < WITHIN[0]).sum()} under {_percent(WITHIN[0])}, "
                f"{(rates > WITHIN[1]).sum()} over {_percent(WITHIN[1])}"
            )
    narrowest = min(row.narrowest for row in done)
    independent = [row.independent for row in done]
    lines.append(
        f"- Newcombe's paired interval, items taken as independent, would contain the gain beyond these families in "
        f"{_percent(min(independent))} to {_percent(max(independent))}"
    )
    lines.append(f"- narrowest of all intervals: {100 * narrowest:.2f} points; Monte Carlo error {error:.1f} points")
    return lines


def _null_table() -> str:
    lines = [
        "### GRPO against GRPO: the shipped null seeds of `micro`",
        "",
        "| method's seeds | null's seeds | pairs "
        "| `interval` includes 0 | width | `interval_families` includes 0 | width |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in null_against_null():
        lines.append(
            f"| {row.seeds} | {row.null_seeds} | {row.pairs} | {_percent(row.these[0])} | {100 * row.these[1]:.1f} "
            f"| {_percent(row.beyond[0])} | {100 * row.beyond[1]:.1f} |"
        )
    return "\n".join([*lines, ""])


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


if __name__ == "__main__":
    main()
