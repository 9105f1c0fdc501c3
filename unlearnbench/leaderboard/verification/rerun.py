"""A bundle's method trained again from its source, and the outcome compared with what its weights gave.

The source is foreign code: its processes have prompts and no answers, and walls around them (workers/isolation.py), a
network without connections among them. Same seeds and settings give the same run on the same machine; on another one
runs differ like two draws of the same method. So equal counts are `identical`; otherwise the claim must not exceed what
was found by more than chance: it is refused if the paired interval of the difference of conversion (items of these
families and seeds, at LEVEL, as `compare` computes it; of the unlearnable items' rate, where conversion is undefined
or the split has no probes) lies above 0.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from unlearnbench.errors import RunError
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.io import files, tables
from unlearnbench.leaderboard.verification import Checked, Reason, Verification
from unlearnbench.records import Result
from unlearnbench.scoring.conversion_rule import rate_arm, share_arm
from unlearnbench.scoring.counts import MIN_SAMPLES, Cells, read_phase
from unlearnbench.scoring.inference.intervals import gain_intervals
from unlearnbench.scoring.outcomes import outcomes_of
from unlearnbench.scoring.probes import probes_of
from unlearnbench.scoring.rates import Flags
from unlearnbench.splits import Split
from unlearnbench.workers.isolation import available
from unlearnbench.workers.jobs import Compute

LEVEL = 0.99


def retrain(
    checked: Checked, found: Verification, *, allow_network: bool = False, ray: str | None = None
) -> Verification:
    """Train a verified bundle's method again with its own seeds, and add the outcome to `found`.

    `ray` is the address of a Ray cluster that runs the jobs; None: this machine. Raises RunError where the walls cannot
    be built, or the training fails.
    """
    with tempfile.TemporaryDirectory(prefix="unlearnbench-") as scratch:
        folder = Path(scratch) / "run"
        result = _train(checked, Path(scratch), folder, allow_network, ray)
        counts = tables.read_counts(folder / "counts.parquet")
        again = Trained.of(checked.split, result, counts)
    claimed = Trained.of(checked.split, checked.result, checked.drawn.counts)
    words, refuted = difference(claimed, again, checked.split)
    if not refuted:
        return found.model_copy(update={"notes": [*found.notes, words]})
    reasons = [*found.reasons, Reason(check="rerun", reason=words)]
    return found.model_copy(update={"verified": False, "rankable": False, "reasons": reasons})


def _train(checked: Checked, scratch: Path, folder: Path, allow_network: bool, ray: str | None) -> Result:
    """Run `evaluate` on the bundle's source."""
    if not allow_network:
        require_no_network()
    bundle, first = checked.bundle, checked.bundle.first
    source = scratch / "method" / Path(bundle.source_name).name
    files.write_bytes(source, bundle.source)
    named = first.method.class_name
    return evaluate(
        f"{source}:{named}" if named else str(source),
        checked.split,
        list(checked.result.seeds),
        samples=first.config.samples,
        out=folder,
        budget=first.config.budget,
        settings=dict(first.config.settings),
        quick=first.config.quick,
        compute=Compute(engine=first.config.engine, ray=ray),
    )


def require_no_network() -> None:
    """Raise RunError where this machine cannot keep a process from the network."""
    if not {"network", "mounts"} <= set(available()):
        raise RunError(
            "this system cannot keep the method's process from the network; run in a container that has none, with "
            "--allow-network"
        )


@dataclass(frozen=True)
class Trained:
    """What a run's policies do on the unlearnable items."""

    cells: Cells
    converted: Flags | None
    """(items, runs); None with too few samples, or where no probe was measured."""

    @classmethod
    def of(cls, split: Split, result: Result, counts: pa.Table) -> Trained:
        """By counts of phases eval and twin."""
        runs = [str(seed) for seed in result.seeds]
        items = [item for item in split.items if item.group == "unlearnable"]
        cells = Cells.of(read_phase(counts, "eval", [item.item_id for item in items], runs=runs))
        if result.samples < MIN_SAMPLES:
            return cls(cells, None)
        found = outcomes_of(counts, items, probes_of(split), runs, split.config.protocol.tau, "the rerun")
        return cls(cells, found.converted if found.has_probe.any() else None)


def difference(claimed: Trained, again: Trained, split: Split) -> tuple[str, bool]:
    """What training again says of a claim, in words, and whether it refutes it."""
    if np.array_equal(claimed.cells.correct, again.cells.correct) and np.array_equal(claimed.cells.n, again.cells.n):
        return "trained again from the source: identical counts", False
    families = [item.family for item in split.items if item.group == "unlearnable"]
    if claimed.converted is not None and again.converted is not None:
        what, arms = "conversion", [share_arm(claimed.converted), share_arm(again.converted)]
    else:
        what, arms = "rate of the unlearnable items", [rate_arm(claimed.cells), rate_arm(again.cells)]
    told = f"{what} {100 * arms[0].values.mean():.1f} % claimed, {100 * arms[1].values.mean():.1f} % trained again"
    interval, _ = gain_intervals(arms[0], arms[1], families, LEVEL)
    if interval is None:
        # one seed: the variance between seeds is unknown, so only its own numbers can confirm it
        return f"{told}; one seed cannot say whether that is chance, and its counts are not the claimed ones", True
    low, high = (100 * end for end in interval)
    span = f"{100 * LEVEL:.0f} % interval of the difference {low:+.1f} to {high:+.1f} points"
    return f"{told}; {span}" + (": more was claimed than the source gives" if low > 0 else ""), low > 0
