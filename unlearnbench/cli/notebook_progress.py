"""Progress in a notebook: one bar per seed and stage, in a cell's output that is drawn again."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any

from unlearnbench.cli.progress import note
from unlearnbench.harness.progress_file import restarts
from unlearnbench.workers.messages import Event, Progress

EVERY = 0.5
"""Seconds between two drawings."""


class NotebookProgress:
    """`show` takes the events of worker processes, `place` the run's folder."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._seen: dict[tuple[int, str], Progress] = {}
        self._folder, self._note, self._drawn = "", "", 0.0
        self._handle: Any = display(HTML(""), display_id=True)

    def place(self, folder: Path) -> None:
        self._folder, self._note = str(folder), restarts(folder) or ""
        self._draw()

    def show(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._seen[event.seed, event.stage] = event
            if time.monotonic() - self._drawn >= EVERY or event.done >= 1:
                self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        rows = [
            f"<div>{escape(self._name(of))} <progress max='1' value='{of.done:.3f}'></progress> {100 * of.done:.0f} % "
            f"<small>{escape(note(of))}</small></div>"
            for of in list(self._seen.values())
        ]
        head = f"<code>{escape(self._folder)}</code> {escape(self._note)}"
        self._handle.update(self._html(f"<div>{head}{''.join(rows)}</div>"))

    @staticmethod
    def _name(of: Progress) -> str:
        return of.stage if of.stage == "similarity" else f"seed {of.seed}: {of.stage}"
