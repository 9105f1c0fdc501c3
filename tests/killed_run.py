"""Runs that are killed at a step and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unlearnbench.method import Method


class _Killed(Exception):
    pass


def kill_after(run: Any, steps: int) -> None:
    """End a run as a kill does, after the checkpoint of that step."""

    def progress(step: int, *_: Any) -> None:
        if step == steps:
            raise _Killed

    run.progress = progress
    with pytest.raises(_Killed):
        run.run()


def run_whole_and_killed(
    training: Any, folder: Path, cls: type[Method], steps: int = 6, **changes: Any
) -> tuple[Any, Any]:
    """An unbroken run in folder / "whole", and in folder / "broken" one that is killed half way and resumed."""
    whole = training(cls, folder / "whole", steps=steps, checkpoint_every=steps // 2, **changes)
    whole.run()
    kill_after(training(cls, folder / "broken", steps=steps, checkpoint_every=steps // 2, **changes), steps // 2)
    resumed = training(cls, folder / "broken", steps=steps, checkpoint_every=steps // 2, **changes)
    assert resumed.state.step == steps // 2
    resumed.run()
    return whole, resumed


def bytes_of_run(folder: Path) -> dict[str, bytes | None]:
    """The files that a kill must not change: metrics, weights and the state of the method (None if missing)."""
    names = ("metrics.jsonl", "checkpoint/model.safetensors", "checkpoint/method.safetensors")
    return {name: (folder / name).read_bytes() if (folder / name).is_file() else None for name in names}
