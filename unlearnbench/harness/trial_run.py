"""A trial run: a few real steps of a method, and a small evaluation, before a whole run."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from unlearnbench.harness.training_jobs import Run, training_job
from unlearnbench.io import tables
from unlearnbench.methods import MethodSource
from unlearnbench.records import Record, Track
from unlearnbench.splits import Split, seal
from unlearnbench.splits.manifest import waits_for_policy
from unlearnbench.training.ledger import read_ledger, read_metrics
from unlearnbench.training.meter import flops
from unlearnbench.training.run_spec import Limits
from unlearnbench.verifier import Verifier
from unlearnbench.workers.executor import run_chains, run_job
from unlearnbench.workers.jobs import Compute, MeasureTask, Watch, measure_job
from unlearnbench.workers.messages import Event, Progress, Trained

PATIENCE = 600.0
"""Seconds without a report after which a trial is ended."""
PROBE_FLOPS = 1e11
"""What the steps of a probe may cost on CPU: seconds on a core. On an accelerator ACCELERATED times as much."""
ACCELERATED = 300
PROBE_STEPS = 10
PROBE_ROLLOUTS = 2048  # of an evaluation


class Tokens(Record):
    generated: int
    prefilled: int
    forward: int
    trained: int

    def flops(self, parameters: int) -> int:
        """Their cost for a policy with this many parameters."""
        return flops(parameters, self.generated + self.prefilled + self.forward, self.trained)

    def times(self, factor: float) -> Tokens:
        return Tokens(**{name: round(value * factor) for name, value in self.model_dump().items()})


@dataclass(frozen=True)
class Probe:
    """A few real steps of the method and a small evaluation, in worker processes as `eval` starts them."""

    steps: int
    prompts: int
    tokens: Tokens
    flops: int
    rollouts: int
    parameters: int | None
    step_seconds: float | None
    start_seconds: float
    rollouts_a_second: float
    evaluated_tokens: float  # generated, a rollout
    bytes_a_rollout: float  # of the training ledger
    bytes_an_evaluated: float
    memory: int
    core_share: float
    """CPU seconds per second of the workers: well below 1 where other work keeps the cores busy."""


def affordable(split: Split) -> int:
    """Prompts of a step that can be tried here in seconds; 0 if not even one, or if the policy is not on this disk."""
    if waits_for_policy(split.path) or not isinstance(split.policy_path, Path):
        return 0
    recipe, size = split.config.recipe, split.config.base_policy.parameters
    if split.config.budget is not None:
        step = split.config.budget.flops_1x / recipe.steps
    elif size is not None:
        # every token is generated, and at most read once more and trained on
        step = 10.0 * size * recipe.prompts_per_step * recipe.group_size * recipe.max_tokens
    else:
        return 0
    most = PROBE_FLOPS * (ACCELERATED if accelerated() else 1)
    return min(recipe.prompts_per_step, int(recipe.prompts_per_step * most / (PROBE_STEPS * max(step, 1.0))))


def probe(
    split: Split,
    source: MethodSource,
    changes: Mapping[str, Any],
    samples: int,
    prompts: int,
    progress: Callable[[float], None],
) -> Probe:
    """Try `prompts` prompts per step. Raises MethodError as the method's own steps do; leaves nothing behind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began, spent, times = time.monotonic(), _seconds_of_children(), list[float]()

        def watch(event: Event) -> None:
            if isinstance(event, Progress):
                times.append(time.monotonic())
                progress(min(1.0, len(times) / (PROBE_STEPS + 1)))

        recipe = {"prompts_per_step": prompts, "checkpoint_every": PROBE_STEPS}
        done = trial(split, source, "plan", folder, PROBE_STEPS, changes, recipe, watch)
        out = folder / "evaluation.parquet"
        problems = split.problems("eval")[:: max(1, len(split.items) * samples // PROBE_ROLLOUTS)]
        task = MeasureTask(out=str(out), root="plan/measure", problems=problems, key="item_id", n=samples)
        log = folder / "log.txt"
        measured = measure_job(split, split.policy_path, [task], log, Compute(), seed=1, stage="measure")
        last = [event for event in run_job(measured) if isinstance(event, Progress)][-1]
        rows = tables.read_parquet(out)
        drawn, steps = done.verifier_calls, done.trained.steps
        return Probe(
            steps=steps,
            prompts=prompts,
            tokens=done.tokens,
            flops=done.tokens.flops(done.trained.parameters),
            rollouts=drawn,
            parameters=done.trained.parameters,
            step_seconds=(times[steps - 1] - times[0]) / (steps - 1) if steps > 1 else None,
            start_seconds=times[0] - began,
            rollouts_a_second=last.rate,
            evaluated_tokens=float(pc.mean(pc.list_value_length(rows["token_ids"])).as_py()),
            bytes_a_rollout=_size(folder / "run" / "rollouts") / drawn if drawn else 0.0,
            bytes_an_evaluated=out.stat().st_size / rows.num_rows,
            memory=_peak_of_children(),
            core_share=min(1.0, (_seconds_of_children() - spent) / (time.monotonic() - began)),
        )


@dataclass(frozen=True)
class Trial:
    """A method tried for some steps: what its process said, and what the judge noted."""

    name: str
    trained: Trained
    track: Track
    reads: Sequence[str]
    verifier_calls: int
    ungradable: int
    rewards: tuple[float, float] | None = None
    """The smallest and the largest reward of a rollout; None where nothing was drawn."""
    moved: bool = True
    """Whether some update had a gradient other than 0."""

    @property
    def tokens(self) -> Tokens:
        done = self.trained
        return Tokens(generated=done.generated, prefilled=done.prefilled, forward=done.forward, trained=done.trained)

    @property
    def why_untrained(self) -> str | None:
        """The sentence for a method that trains on nothing by mistake; None for one that trains, or means not to."""
        done = self.trained
        if self.moved or not {"train", "inject", "augment", "policy_loss", "auxiliary_loss"}.isdisjoint(done.hooks):
            return None
        if done.settings.get("group_size") == 1:
            return "group_size is 1, and the advantage of a single rollout over its group's mean is 0; set 2 or more"
        if self.rewards is not None and self.rewards[0] == self.rewards[1]:
            return (
                f"all {self.verifier_calls} rollouts had the same reward, {self.rewards[0]:g}, so that no group has an "
                "advantage; return different rewards for better and worse rollouts"
            )
        return "no group was trained on; see what keep and advantages return"

    def summary(self) -> dict[str, Any]:
        """What `check --json` prints."""
        cost = {**self.tokens.model_dump(), "verifier_calls": self.verifier_calls, "ungradable": self.ungradable}
        done = self.trained
        return {
            "name": self.name,
            "class": done.class_name,
            "declared_track": done.declared_track,
            "track": self.track,
            "reads": list(self.reads),
            "hooks": list(done.hooks),
            "not_hooks": dict(done.not_hooks),
            "unread_settings": dict(done.unread),
            "untrained": self.why_untrained,
            "settings": dict(done.settings),
            "steps": done.steps,
            "cost": {**cost, "flops": self.tokens.flops(done.parameters)},
        }


def trial(
    split: Split,
    source: MethodSource,
    purpose: str,
    folder: Path,
    steps: int,
    changes: Mapping[str, Any],
    recipe: Mapping[str, Any],
    watch: Watch | None = None,
    compute: Compute | None = None,
) -> Trial:
    """Train a method for a few steps in `folder`/run. Raises MethodError as the method's own steps do."""
    run = Run(
        split=split,
        sealed=seal(split, folder / "sealed"),
        method=source,
        purpose=purpose,
        fingerprint=purpose,
        limits=Limits(None, steps),
        compute=compute or Compute(patience=PATIENCE),
        changes=changes,
        recipe=recipe,
    )
    place, found = folder / "run", list[Trained]()

    def heard(event: Event) -> None:
        if isinstance(event, Trained):
            found.append(event)
        if watch is not None:
            watch(event)

    with Verifier(rule=split.config.protocol.verifier_rule) as verifier:
        run_chains([[training_job(run, 1, place, verifier)]], 1, heard)
    method, cost = (json.loads((place / name).read_text()) for name in ("method.json", "cost.json"))
    rewards = read_ledger(place, ("reward",))["reward"]
    span = pc.min_max(rewards).as_py()
    return Trial(
        source.name,
        found[-1],
        method["track"],
        method["reads"],
        cost["verifier_calls"],
        cost["ungradable"],
        rewards=(span["min"], span["max"]) if len(rewards) else None,
        moved=any(line.get("gradient_norm") for line in read_metrics(place)),
    )


def accelerated() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _seconds_of_children() -> float:
    """CPU seconds of all workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_of_children() -> int:
    """Bytes that the largest worker so far held at its peak."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
