"""The jobs that worker processes do: what each is given, as a record, and how it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from unlearnbench.methods import MethodSource
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.records import Record, Rule, Sampling
from unlearnbench.splits import Split
from unlearnbench.training.options import DEFAULT, TrainerOptions
from unlearnbench.training.run_spec import Limits
from unlearnbench.workers.channel import Arrays
from unlearnbench.workers.isolation import Isolation
from unlearnbench.workers.messages import Event, Reply, Request, Trained, Work

Problem = tuple[str, str, str]
"""Id, prompt and gold answer."""


@dataclass(frozen=True)
class Compute:
    """How this machine computes a run: no result depends on it but by rounding, and on the engine by its draws."""

    workers: int | None = None
    """Jobs at once; None: as many as the cores allow for."""
    processes: int = 1
    """Processes that train a seed together (data-parallel), and share out its measuring."""
    engine: Engine = TRANSFORMERS
    trainer: TrainerOptions = DEFAULT
    patience: float | None = 1800.0
    """Seconds of silence after which a training process is ended, as one that hangs; None waits for ever."""
    ray: str | None = None
    """Address of the Ray cluster that runs the jobs, `local` for one that is started here; None for this machine."""


class TrainJob(Work):
    """Train one seed of a method, in a process that has prompts and no answers."""

    sealed: str
    """Folder of the sealed split: pool, recipe, protocol, base policy."""
    out: str
    """Folder that the process may write to; its checkpoints go there."""
    method: MethodSource
    changes: Mapping[str, Any] = {}
    """Settings of the method that differ from its own."""
    recipe: Mapping[str, Any] = {}
    """Fields of the recipe that differ from the split's."""
    seed: int
    root: str
    """Names the random streams."""
    limits: Limits
    start: str | None = None
    """Folder of the policy to start from, where it is not the split's base."""
    fingerprint: str
    search: tuple[str, ...] = ()
    """Folders in which the method's own imports are looked for, after all others."""
    processes: int = Field(default=1, ge=1)
    engine: Engine = TRANSFORMERS
    trainer: TrainerOptions = DEFAULT


class MeasureTask(Record):
    """n rollouts of each problem, drawn from the streams under `root` and judged, written to the file `out`."""

    out: str
    root: str
    problems: Sequence[Problem]
    key: Literal["item_id", "twin_id"]
    n: int = Field(ge=1)
    distinct: bool = False
    """One row per different completion of a problem, with its count, in place of one per rollout."""


class MeasureJob(Work):
    """Measure one saved policy on the problems of each task, which the processes of the job share out."""

    policy: str
    revision: str | None
    prompt_format: Literal["raw", "chat"]
    rule: Rule
    sampling: Sampling
    seed: int
    stage: str
    tasks: Sequence[MeasureTask]
    processes: int = Field(default=1, ge=1)
    engine: Engine = TRANSFORMERS


class JudgeOfJob(Protocol):
    """The judge's side of a training job (`harness.judge.Judge`)."""

    def begin(self, clock: Callable[[], float | None]) -> None:
        """The processes of the job are about to start; `clock` gives the processor seconds that they have used."""

    def answer(self, request: Request, arrays: Arrays) -> Reply:
        """What a training process is answered."""

    def finish(self, trained: Trained, cpu_seconds: float) -> None:
        """All processes have ended, having used `cpu_seconds`: take over the weights, write what is known."""

    @property
    def finished(self) -> bool:
        """Whether an earlier command has trained the run to its end."""


@dataclass(frozen=True)
class Job:
    """One piece of work, and how it is run."""

    function: str
    """`module:function` that does it, called with the work and a link to the harness."""
    work: Work
    label: str
    log: Path
    """Takes what the processes print."""
    processes: int = 1
    patience: float | None = None
    judge: JudgeOfJob | None = None
    isolation: Isolation | None = None
    """What the processes may not see; None for our own code."""


Watch = Callable[[Event], None]
"""Takes events of worker processes as they come."""


def weights_hash(folder: Path) -> str:
    """sha256 over the safetensors of a policy folder: its revision. Of an adapter, its configuration scales them."""
    digest = hashlib.sha256()
    for path in (*sorted(folder.glob("*.safetensors")), *folder.glob("adapter_config.json")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stream_root(split: Split, purpose: str, seed: int) -> str:
    """Name of the random streams of one seed; streams of different purposes never meet (PROTOCOL 3.1)."""
    return f"{split.name}/{split.config.seed}/{purpose}/{seed}"


def measure_job(
    split: Split,
    policy: Path | str,
    tasks: Sequence[MeasureTask],
    log: Path,
    compute: Compute,
    *,
    seed: int,
    stage: str,
) -> Job:
    """Measure a saved policy of a split."""
    work = MeasureJob(
        policy=str(policy.resolve() if isinstance(policy, Path) else policy),
        revision=None if isinstance(policy, Path) else split.config.base_policy.revision,
        prompt_format=split.config.prompt_format,
        rule=split.config.protocol.verifier_rule,
        sampling=split.config.protocol.sampling,
        seed=seed,
        stage=stage,
        tasks=tasks,
        processes=compute.processes,
        engine=compute.engine,
    )
    label = f"the measuring ({stage}) of seed {seed}"
    return Job("unlearnbench.workers.measure_job:measure", work, label, log, compute.processes)
