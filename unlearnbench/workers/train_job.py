"""What a worker does to train one seed of a method: build the run, train within the limits, leave a checkpoint."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unlearnbench.errors import MethodError
from unlearnbench.method import PoolItem, overridden, settings_of, strays
from unlearnbench.methods import load
from unlearnbench.methods.source_reading import OTHER_NAMES, unread_settings
from unlearnbench.records import Recipe
from unlearnbench.splits.sealed import read_sealed
from unlearnbench.training.build import begin
from unlearnbench.training.data_parallel import join
from unlearnbench.training.loop import Training
from unlearnbench.training.meter import Meter
from unlearnbench.training.metrics import Metrics
from unlearnbench.training.run_spec import RunSpec
from unlearnbench.workers.environment import environment, one_thread
from unlearnbench.workers.jobs import TrainJob
from unlearnbench.workers.judge_client import JudgeClient
from unlearnbench.workers.messages import Progress, Trained
from unlearnbench.workers.worker import Link


def train(job: TrainJob, link: Link) -> None:
    """Train until a limit is reached, then report to the judge. Raises MethodError, RunError, PolicyError."""
    training, settings = _build(job, link)
    if not training.resume():
        training.hooks.call("train", training)
        training.save(finished=True)
    if not training.processes.first:
        return
    method, meter = type(training.method), training.meter
    options = job.trainer.model_dump(exclude_defaults=True)
    more = {"trainer": options} if options else {}
    link.report(
        Trained(
            class_name=method.__name__,
            declared_track=method.track,
            start=method.start,
            hooks=overridden(method),
            not_hooks=strays(method),
            unread=unread_settings(method),
            settings=settings,
            steps=training.state.step,
            seconds=round(training.state.seconds, 3),
            parameters=meter.parameters,
            generated=meter.generated,
            prefilled=meter.prefilled,
            forward=meter.forward,
            trained=meter.trained,
            environment={**environment(), **more},
        )
    )


def _build(job: TrainJob, link: Link) -> tuple[Training, dict[str, Any]]:
    """The run that a job describes, and its method's settings as plain values."""
    one_thread()
    processes = join(job.processes)
    sealed = read_sealed(Path(job.sealed))
    config = sealed.config
    sys.path += [folder for folder in job.search if folder not in sys.path]
    cls = load(job.method)
    recipe = Recipe.model_validate({**config.recipe.model_dump(), **job.recipe})
    settings = _settings(cls, recipe, job.changes)
    judge = JudgeClient(link)
    start: Path | str = sealed.policy
    revision = config.base_policy.revision
    if job.start or cls.start != "base":
        start, revision = Path(job.start or judge.ask("base")), None
    models = begin(
        start,
        settings,
        job.trainer,
        processes,
        job.engine,
        revision=revision,
        prompt_format=config.prompt_format,
        root=job.root,
    )
    training = Training(
        _made(cls, settings),
        [PoolItem(item_id, prompt) for item_id, prompt in sealed.pool],
        models,
        judge,
        RunSpec(job.root, job.seed, job.limits, Path(job.out), job.fingerprint),
        processes=processes,
        options=job.trainer,
        progress=_progress(job, link),
    )
    return training, settings.model_dump(mode="json")


def _progress(job: TrainJob, link: Link) -> Any:
    began = time.monotonic()

    def progress(step: int, metrics: Metrics, meter: Meter) -> None:
        done = meter.flops / meter.limit if meter.limit else step / max(1, job.limits.steps or 1)
        rate = step / max(1e-9, time.monotonic() - began)
        reward = metrics["reward"]
        link.report(Progress(seed=job.seed, stage="train", done=min(1.0, done), step=step, reward=reward, rate=rate))

    return progress


def _settings(cls: type[Any], recipe: Recipe, changes: Mapping[str, Any]) -> Any:
    """A method's settings. Raises MethodError naming what `--set` accepts."""
    try:
        return settings_of(cls, recipe, changes)
    except ValidationError as problem:
        first = problem.errors()[0]
        names = ", ".join(sorted(set(cls.Settings.model_fields) - set(type(recipe).model_fields))) or "none of its own"
        why, word = first["msg"], str(first["loc"][-1])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(word, cls.Settings.model_fields, 1)
            why = "there is no such setting"
            if meant := OTHER_NAMES.get(word):
                why += f" (the recipe calls it {meant})"
            elif near:
                why += f", did you mean {near[0]!r}?"
        raise MethodError(
            f"--set {'.'.join(str(part) for part in first['loc'])}: {why}; {cls.__name__} takes {names}, and the "
            "recipe's fields (`unlearnbench splits show SPLIT` prints them)"
        ) from problem


def _made(cls: type[Any], settings: Recipe) -> Any:
    try:
        return cls(settings)
    except (Exception, SystemExit) as problem:
        raise MethodError(
            f"{cls.__name__}(settings) raised {type(problem).__name__}: {problem}; fix its __init__ and try again."
        ) from problem
