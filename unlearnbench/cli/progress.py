"""Progress bars on standard error; nothing where standard error is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from unlearnbench.workers.messages import Event
from unlearnbench.workers.messages import Progress as Training


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
    """One bar a seed and stage: a context in which `show` takes the events of worker processes.

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

    def show(self, event: Event) -> None:
        """Move the bar of the event's seed and stage."""
        if not isinstance(event, Training):
            return
        key = (event.seed, event.stage)
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(f"{self._what}seed {key[0]}: {key[1]}", total=1.0, note="")
        if event.stage == "train":
            note = f"step {event.step}, reward {event.reward or 0.0:.3f}, {event.rate:.1f}/s"
        else:
            note = f"{event.rate:.0f} rollouts/s"
        self._progress.update(self._tasks[key], completed=event.done, note=note)


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

    def show(self, done: float) -> None:
        """Move the bar to this share, from 0 to 1."""
        self._progress.update(self._task, completed=done)


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

    def show(self, what: str, rows: int, share: float) -> None:
        """Move the bar of this work; the first call for it may come when rows of an earlier command are done."""
        if what not in self._tasks:
            task = self._progress.add_task(what, total=1.0, rows=rows, rate=0.0)
            self._tasks[what] = (task, time.monotonic(), rows)
        task, began, done = self._tasks[what]
        rate = (rows - done) / max(time.monotonic() - began, 1e-6)
        self._progress.update(task, completed=share, rows=rows, rate=rate)
