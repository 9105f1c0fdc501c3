"""The worker process: reads one JSON job, does it, reports JSON lines. See `jobs.py` for the other end."""

from __future__ import annotations

import gc
import json
import os
import platform
import queue
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

Report = Callable[[Mapping[str, Any]], None]
_MEMORY = (
    "out of memory; use fewer --workers, or let training take less (--trainer, docs/guide/at-scale.md), then run it "
    "again: it resumes"
)
_ANSWERS: queue.SimpleQueue[str] = queue.SimpleQueue()


def main() -> int:
    """Do the job on standard input's first line. Returns the exit status."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a method prints goes to the log, not into the reports
    job = json.loads(sys.stdin.readline())

    def report(event: Mapping[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")

    kinds = {"train": train, "measure": measure, "check": check, "gather": diagnose, "gradients": diagnose}
    from unlearnbench.errors import UnlearnBenchError, out_of_memory, peer_lost

    try:
        if job["kind"] == "train" or job["kind"] == "check":
            from unlearnbench.workers.label_hiding import hide

            needed = [Path(job[name]) for name in ("out", "start") if job[name]]
            sealed_by = hide(Path(job["hide"]), *needed)  # before any thread starts
            job["sealed_by"] = sealed_by
        _leave_with_parent()
        _import_all()
        kinds[job["kind"]](job, report)
        report({"done": True})
    except UnlearnBenchError as problem:
        return _fail(report, type(problem).__name__, str(problem))
    except OSError as problem:
        what = f"{problem.strerror or problem} ({problem.filename or job['kind']})"
        return _fail(report, "RunError", f"{what}; mend that and run the same command again: it resumes")
    except KeyboardInterrupt:
        return 1
    except BaseException as problem:  # a thread waits on standard input: nothing may end in the interpreter's own exit
        if out_of_memory(problem):
            return _fail(report, "RunError", _MEMORY)
        if peer_lost(problem):
            report({"lost": True})
            return 1
        told = f"unexpected {type(problem).__name__}: {problem}; the traceback is in the run's log.txt"
        return _fail(report, "RunError", told)
    return 0


def _fail(report: Report, kind: str, message: str) -> int:
    """Report first: where the disk is full, the log cannot take the traceback."""
    report({"error": {"type": kind, "message": message}})
    with suppress(OSError):
        traceback.print_exc()
        sys.stderr.flush()
    return 1


def _leave_with_parent() -> None:
    """A worker whose parent was killed reads the end of its input, and ends at once: no orphans."""

    def watch() -> None:
        for line in sys.stdin:
            _ANSWERS.put(line)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _import_all() -> None:
    """Import what every job computes with, and look for no garbage meanwhile: there is none, but much to look through.

    Nor is there ever among what is imported, so later searches leave it out.
    """
    gc.disable()
    import_module("transformers.modeling_utils")
    gc.freeze()
    gc.enable()


def train(job: Mapping[str, Any], report: Report) -> None:
    """One seed of one method: train within the budget, leave a finished checkpoint."""
    training, settings = _training(job, report)
    folder = Path(job["out"])
    if not training.resume():
        training.hooks.call("train", training)
        if training.processes.first:
            shutil.rmtree(folder / "evaluation", ignore_errors=True)  # nothing a method left there is measured
        training.save(finished=True)
    if not training.processes.first:
        return
    from unlearnbench.io.files import write_json
    from unlearnbench.method import overridden

    write_json(
        folder / "method.json",
        {
            "name": job["method"]["name"],
            "class": type(training.method).__name__,
            "source_hash": job["source_hash"],
            "track": training.services.track(training.method.track),
            "reads": sorted(training.services.reads),
            "settings": settings,
            "hooks": overridden(type(training.method)),
            "start": type(training.method).start,
        },
    )
    write_json(
        folder / "cost.json",
        {
            "generated_tokens": training.meter.generated,
            "trained_tokens": training.meter.trained,
            "forward_tokens": training.meter.prefilled + training.meter.forward,
            "flops": training.meter.flops,
            "verifier_calls": training.meter.verifier_calls,
            "ungradable": training.meter.ungradable,
            "seconds": round(training.seconds, 3),
            "device": _device(),
        },
    )
    told = {"trainer": job["trainer"]} if job.get("trainer") else {}
    write_json(folder / "environment.json", {**environment(), "sealed_by": job["sealed_by"], **told})


def check(job: Mapping[str, Any], report: Report) -> None:
    """Two tiny steps of a method: what it overrides, reads and costs."""
    from unlearnbench.method import overridden, strays

    training, settings = _training(job, report)
    training.resume()
    training.hooks.call("train", training)
    training.save(finished=True)
    method = type(training.method)
    report(
        {
            "checked": {
                "name": job["method"]["name"],
                "class": method.__name__,
                "declared_track": method.track,
                "track": training.services.track(method.track),
                "reads": sorted(training.services.reads),
                "hooks": overridden(method),
                "not_hooks": strays(method),
                "settings": settings,
                "steps": training.step,
                "cost": {**training.meter.state(), "flops": training.meter.flops},
            }
        }
    )


def _training(job: Mapping[str, Any], report: Report) -> Any:
    """Build the run that a job describes; returns it with the method's settings as plain values."""
    from unlearnbench.methods import MethodSource, load
    from unlearnbench.policies.samplers.engine import Engine
    from unlearnbench.records import Recipe
    from unlearnbench.splits import load_split
    from unlearnbench.training.build import begin
    from unlearnbench.training.data_parallel import join
    from unlearnbench.training.hooks import Hooks
    from unlearnbench.training.loop import Limits, Training
    from unlearnbench.training.options import TrainerOptions
    from unlearnbench.verifier import Verifier

    _set_threads()
    processes = join(job["processes"])
    split = load_split(job["sealed"])
    source = MethodSource(**job["method"])
    cls = load(source)
    recipe = Recipe.model_validate({**split.config.recipe.model_dump(), **job.get("recipe", {})})
    settings = _settings(cls, recipe, job["changes"])
    method = _made(cls, settings, Hooks)
    config = split.config
    start: Path | str = split.policy_path
    revision = config.base_policy.revision
    if job.get("start") or cls.start != "base":
        start, revision = Path(job.get("start") or _ask(report, "base")), None
    options = TrainerOptions.model_validate(job.get("trainer", {}))
    policy, reference, sampler = begin(
        start,
        method.settings,
        options,
        processes,
        Engine(**job.get("sampler", {})),
        revision=revision,
        prompt_format=config.prompt_format,
        root=job["root"],
    )
    training = Training(
        method,
        split.items,
        policy,
        reference,
        sampler,
        Verifier(rule=config.protocol.verifier_rule),
        root=job["root"],
        seed=job["seed"],
        limits=Limits(job["flops"], job["steps"]),
        folder=Path(job["out"]),
        fingerprint=job["fingerprint"],
        knows_traces=config.protocol.valid_trace == "solution",
        ask=partial(_ask, report),
        processes=processes,
        progress=_progress(job, report),
        options=options,
    )
    if cls.start != "base":
        training.services.reads.add("base")
    return training, settings.model_dump(mode="json")


def _progress(job: Mapping[str, Any], report: Report) -> Callable[[int, Mapping[str, Any], Any], None]:
    began = time.monotonic()

    def progress(step: int, metrics: Mapping[str, Any], meter: Any) -> None:
        done = meter.flops / meter.limit if meter.limit else step / max(1, job["steps"] or 1)
        report(
            {
                "progress": {
                    "seed": job["seed"],
                    "stage": "train",
                    "done": min(1.0, done),
                    "step": step,
                    "reward": metrics["reward"],
                    "rate": step / max(1e-9, time.monotonic() - began),
                }
            }
        )

    return progress


def _settings(cls: type[Any], recipe: Any, changes: Mapping[str, Any]) -> Any:
    """A method's settings. Raises MethodError naming what `--set` may be given."""
    from pydantic import ValidationError

    from unlearnbench.errors import MethodError
    from unlearnbench.method import settings_of

    try:
        return settings_of(cls, recipe, changes)
    except ValidationError as problem:
        first = problem.errors()[0]
        names = ", ".join(sorted(set(cls.Settings.model_fields) - set(type(recipe).model_fields))) or "none of its own"
        why = "there is no such setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise MethodError(
            f"--set {'.'.join(str(part) for part in first['loc'])}: {why}; {cls.__name__} takes {names}, and the "
            "recipe's fields (`unlearnbench splits show SPLIT` prints them)"
        ) from problem


def _ask(report: Report, name: str) -> Any:
    """What the parent process answers (`privileges.Privileges`). Raises MethodError where it has no answer."""
    from unlearnbench.errors import MethodError

    report({"ask": name})
    reply = json.loads(_ANSWERS.get())
    if "error" in reply:
        raise MethodError(reply["error"])
    return reply["reply"]


def _made(cls: type[Any], settings: Any, hooks: Any) -> Any:
    from unlearnbench.errors import MethodError

    try:
        return cls(settings)
    except (Exception, SystemExit) as problem:
        raise MethodError(
            f"{cls.__name__}(settings) raised {type(problem).__name__}: {problem}; mend its __init__ and try again."
        ) from problem


def measure(job: Mapping[str, Any], report: Report) -> None:
    """Measure a saved policy, task by task, as far as they fall to this process; one whose file is there is done."""
    from unlearnbench.errors import RunError
    from unlearnbench.io.tables import write_parquet
    from unlearnbench.policies.policy import load_policy
    from unlearnbench.policies.samplers.engine import Engine
    from unlearnbench.records import Sampling
    from unlearnbench.verifier import Verifier
    from unlearnbench.workers.measure import Problem
    from unlearnbench.workers.measure import measure as draw
    from unlearnbench.workers.measure_shards import is_measured

    size = job.get("processes", 1)
    rank = int(os.environ["RANK"]) if size > 1 else 0
    tasks = [task for task in job["tasks"][rank::size] if not is_measured(task)]
    if not tasks:
        return
    _set_threads()
    if size > 1:
        _take_devices()
    if (state := Path(job["policy"]) / "state.json").is_file() and not json.loads(state.read_text())["finished"]:
        raise RunError(f"{job['policy']} is the checkpoint of a run that has not ended; finish that run first")
    engine = Engine(**job.get("sampler", {}))
    device = None if engine.name == "transformers" else "cpu"  # another engine has weights of its own on the GPU
    policy = load_policy(job["policy"], revision=job["revision"], prompt_format=job["prompt_format"], device=device)
    sampler = engine.sampler(policy, training=False)
    total = sum(len(task["problems"]) * task["n"] for task in tasks)
    done = 0
    began = time.monotonic()

    def progress(rollouts: int) -> None:
        nonlocal done
        done += rollouts
        rate = size * done / max(1e-9, time.monotonic() - began)  # as if the others were as quick
        report({"progress": {"seed": job["seed"], "stage": job["stage"], "done": done / total, "rate": rate}})

    with Verifier(rule=job["rule"]) as verifier:
        for task in tasks:
            rows = draw(
                [Problem(*problem) for problem in task["problems"]],
                task["n"],
                policy=policy,
                sampler=sampler,
                verifier=verifier,
                sampling=Sampling(**job["sampling"]),
                root=task["root"],
                key=task["key"],
                distinct=task["distinct"],
                progress=progress,
            )
            write_parquet(Path(task["out"]), rows)


def diagnose(job: Mapping[str, Any], report: Report) -> None:
    """A share of a diagnosis: rollouts of some chunks of items, or gradients of some blocks of them."""
    from unlearnbench.diagnosis import jobs

    _set_threads()
    act = jobs.gather if job["kind"] == "gather" else jobs.fill
    act(jobs.load(job), job, lambda items: report({"items": items}))


def environment() -> dict[str, Any]:
    """Versions and machine of a run, for environment.json."""
    from importlib.metadata import version

    import torch

    import unlearnbench

    packages = ("torch", "transformers", "numpy", "math-verify", "sympy", "datasets", "pyarrow")
    engine = {"vllm": sys.modules["vllm"].__version__} if "vllm" in sys.modules else {}
    return {
        "unlearnbench": unlearnbench.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in packages} | engine,
    }


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} thread a process)"


def _take_devices() -> None:
    """Leave this process none but its share of the GPUs here, before one is used: an engine takes the first it sees."""
    import torch

    here, of = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    count = torch.cuda.device_count()
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
        each = max(1, count // of)
        first = here * each % count
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[first : first + each])


def _set_threads() -> None:
    """One thread a process on CPU, so that sums, and with them labels and scores, do not depend on its size."""
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Not sys.exit: threads that a method started could hang it.
    os._exit(status)
