"""What one run of one seed is, apart from its method and models, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """When a run ends: after the step that reaches `flops`, or after `steps`, whichever comes first."""

    flops: int | None
    steps: int | None


@dataclass
class RunState:
    """How far a run is. `version` is that of the policy's weights, raised by every step that updates them."""

    step: int = 0
    version: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class RunSpec:
    """Seed, limits and place of a run."""

    root: str
    """Names the run's random streams (`rng.stream`)."""
    seed: int
    limits: Limits
    folder: Path
    """Holds the checkpoint."""
    fingerprint: str
    """A hash of everything that determines the run's numbers; a checkpoint with another one is refused."""
