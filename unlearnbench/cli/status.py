"""`unlearnbench status DIR`: how far a run is, from its files, from anywhere."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from unlearnbench.errors import DataError, RunError, first_line

if TYPE_CHECKING:
    from unlearnbench.harness.progress_file import RunProgress, StageProgress

State = Literal["finished", "stopped", "in progress"]
SILENT = 120.0
"""Seconds without a report after which a run is said to be silent."""
BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
POINTS = 40


@click.command("status")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def status(directory: Path, as_json: bool) -> None:
    """Say how far the run in DIR is: stage, rate, time left, and its curves so far.

    Of a folder of runs, such as runs or runs/micro: one line per run.
    """
    from unlearnbench.harness.progress_file import read_progress

    found = read_progress(directory)
    if found is None:
        if not directory.is_dir():
            raise RunError(f"there is no folder {directory}; give the folder of a run (--out of `eval`)")
        if (directory / "result.json").is_file():  # of `score`, or of a control as a split ships it
            _of_result(directory, as_json)
            return
        if not (runs := _runs(directory)):
            raise RunError(
                f"{directory} has no progress.json, and no run in it has one; give the folder of a run (--out of "
                "`eval`), or a folder of runs"
            )
        _list(runs, directory, as_json)
        return
    curves = {str(seed): _rewards(directory / str(seed)) for seed in found.seeds}
    stages = [_described(stage) for stage in found.stages]
    state, working = _state(directory, found)
    if as_json:
        finished = state == "finished"
        told = {"what": found.what, "finished": finished, "working": working, "stages": stages, "reward": curves}
        click.echo(json.dumps(told, indent=2))
        return
    _show(directory, found, stages, curves, state)


def _of_result(directory: Path, as_json: bool) -> None:
    """A run that left a result and no progress, so that nothing is known of its stages."""
    from unlearnbench.reports.formatting import plain, plural
    from unlearnbench.scoring.comparisons.comparability import read_run

    result = read_run(directory).result
    what = f"{result.method.name} on {result.split}"
    if as_json:
        told = {"what": what, "finished": True, "working": None, "stages": [], "reward": {}}
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"{plain(what)}, {plural(len(result.seeds), 'seed')}: finished")
    if (report := directory / "report.html").is_file():
        click.echo(f"report: {report}")


def _runs(directory: Path) -> dict[Path, RunProgress]:
    """The runs below a folder of runs, at runs/NAME or runs/SPLIT/NAME, in alphabetical order."""
    from unlearnbench.harness.progress_file import NAME, read_progress

    files = sorted([*directory.glob(f"*/{NAME}"), *directory.glob(f"*/*/{NAME}")])
    return {file.parent: found for file in files if (found := read_progress(file.parent)) is not None}


def _state(directory: Path, found: RunProgress) -> tuple[State, bool | None]:
    """The state of a run, and whether a command of this machine is working on it (None where that is not known)."""
    from unlearnbench.io.folder_lock import in_use

    if (directory / "result.json").is_file() and all(stage.done >= 1 for stage in found.stages):
        return "finished", None
    working = in_use(directory)
    return ("stopped" if working is False else "in progress"), working


def _list(runs: dict[Path, RunProgress], directory: Path, as_json: bool) -> None:
    """One line per run: its folder, what it is, its state, and how far its latest stage is over all seeds."""
    from unlearnbench.reports.formatting import plain, plural

    rows: list[dict[str, Any]] = []
    for folder, found in runs.items():
        state, _ = _state(folder, found)
        stage = found.stages[-1].stage if found.stages else None
        done = sum(of.done for of in found.stages if of.stage == stage) / len(found.seeds) if found.seeds else 0.0
        told = {"run": str(folder), "what": found.what, "seeds": list(found.seeds)}
        rows.append(told | {"state": state, "stage": stage, "done": done})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    names = [plain(folder.relative_to(directory).as_posix()) for folder in runs]
    width = max(map(len, names))
    for name, row in zip(names, rows, strict=True):
        at = "" if row["state"] == "finished" or row["stage"] is None else f", {row['stage']} {100 * row['done']:.0f} %"
        click.echo(f"{name:<{width}}  {plain(row['what'])}, {plural(len(row['seeds']), 'seed')}: {row['state']}{at}")


def _described(stage: StageProgress) -> dict[str, Any]:
    """A stage with the seconds that it still takes at the pace so far; None where it is not known."""
    spent = stage.seen - stage.began
    left = spent * (1 - stage.done) / stage.done if 0 < stage.done < 1 and spent > 1 else None
    told = {name: getattr(stage, name) for name in ("seed", "stage", "done", "rate", "step", "reward")}
    return told | {"seconds_left": 0.0 if stage.done >= 1 else left, "seconds_silent": time.time() - stage.seen}


def _show(
    directory: Path,
    found: RunProgress,
    stages: list[dict[str, Any]],
    curves: dict[str, list[float]],
    state: State,
) -> None:
    from unlearnbench.reports.formatting import duration, plain, plural

    finished = state == "finished"
    click.echo(f"{plain(found.what)}, {plural(len(found.seeds), 'seed')}: {state}")
    for stage in stages:
        if finished and stage["stage"] != "train":
            continue
        name = stage["stage"] if stage["stage"] == "similarity" else f"seed {stage['seed']} {stage['stage']}"
        line = f"  {name:<18} {100 * stage['done']:3.0f} %"
        if stage["step"] is not None:
            line += f"  step {stage['step']}, reward {stage['reward'] or 0.0:.3f}"
        if stage["done"] < 1 and state == "in progress":
            if stage["rate"]:
                unit = "steps" if stage["stage"] == "train" else "rollouts"
                line += f", {stage['rate']:.1f} {unit}/s"
            if stage["seconds_left"] is not None:
                line += f", about {duration(stage['seconds_left'])} left"
            if stage["seconds_silent"] > SILENT:
                line += f"; silent for {duration(stage['seconds_silent'])}: is its command still running?"
        click.echo(line)
    for seed, rewards in curves.items():
        if rewards:
            click.echo(f"  seed {seed} reward     {_sparkline(rewards)}  {rewards[0]:.2f} to {rewards[-1]:.2f}")
    if state == "stopped":
        from unlearnbench.harness.progress_file import restarts

        again = restarts(directory)
        click.echo(
            "No command of this machine is working on it; rerun the one that began it"
            + (", and it resumes." if again is None else f": {again}.")
        )
    if finished:
        click.echo(f"report: {directory / 'report.html'}")


def _rewards(folder: Path) -> list[float]:
    """Mean reward in at most POINTS windows of the steps so far; a line that is being written is left out."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    content = path.read_bytes()
    values = []
    for row, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            values.append(float(json.loads(line).get("reward") or 0.0))
            round(values[-1])  # fails for NaN and infinity, which a curve cannot show
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(
                f"{path}, row {row}, field 'reward': a number was expected ({first_line(error)})"
            ) from error
    size = max(1, -(-len(values) // POINTS))
    return [sum(values[at : at + size]) / len(values[at : at + size]) for at in range(0, len(values), size)]


def _sparkline(values: list[float]) -> str:
    low, high = min(values), max(values)
    scale = (len(BLOCKS) - 1) / (high - low or 1)
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)
