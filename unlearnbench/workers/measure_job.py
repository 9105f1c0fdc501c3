"""What a worker does to measure a saved policy: rollouts of every problem, judged, in one file per task."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from unlearnbench.errors import RunError
from unlearnbench.io.tables import write_parquet
from unlearnbench.policies.policy import load_policy
from unlearnbench.verifier import Verifier
from unlearnbench.workers.environment import one_thread, take_devices
from unlearnbench.workers.jobs import MeasureJob
from unlearnbench.workers.measure import Problem
from unlearnbench.workers.measure import measure as draw
from unlearnbench.workers.measure_shards import is_measured
from unlearnbench.workers.messages import Progress
from unlearnbench.workers.worker import Link


def measure(job: MeasureJob, link: Link) -> None:
    """Measure the tasks that fall to this process; one whose file is there is done. Raises RunError, VerifierError."""
    size = job.processes
    rank = int(os.environ["RANK"]) if size > 1 else 0
    tasks = [task for task in job.tasks[rank::size] if not is_measured(task)]
    if not tasks:
        return
    one_thread()
    if size > 1:
        take_devices()
    if (state := Path(job.policy) / "state.json").is_file() and not json.loads(state.read_text())["finished"]:
        raise RunError(f"{job.policy} is the checkpoint of a run that has not ended; finish that run first")
    device = None if job.engine.name == "transformers" else "cpu"  # another engine has weights of its own on the GPU
    policy = load_policy(job.policy, revision=job.revision, prompt_format=job.prompt_format, device=device)
    sampler = job.engine.sampler(policy, training=False)
    total = sum(len(task.problems) * task.n for task in tasks)
    done = 0
    began = time.monotonic()

    def progress(rollouts: int) -> None:
        nonlocal done
        done += rollouts
        rate = size * done / max(1e-9, time.monotonic() - began)  # as if the others were as quick
        link.report(Progress(seed=job.seed, stage=job.stage, done=done / total, rate=rate))

    with Verifier(rule=job.rule) as verifier:
        for task in tasks:
            rows = draw(
                [Problem(*problem) for problem in task.problems],
                task.n,
                policy=policy,
                sampler=sampler,
                verifier=verifier,
                sampling=job.sampling,
                root=task.root,
                key=task.key,
                distinct=task.distinct,
                progress=progress,
            )
            write_parquet(Path(task.out), rows)
