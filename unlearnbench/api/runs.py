"""Training, scoring and labelling from Python: `evaluate`, `score`, `check`, `plan`, `curate`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearnbench.api.arguments import multiple_of, named, shown_progress, split_of
from unlearnbench.records import Result
from unlearnbench.splits import Split

if TYPE_CHECKING:
    from unlearnbench.harness.plan import Planned
    from unlearnbench.method import Method
    from unlearnbench.workers.jobs import Compute, Watch


def evaluate(
    method: str | type[Method],
    split: str | Path | Split = "micro",
    seeds: int | Sequence[int] = 3,
    *,
    samples: int = 32,
    out: str | Path | None = None,
    budget: str | float = "1x",
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
    diagnose: bool = True,
    log_to: Sequence[str] = (),
    compute: Compute | None = None,
    progress: bool | Watch = True,
) -> Result:
    """Train a method on a split for every seed, evaluate what it left, and score it against the null control.

    Args:
        method: A built-in name, `path/to/file.py[:Class]`, `package.module:Class`, an entry point, or a subclass of
            `ub.Method`, also one that was defined in a notebook cell.
        split: A shipped split's name, a folder that holds split.yaml, or a `ub.Split`.
        seeds: How many seeds (1 to n), or the seeds themselves.
        samples: Rollouts per item and seed after training; at least 32 for a score.
        out: The run's folder; default `runs/<split>/<method>-<hash>-<budget>`. A folder that holds part of the same
            run is resumed.
        budget: Multiple of the reference runs' cost, such as "1x" or 0.5.
        settings: Settings of the method that differ from its own.
        quick: One seed, few steps and samples: a smoke test, not comparable.
        diagnose: Whether to compare items' gradients at start and end (about a minute on micro; not with `quick`).
        log_to: Trackers that get the training curves: "tensorboard", "wandb", "trackio", "mlflow".
        compute: How this machine works on it (`unlearnbench.workers.jobs.Compute`).
        progress: Whether to show progress, or a function that is given the events.

    Returns:
        The scored result. `result.conversion.gain` and `.interval_families` are the headline; `result.groups`,
        `.frontier`, `.retention`, `.cost` and `.similarity` stand beside it. `print(result)` is the sentence to quote,
        `result.to_frame()` a pandas frame of all items, `result.plot()` the gains as a figure.

    Raises:
        MethodError: The method cannot be loaded, or one of its steps fails.
        SplitError: There is no such split, or it is malformed.
        RunError: The folder holds another run, or a setting is impossible.

    Example:
        >>> result = ub.evaluate("grpo", quick=True)
        >>> print(result)
    """
    from unlearnbench.diagnosis import evaluate as whole
    from unlearnbench.harness.trackers import Trackers

    trackers, given = Trackers(log_to), {"samples": samples, "settings": settings, "compute": compute}
    with named(method) as name, shown_progress(progress) as shown:
        show, place = trackers.beside(*shown)
        done = whole.evaluate(
            name,
            split,
            seeds,
            diagnose=diagnose,
            quick=quick,
            progress=show,
            placed=place,
            out=out,
            budget=multiple_of(budget),
            **given,
        )
        trackers.finish(done.result)
    return done.result.in_folder(done.folder)


def score(
    files: str | Path | Sequence[str | Path],
    split: str | Path | Split = "micro",
    *,
    out: str | Path,
    seeds: Sequence[int] | None = None,
    columns: Mapping[str, str] | None = None,
    step: int | None = None,
    partial: bool = False,
    workers: int | None = None,
) -> Result:
    """Judge and score rollouts that were made anywhere.

    Args:
        files: One file or several (.jsonl, .parquet, or logs of lm-eval-harness and inspect_ai) with `item_id` and
            `completion`, and `seed` if there are several; together they are one set.
        split: The split whose items they answer.
        out: The folder for result.json, counts, verdicts and report.html.
        seeds: The training run of each file that names none.
        columns: A file's own columns for those that are read, such as {"completion": "output"}.
        step: Of a trainer's log, the step whose rollouts are scored.
        partial: Score what is there though items are missing; the result is then not comparable.
        workers: Processes that judge; default one per core.

    Returns:
        The scored result, of track `undeclared`.

    Raises:
        DataError: A row is malformed, or an item is missing; names file, row and field.
        RunError: `out` holds another run.

    Example:
        >>> ub.score("rollouts.jsonl", split="micro", out="runs/scored").conversion.gain
    """
    from unlearnbench.harness.rollouts.files import Reading
    from unlearnbench.harness.rollouts.score import score_rollouts

    reading = Reading(columns=dict(columns or {}), step=step)
    sources = [files] if isinstance(files, str | Path) else list(files)
    result = score_rollouts(sources, split, out, seeds=seeds, reading=reading, partial=partial, workers=workers)
    return result.in_folder(Path(out))


def check(
    method: str | type[Method],
    split: str | Path | Split = "micro",
    *,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a method for two tiny steps: seconds, before minutes are spent.

    Args:
        method: As `evaluate` takes it.
        split: As `evaluate` takes it.
        settings: Settings of the method that differ from its own.

    Returns:
        What `unlearnbench check --json` prints: `class`, `track`, `declared_track`, `reads` (what it asked the judge
        for), `hooks` (those it overrides), `not_hooks` (public methods that are never called, with the nearest hook),
        `settings`, `steps`, and `cost` in tokens and FLOPs.

    Raises:
        MethodError: The method cannot be loaded, or a step fails; names the line of its file.

    Example:
        >>> ub.check(MyAlgo)["hooks"]
        ['advantages']
    """
    from unlearnbench.cli.check import TINY
    from unlearnbench.harness.trial_run import trial
    from unlearnbench.methods import locate

    with named(method) as name, tempfile.TemporaryDirectory() as folder:
        return trial(split_of(split), locate(name), "check", Path(folder), 2, dict(settings or {}), TINY).summary()


def plan(
    method: str | type[Method] = "grpo",
    split: str | Path | Split = "micro",
    *,
    seeds: int = 3,
    samples: int = 32,
    budget: str | float = "1x",
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    experiments: int | None = None,
) -> Planned:
    """What a run will cost and the smallest gain it can detect, before any of it is paid for.

    Args:
        method: As `evaluate` takes it.
        split: As `evaluate` takes it.
        seeds: Number of seeds.
        samples: Rollouts per item and seed.
        budget: Multiple of the reference runs' cost, such as "1x".
        settings: Settings of the method that differ from its own.
        device: Time by the published peak of a device such as "H100"; default: some steps are tried here.
        experiments: Simulated experiments behind the smallest gain; default as many as take seconds.

    Returns:
        `training` and `evaluation` (tokens and FLOPs per seed), `timing`, `space`, and `power`, whose `detectable`
        lists the smallest gain for each kind of effect and interval.

    Raises:
        RunError: The device is unknown, or the size of the policy is.
        MethodError: As the method's own steps do.

    Example:
        >>> ub.plan(seeds=10).power.detectable[1].gain
    """
    from unlearnbench.harness.plan import plan as run

    with named(method) as name:
        return run(
            split_of(split),
            name,
            seeds=seeds,
            samples=samples,
            multiple=multiple_of(budget),
            settings=settings,
            device=device,
            experiments=experiments,
        )


def curate(
    config: str | Path,
    out: str | Path,
    *,
    rule: Literal["protocol", "paper"] = "protocol",
    work: str | Path | None = None,
    compute: Compute | None = None,
    progress: bool | Watch = True,
) -> Split:
    """Measure which items of a pool a policy can learn, and write the labelled split.

    Args:
        config: split.yaml of the pool, beside its files (`unlearnbench new-split` writes one).
        out: The folder of the finished split.
        rule: The labelling rule: this project's, or the paper's released one.
        work: Where intermediate files go; default `<out>/.curation`. An interrupted curation resumes there.
        compute: How this machine works on it.
        progress: Whether to show progress, or a function that is given the events.

    Returns:
        The split. It has no null control yet: `evaluate("grpo", split, 10, out=split.path / "null_control/1x")`.

    Raises:
        SplitError: The pool is malformed.
        DataError: A file of it is; names file, row and field.
        RunError: `work` belongs to another configuration.

    Example:
        >>> ub.curate("mine/split.yaml", "mine-labelled")["unlearnable"]
    """
    from unlearnbench.curation.curate import curate as run

    with shown_progress(progress) as (show, _):
        return run(config, out, rule=rule, work=work, compute=compute, progress=show)
