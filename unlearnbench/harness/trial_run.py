"""A probe: a few real steps of a method and a small evaluation, tried on this machine before the whole is paid for."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from unlearnbench.io import tables
from unlearnbench.methods import MethodSource
from unlearnbench.records import Record
from unlearnbench.splits import Split, seal
from unlearnbench.splits.manifest import waits_for_policy
from unlearnbench.workers.jobs import measure_job, measure_task, run_chains, train_job
from unlearnbench.workers.worker_group import Event

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
        """PROTOCOL 3.10."""
        return 2 * parameters * (self.generated + self.prefilled + self.forward) + 6 * parameters * self.trained

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
    """CPU seconds a second of the workers: well below 1 where other work keeps the cores busy."""


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
    """Try `prompts` prompts a step. Raises MethodError as the method's own steps do; leaves nothing behind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = train_job(
            split,
            seal(split, folder / "sealed"),
            source,
            1,
            "plan",
            folder / "run",
            fingerprint="plan",
            flops=None,
            steps=PROBE_STEPS,
            changes=changes,
            kind="check",
            recipe={"prompts_per_step": prompts, "checkpoint_every": PROBE_STEPS},
        )
        began, spent, times, last = time.monotonic(), _seconds_of_children(), [], dict[str, Any]()

        def heard(event: Event) -> None:
            if "progress" in event:
                times.append(time.monotonic())
                progress(min(1.0, len(times) / (PROBE_STEPS + 1)))
            last.update(event)

        run_chains([[job]], 1, heard)
        found = last["checked"]
        cost = found["cost"]
        out = folder / "evaluation.parquet"
        items = split.items[:: max(1, len(split.items) * samples // PROBE_ROLLOUTS)]
        problems = [(item.item_id, item.prompt, item.answer) for item in items]
        task = measure_task(out, "plan/measure", problems, "item_id", samples)
        run_chains(
            [[measure_job(split, split.policy_path, [task], folder / "log.txt", seed=1, stage="measure")]], 1, heard
        )
        rows = tables.read_parquet(out)
        drawn = cost["verifier_calls"]
        tokens = Tokens(**{name: cost[name] for name in ("generated", "prefilled", "forward", "trained")})
        paid = tokens.flops(1)
        return Probe(
            steps=found["steps"],
            prompts=prompts,
            tokens=tokens,
            flops=cost["flops"],
            rollouts=drawn,
            parameters=round(cost["flops"] / paid) if paid else None,
            step_seconds=(times[found["steps"] - 1] - times[0]) / (found["steps"] - 1) if found["steps"] > 1 else None,
            start_seconds=times[0] - began,
            rollouts_a_second=float(last["progress"]["rate"]),
            evaluated_tokens=float(pc.mean(pc.list_value_length(rows["token_ids"])).as_py()),
            bytes_a_rollout=_size(folder / "run" / "rollouts") / drawn if drawn else 0.0,
            bytes_an_evaluated=out.stat().st_size / rows.num_rows,
            memory=_peak_of_children(),
            core_share=min(1.0, (_seconds_of_children() - spent) / (time.monotonic() - began)),
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
