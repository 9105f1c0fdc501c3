"""A bundle's method trained again from the source in it, and what came out held against what was claimed.

The source is foreign code: its processes have prompts and no answers, and walls around them (workers/isolation.py), a
network that leads nowhere among them. Same seeds and settings give the same run on the same
machine, and on another one runs that differ like two draws of the same method. So: equal counts are `identical`;
otherwise the claim must not be larger than what was found by more than chance. The test is the paired interval of the
difference of conversion, items of these families and seeds, at LEVEL, as `compare` makes it (of the unlearnable
items' rate, where conversion is undefined): the claim is refused if that interval lies above 0.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from unlearnbench.errors import RunError
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.io import files, tables
from unlearnbench.leaderboard.verification import UNSETTLED, Checked, Reason, Verification, examine, standing_of
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.records import Result
from unlearnbench.scoring.conversion_rule import conversion_arm, rate_arm
from unlearnbench.scoring.counts import MIN_SAMPLES, Cells, read_phase
from unlearnbench.scoring.intervals import gain_intervals
from unlearnbench.splits import Split
from unlearnbench.workers.isolation import available
from unlearnbench.workers.jobs import Compute

LEVEL = 0.99


def retrain(
    path: Path,
    found: Verification,
    split: Split | None,
    *,
    seeds: Sequence[int] | None = None,
    out: Path | None = None,
    allow_network: bool = False,
) -> Verification:
    """Train a verified bundle's method again and add what that shows. `seeds` other than the run's own are for a new
    edition; the run is left in `out` where it is given.

    Raises RunError where the walls cannot be built, or the training fails.
    """
    _, checked = examine(path, split)
    if checked is None:
        raise RunError(f"{path} could not be opened again; it changed while it was verified")
    with tempfile.TemporaryDirectory(prefix="unlearnbench-") as scratch:
        folder = out or Path(scratch) / "run"
        result = _train(checked, Path(scratch), folder, list(seeds or checked.result.seeds), allow_network)
        counts = tables.read_counts(folder / "counts.parquet")
        again = _cells(checked.split, result, counts)
    claimed = _cells(checked.split, checked.result, checked.judged.counts)
    words, refuted = difference(claimed, again, checked.split)
    # what looked learned by heart or put in was learned, if the source writes the like again
    kept = [reason for reason in found.reasons if refuted or reason.check not in UNSETTLED]
    reasons = [*kept, *([Reason(check="rerun", reason=words)] if refuted else [])]
    notes, rankable = standing_of(checked)
    return found.model_copy(
        update={
            "verified": not reasons,
            "rankable": rankable and not reasons,
            "reasons": reasons,
            "notes": [*notes, *([] if refuted else [words])],
        }
    )


def _train(checked: Checked, scratch: Path, folder: Path, seeds: list[int], allow_network: bool) -> Result:
    """Run `evaluate` on the bundle's source."""
    if not allow_network:
        require_no_network()
    bundle = checked.bundle
    config = bundle.seeds[bundle.result.seeds[0]].config
    if config.start is not None:
        raise RunError("the runs started from a policy that is not in the bundle, so they cannot be trained again")
    source = scratch / "method" / Path(bundle.source_name).name
    files.write_bytes(source, bundle.source)
    named = bundle.seeds[bundle.result.seeds[0]].method.class_name
    sampler = (config.model_extra or {}).get("sampler")
    return evaluate(
        f"{source}:{named}" if named else str(source),
        checked.split,
        seeds,
        samples=config.samples,
        out=folder,
        budget=config.budget,
        settings=dict(config.settings),
        quick=config.quick,
        compute=Compute(engine=Engine(**sampler) if sampler else TRANSFORMERS),
    )


def require_no_network() -> None:
    """Raise RunError where this machine cannot keep a process from the network."""
    if not {"network", "mounts"} <= set(available()):
        raise RunError(
            "this system cannot keep the method's process from the network; run in a container that has none, with "
            "--allow-network"
        )


def _cells(split: Split, result: Result, counts: pa.Table) -> Cells:
    runs = [str(seed) for seed in result.seeds]
    return Cells.of(read_phase(counts, "eval", split.ids("unlearnable"), runs=runs))


def difference(claimed: Cells, again: Cells, split: Split) -> tuple[str, bool]:
    """What training again says of a claim, in words, and whether it refutes it."""
    if np.array_equal(claimed.correct, again.correct) and np.array_equal(claimed.n, again.n):
        return "trained again from the source: identical counts", False
    families = [item.family for item in split.items if item.group == "unlearnable"]
    tau, seeds = split.config.protocol.tau, min(claimed.runs, again.runs)
    converts = min(int(claimed.n.min(initial=0)), int(again.n.min(initial=0))) >= MIN_SAMPLES
    arms = [conversion_arm(cells, tau, seeds) if converts else rate_arm(cells) for cells in (claimed, again)]
    what = "conversion" if converts else "rate of the unlearnable items"
    told = f"{what} {100 * arms[0].values.mean():.1f} % claimed, {100 * arms[1].values.mean():.1f} % trained again"
    interval, _ = gain_intervals(arms[0], arms[1], families, LEVEL)
    if interval is None:
        # one seed: nothing tells how seeds differ, so that only its own numbers can confirm it
        return f"{told}; one seed cannot say whether that is chance, and its counts are not the claimed ones", True
    low, high = (100 * end for end in interval)
    span = f"{100 * LEVEL:.0f} % interval of the difference {low:+.1f} to {high:+.1f} points"
    return f"{told}; {span}" + (": more was claimed than the source gives" if low > 0 else ""), low > 0
