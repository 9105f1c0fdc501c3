"""Arguments as Python has them (a class for a method, "1x" for a budget), and progress where somebody sees it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unlearnbench.api.class_source import written_source
from unlearnbench.errors import RunError, UnlearnBenchError
from unlearnbench.splits import Split, load_split

if TYPE_CHECKING:
    from unlearnbench.method import Method
    from unlearnbench.workers.jobs import Watch


def multiple_of(budget: str | float) -> float:
    """A budget such as "1x", "0.5" or 4. Raises RunError for what is none."""
    try:
        found = float(str(budget).removesuffix("x"))
    except ValueError:
        found = 0.0
    if not 0 < found <= 1000:
        raise RunError(f"{budget!r} is not a budget; give a multiple above 0 and up to 1000, such as '1x'")
    return found


def split_of(split: str | Path | Split) -> Split:
    """The split of that name or folder."""
    return split if isinstance(split, Split) else load_split(split)


@contextmanager
def named(method: str | type[Method]) -> Iterator[str]:
    """A method as the harness names it: for a class that is in no file of its own, a temporary file.

    The run keeps its own copy, `<seed>/method.py`; errors name the user's file or cell.
    """
    if isinstance(method, str):
        yield method
        return
    with tempfile.TemporaryDirectory(prefix="unlearnbench-") as folder:
        source = written_source(method, Path(folder))
        try:
            yield source.spec
        except UnlearnBenchError as problem:
            if (told := source.in_place(str(problem))) == str(problem):
                raise
            raise type(problem)(told).with_traceback(problem.__traceback__) from None


@contextmanager
def shown_progress(progress: bool | Watch) -> Iterator[tuple[Watch, Callable[[Path], None]]]:
    """What takes the events, and what takes the run's folder."""
    if callable(progress):
        yield progress, lambda folder: None
    elif progress and _in_notebook():
        from unlearnbench.cli.notebook_progress import NotebookProgress

        shown = NotebookProgress()
        yield shown.show, shown.place
    elif progress:
        from unlearnbench.cli.progress import run_progress

        with run_progress() as lines:
            yield lines.show, lines.place
    else:
        yield lambda event: None, lambda folder: None


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    found = None if shell is None else shell.get_ipython()
    return found is not None and type(found).__name__ == "ZMQInteractiveShell"
