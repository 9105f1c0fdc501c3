"""Everything that determines a run's numbers; its folder; and whether its result is comparable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unlearnbench.errors import RunError
from unlearnbench.harness.judge import SLACK_STEPS, STATE, TRAINING
from unlearnbench.harness.privileged import ASKED, POLICY
from unlearnbench.io.files import write_json
from unlearnbench.methods import MethodSource
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.records import Cost
from unlearnbench.splits import Control, Split
from unlearnbench.training.run_spec import Limits
from unlearnbench.workers.jobs import weights_hash

QUICK = {"steps": 24, "samples": 8, "seeds": 1}
MERGED = "merged"
"""A checkpoint that was an adapter, merged into its base."""
BEGUN = ("checkpoint", "checkpoint.old", f"{TRAINING}/checkpoint", f"{TRAINING}/checkpoint.old", MERGED, "evaluation")
"""What only a run leaves in a seed's folder: with one of them it is this run's, or another's."""
ATTEMPT = (TRAINING, STATE, ASKED, POLICY)
"""What a run leaves that ended before its first checkpoint: no run of another configuration may find it."""
MOST_SEEDS = 1000


@dataclass(frozen=True)
class RunConfig:
    """A method on a split; its fingerprint is what a folder may be resumed under."""

    split: Split
    method: MethodSource
    seeds: tuple[int, ...]
    samples: int = 32
    multiple: float = 1.0
    """The budget, in costs of the reference runs."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    purpose: str = "eval"
    """Names the random streams: those of labels, controls and evaluations never meet (PROTOCOL 3.1)."""
    start: Path | None = None
    """The policy to start from, where it is not the split's base."""
    quick: bool = False
    engine: Engine = TRANSFORMERS
    hidden: tuple[Path, ...] = ()
    """Further folders that the method's processes may not see."""

    def configuration(self) -> dict[str, Any]:
        """What config.json says of every seed."""
        return sampler_of(self.engine) | {
            "schema_version": 1,
            "split": self.split.name,
            "split_hash": self.split.hash,
            "split_seed": self.split.config.seed,
            "method": self.method.name,
            "source_hash": self.method.hash,
            "settings": dict(self.settings),
            "samples": self.samples,
            "budget": self.multiple,
            "purpose": self.purpose,
            "start": None if self.start is None else weights_hash(self.start),
            "quick": self.quick,
        }

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.configuration(), sort_keys=True).encode()).hexdigest()

    @property
    def limit(self) -> int | None:
        """FLOPs that a seed may spend; None for a split whose reference runs were not costed yet."""
        budget = self.split.config.budget
        return None if budget is None else round(budget.flops_1x * self.multiple)

    @property
    def limits(self) -> Limits:
        """When a seed's training ends: by its budget, or by steps where there is none."""
        if self.quick:
            return Limits(None, QUICK["steps"])
        return Limits(self.limit, self.split.config.recipe.steps if self.limit is None else None)

    @property
    def default_folder(self) -> Path:
        """runs/<split>/<method>-<hash>-<budget>, where the hash covers source and settings."""
        key = hashlib.sha256(f"{self.method.hash}/{json.dumps(dict(self.settings), sort_keys=True)}".encode())
        name = f"{self.method.name}-{key.hexdigest()[:8]}-" + ("quick" if self.quick else f"{self.multiple:g}x")
        return Path("runs") / self.split.name / name


def seeds_of(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """1 to `seeds`, or the seeds given. Raises RunError unless they are distinct non-negative integers."""
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        raise RunError(f"{seeds} seeds are more than {MOST_SEEDS}; each is a training run of its own: give fewer")
    chosen = tuple(range(1, seeds + 1)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise RunError(f"seeds {chosen} must be distinct non-negative integers; give --seeds 3, or a list of them")
    return chosen


def purpose_of(split: Split, method: MethodSource, folder: Path | None) -> str:
    """`eval`, or `null` where GRPO fills the split's own null control."""
    control = folder is not None and Path(os.path.realpath(folder)).is_relative_to(split.path / "null_control")
    return "null" if control and method.name == "grpo" else "eval"


def sampler_of(engine: Engine) -> dict[str, Any]:
    """The sampler's entry in a configuration: empty for the default sampler."""
    return {} if engine == TRANSFORMERS else {"sampler": asdict(engine)}


def claim_seed(folder: Path, seed: int, configuration: Mapping[str, Any]) -> None:
    """Write the seed's config.json, or check that the one there is the same. Raises RunError naming what differs."""
    place = folder / str(seed)
    path = place / "config.json"
    wanted = {**configuration, "seed": seed}
    found = _configuration(path)
    different = [key for key in (*wanted, "sampler") if found.get(key) != wanted.get(key)]
    if not different:
        return
    if path.is_file() and any((place / name).exists() for name in BEGUN):
        key = different[0]
        raise RunError(
            f"{folder} holds another run ({key}: {found.get(key)!r} there, {wanted.get(key)!r} here); name "
            "another folder with --out, or remove it"
        )
    for name in ATTEMPT:
        if (place / name).is_dir():
            shutil.rmtree(place / name)
        else:
            (place / name).unlink(missing_ok=True)
    write_json(path, wanted)


def _configuration(path: Path) -> dict[str, Any]:
    """What a seed's config.json says; nothing where there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    return found if isinstance(found, dict) else {}


# --- comparability ----------------------------------------------------------------------------------------------------


def null_of(split: Split, multiple: float) -> Control | None:
    """The null control at a budget multiple."""
    return split.control("null_control", f"{multiple:g}x")


def why_unfair(split: Split, multiple: float, seeds: int, used: Sequence[int], *, quick: bool) -> str | None:
    """Why a run is not comparable whatever it scores, one sentence; None if nothing speaks against it.

    `used` are the FLOPs of each seed. A run ends with the step that reaches its limit: more than a few reference steps
    above it is not a fair run.
    """
    if quick:
        return "--quick: fewer steps, one seed and 8 samples; run without --quick for a result that counts"
    null = null_of(split, multiple)
    if null is None:
        folder = split.path / "null_control" / f"{multiple:g}x"
        return (
            f"split {split.name} has no null control at {multiple:g}x; fill it with `unlearnbench eval --method grpo "
            f"--seeds 10 --split {split.path} --budget {multiple:g}x --out {folder}`"
        )
    if len(null.seeds) < seeds:
        return (
            f"the null control at {multiple:g}x has {len(null.seeds)} seeds, fewer than the {seeds} of this run; use "
            "fewer seeds, or add null seeds"
        )
    most = most_flops(split, multiple)
    if most is None or not used or max(used) <= most:
        return None
    assert split.config.budget is not None
    limit = round(split.config.budget.flops_1x * multiple)
    return (
        f"a seed spent {max(used):.3g} FLOPs, {max(used) / limit:.2f} times the limit of {limit:.3g}; let the method "
        "spend less in one step, or give it a larger --budget"
    )


def most_flops(split: Split, multiple: float) -> float | None:
    """FLOPs that a seed may spend at most: its limit and a few reference steps. None where nothing is costed."""
    if split.config.budget is None:
        return None
    one = split.config.budget.flops_1x
    return round(one * multiple) + SLACK_STEPS * one / split.config.recipe.steps


def total_cost(costs: Sequence[Cost]) -> Cost:
    """Costs summed over seeds."""
    names = ("generated_tokens", "trained_tokens", "forward_tokens", "flops", "verifier_calls", "ungradable")
    sums = {name: sum(getattr(cost, name) for cost in costs) for name in names}
    cpu = [cost.cpu_seconds for cost in costs if cost.cpu_seconds is not None]
    return Cost(
        **sums,
        seconds=round(sum(cost.seconds for cost in costs), 3),
        device=costs[0].device,
        cpu_seconds=round(sum(cpu), 2) if len(cpu) == len(costs) else None,
    )
