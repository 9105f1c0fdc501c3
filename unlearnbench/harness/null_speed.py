"""How many processor seconds a FLOP of the reference GRPO takes on this machine: what other runs are held against.

A run that trained without metering it used more processor time than its FLOPs account for. The reference is timed for a
few steps, once per machine, split and way of computing, and kept.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import unlearnbench
from unlearnbench.harness.trial_run import trial
from unlearnbench.io.files import write_json
from unlearnbench.methods import locate
from unlearnbench.records import Cost
from unlearnbench.splits import Split
from unlearnbench.splits.split import built_home
from unlearnbench.workers.jobs import Compute

STEPS = 16
MOST_OVER_NULL = 1.5
"""Processor seconds per FLOP, over those of the null, above which a run is not rankable."""
LEAST_SHARE = 0.05
"""Of the budget: what a run that metered less is taken to have metered, since starting up costs something, too."""
SPEED = "null_speed.json"


def null_speed(split: Split, compute: Compute, folder: Path) -> float | None:
    """Processor seconds per FLOP of the reference here, written into a run's folder; None where nothing counts them."""
    path = folder / SPEED
    key = _key(split, compute)
    for known in (path, _shelf(key)):
        if known.is_file():
            speed: float | None = json.loads(known.read_text())["cpu_seconds_per_flop"]
            break
    else:
        speed = _timed(split, compute)
        write_json(_shelf(key), {"schema_version": 1, "cpu_seconds_per_flop": speed})
    if not path.is_file():
        write_json(path, {"schema_version": 1, "cpu_seconds_per_flop": speed})
    return speed


def over_null(split: Split, costs: Sequence[Cost], limit: int | None, folder: Path) -> float | None:
    """Processor seconds per FLOP of a run's seeds over those of the null on the same machine, from its files alone."""
    path = folder / SPEED
    speed = json.loads(path.read_text())["cpu_seconds_per_flop"] if path.is_file() else None
    spent = [cost.cpu_seconds for cost in costs if cost.cpu_seconds is not None]
    if speed is None or len(spent) < len(costs):
        return None
    metered = sum(max(cost.flops, LEAST_SHARE * (limit or 0)) for cost in costs)
    return round(sum(spent) / (speed * metered), 3) if metered else None


def why_unmetered(ratio: float | None) -> str | None:
    """The sentence for a run that used more processor time than its FLOPs account for; None if it did not."""
    if ratio is None or ratio <= MOST_OVER_NULL:
        return None
    return (
        f"trained more than it metered? its processes used {ratio:.2f} times the processor seconds per FLOP of the "
        f"null control on the same machine (at most {MOST_OVER_NULL:g}); do all training through the loop or self.run"
    )


def _timed(split: Split, compute: Compute) -> float | None:
    with tempfile.TemporaryDirectory(prefix="unlearnbench-") as folder:
        trial(split, locate("grpo"), "speed", Path(folder), STEPS, {}, {}, compute=compute)
        cost = Cost.model_validate_json((Path(folder) / "run" / "cost.json").read_text())
    return None if cost.cpu_seconds is None or not cost.flops else cost.cpu_seconds / cost.flops


def _key(split: Split, compute: Compute) -> str:
    machine = [platform.machine(), platform.processor(), _model_name(), unlearnbench.__version__]
    way = [compute.processes, asdict(compute.engine), compute.trainer.model_dump(mode="json")]
    return hashlib.sha256(json.dumps([split.hash, machine, way], sort_keys=True).encode()).hexdigest()[:16]


def _model_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _shelf(key: str) -> Path:
    return built_home().parent / "null_speed" / f"{key}.json"
