"""Curves of a run's training in TensorBoard, Weights & Biases, Trackio or MLflow, by accelerate's trackers.

The harness's own process logs what the judge wrote to each seed's metrics.jsonl; a method's process never does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unlearnbench.errors import RunError
from unlearnbench.records import Result
from unlearnbench.workers.jobs import Watch
from unlearnbench.workers.messages import Event, Progress

TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")
PROJECT = "unlearnbench"
NAMES = {
    "reward": "train/reward",
    "correct": "train/correct",
    "kl": "train/kl",
    "loss": "train/loss",
    "entropy": "train/entropy",
    "gradient_norm": "train/grad_norm",
    "clipped": "train/clip_ratio",
    "length": "train/completions/mean_length",
    "truncated": "train/completions/clipped_ratio",
    "kept_groups": "train/kept_groups",
    "rollouts": "train/rollouts",
}
"""Names of the curves: TRL's, where it has one."""


class Trackers:
    """A context that logs every seed of a run as a run of its own. Raises RunError for a tracker that is not installed.

    `show` takes the events of worker processes; each lets new lines of metrics.jsonl be logged.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._folder: Path | None = None
        self._title = ""
        self._runs: dict[int, list[Any]] = {}
        self._read: dict[int, int] = {}
        for name in self._names:
            _require(name)

    def place(self, folder: Path) -> None:
        """The run's folder, which names its runs."""
        self._folder, self._title = folder, f"{folder.parent.name}-{folder.name}"

    def show(self, event: Event) -> None:
        """Log what a seed's training has logged since."""
        if isinstance(event, Progress) and event.stage == "train" and self._names:
            self._log(event.seed)

    def beside(self, show: Watch, place: Callable[[Path], None]) -> tuple[Watch, Callable[[Path], None]]:
        """What shows a run, and what takes its folder, each with the trackers' own part after it."""

        def showing(event: Event) -> None:
            show(event)
            self.show(event)

        def placing(folder: Path) -> None:
            place(folder)
            self.place(folder)

        return showing, placing

    def finish(self, result: Result) -> None:
        """Log the rest of every seed, and the score, and close the trackers."""
        if not self._names:
            return
        score = {
            "eval/conversion": result.conversion.method_rate,
            "eval/conversion_gain": result.conversion.gain,
            "eval/solved": result.groups["unlearnable"].solved,
            "eval/easy_lost": result.retention.easy_lost,
            "eval/frontier_gain": None if result.frontier is None else result.frontier.gain,
        }
        for seed in result.seeds:
            self._log(seed)
            for tracker in self._runs.get(seed, []):
                tracker.log({name: float(value) for name, value in score.items() if value is not None})
        self.close()

    def close(self) -> None:
        for trackers in self._runs.values():
            for tracker in trackers:
                tracker.finish()
        self._runs = {}

    def _log(self, seed: int) -> None:
        for line in self._new_lines(seed):
            values = {NAMES[name]: float(value) for name, value in line.items() if name in NAMES and value is not None}
            for tracker in self._of(seed):
                tracker.log(values, step=int(line.get("step", 0)))

    def _new_lines(self, seed: int) -> list[dict[str, Any]]:
        """Whole lines since the last look; a resumed run's file may be shorter, and is then read on from its end."""
        if self._folder is None or not (path := self._folder / str(seed) / "metrics.jsonl").is_file():
            return []
        start = min(self._read.get(seed, 0), path.stat().st_size)
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read[seed] = start + len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def _of(self, seed: int) -> list[Any]:
        if seed not in self._runs:
            assert self._folder is not None
            self._runs[seed] = [_started(name, self._folder, self._title, seed) for name in self._names]
        return self._runs[seed]


def _started(name: str, folder: Path, title: str, seed: int) -> Any:
    """A started tracker of accelerate for one seed."""
    from accelerate import tracking

    run = f"{title}-seed{seed}"
    if name == "tensorboard":
        tracker = tracking.TensorBoardTracker(run, str(folder / "tensorboard"))
    elif name == "wandb":
        os.environ.setdefault("WANDB_SILENT", "true")
        tracker = tracking.WandBTracker(PROJECT, name=run, dir=str(folder), group=title, reinit="create_new")
    elif name == "trackio":
        tracker = tracking.TrackioTracker(PROJECT, name=run)
    else:
        tracker = tracking.MLflowTracker(PROJECT, str(folder / "mlflow"), run_name=run)
    tracker.start()
    return tracker


def _require(name: str) -> None:
    from importlib.util import find_spec

    if name not in TRACKERS:
        raise RunError(f"there is no tracker {name!r}; give one of {', '.join(TRACKERS)}")
    modules = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
    if not any(find_spec(module) for module in modules):
        raise RunError(f"{name} is not installed; run: pip install {name}")
