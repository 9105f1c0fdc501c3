"""Progress on standard error: bars on a terminal; elsewhere a plain line every 30 seconds or tenth of the work."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from unlearnbench.workers.messages import Event
from unlearnbench.workers.messages import Progress as Training

EVERY = 30.0
"""Seconds between two plain lines, unless a tenth of the work is done sooner."""


class _Shown:
    """The context in which a progress display is on the screen."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Bars(_Shown):
    """One bar per seed and stage: a context in which `show` takes the events of worker processes.

    `what` stands before them, where one command does several such things.
    """

    def __init__(self, what: str = "") -> None:
        self._what = f"{escape(what)}, " if what else ""
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]:<30}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[tuple[int, str], TaskID] = {}

    def place(self, folder: Path) -> None:
        """The run's folder, above the bars, and whether an interrupted training starts again."""
        for line in (f"run: {folder}", _restarts(folder)):
            if line:
                self._progress.console.print(escape(line), highlight=False, soft_wrap=True)

    def show(self, event: Event) -> None:
        """Move the bar of the event's seed and stage."""
        if not isinstance(event, Training):
            return
        key = (event.seed, event.stage)
        if key not in self._tasks:
            name = event.stage if event.stage == "similarity" else f"seed {event.seed}: {event.stage}"
            self._tasks[key] = self._progress.add_task(f"{self._what}{name}", total=1.0, note="")
        self._progress.update(self._tasks[key], completed=event.done, note=note(event))


class Lines:
    """The same in plain lines, for a log: the run's folder at once, then how far all seeds are in a stage."""

    def __init__(self, what: str = "") -> None:
        self._what = f"{what}, " if what else ""
        self._began = self._last = time.monotonic()
        self._seeds: dict[str, dict[int, Training]] = {}
        self._tenth: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def place(self, folder: Path) -> None:
        """The run's folder, and whether an interrupted training starts again."""
        _say(f"run: {folder} (`unlearnbench status {shlex.quote(str(folder))}` says how far it is)")
        if (line := _restarts(folder)) is not None:
            _say(line)

    def show(self, event: Event) -> None:
        """Write a line if a tenth of the stage's work, or EVERY seconds, have passed since the last one."""
        if not isinstance(event, Training):
            return
        seeds = self._seeds.setdefault(event.stage, {})
        seeds[event.seed] = event
        share = sum(of.done for of in seeds.values()) / len(seeds)
        tenth, now = int(10 * share + 1e-9), time.monotonic()
        if tenth > self._tenth.get(event.stage, 0) or now - self._last >= EVERY:
            self._tenth[event.stage], self._last = max(tenth, self._tenth.get(event.stage, 0)), now
            _say(f"{_clock(now - self._began)}  {self._what}{_told(event.stage, share, seeds)}")


def run_progress(what: str = "") -> Bars | Lines:
    """Bars where standard error is a terminal, else plain lines."""
    return Bars(what) if sys.stderr.isatty() else Lines(what)


class _Paced:
    """What bars show, off a terminal: a plain line every EVERY seconds."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def say(self, line: str) -> None:
        """Write the line, unless bars are shown or the last line is fresh."""
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._last >= EVERY:
            self._last = now
            _say(f"{_clock(now - self._began)}  {line}")


class Bar(_Shown):
    """A context in which `show` takes the share of one piece of work that is done."""

    def __init__(self, what: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._progress.add_task(what, total=1.0)
        self._what, self._paced = what, _Paced()

    def show(self, done: float) -> None:
        """Move the bar to this share, from 0 to 1."""
        self._progress.update(self._task, completed=done)
        self._paced.say(f"{self._what} {100 * done:.0f} %")


class Rows(_Shown):
    """A context in which `show` takes the rows (or `unit`) that a piece of work has done, and their share of all."""

    def __init__(self, unit: str = "rows") -> None:
        self._progress = Progress(
            TextColumn("{task.description:<13}"),
            BarColumn(),
            TextColumn(f"{{task.percentage:>3.0f}} %  {{task.fields[rows]:>11,}} {unit}"),
            TextColumn("{task.fields[rate]:>9,.0f}/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._tasks: dict[str, tuple[TaskID, float, int]] = {}
        self._unit, self._paced = unit, _Paced()

    def show(self, what: str, rows: int, share: float) -> None:
        """Move the bar of this work; the first call for it may come when rows of an earlier command are done."""
        if what not in self._tasks:
            task = self._progress.add_task(what, total=1.0, rows=rows, rate=0.0)
            self._tasks[what] = (task, time.monotonic(), rows)
        task, began, done = self._tasks[what]
        rate = (rows - done) / max(time.monotonic() - began, 1e-6)
        self._progress.update(task, completed=share, rows=rows, rate=rate)
        self._paced.say(f"{what} {100 * share:.0f} %: {rows:,} {self._unit}, {rate:,.0f}/s")


def note(event: Training) -> str:
    """The text beside a bar: step and reward of a training, else the rate."""
    if event.stage == "similarity":
        return ""
    if event.stage == "train":
        return f"step {event.step}, reward {event.reward or 0.0:.3f}, {event.rate:.1f}/s"
    return f"{event.rate:.0f} rollouts/s"


def _told(stage: str, share: float, seeds: Mapping[int, Training]) -> str:
    """One line on a stage: the share of all seeds, and what each does."""
    each = ", ".join(
        f"seed {seed} {100 * of.done:.0f} %" + (f" ({words})" if (words := note(of)) else "")
        for seed, of in sorted(seeds.items())
    )
    return f"{stage} {100 * share:.0f} %" + ("" if stage == "similarity" else f": {each}")


def _restarts(folder: Path) -> str | None:
    from unlearnbench.harness.progress_file import restarts

    return restarts(folder)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
