"""All runs behind docs/results/experiments.md: every method at 1x, the best at 4x, and those of single experiments.

    python -m experiments.sweep                    # everything; what was done before is not done again
    python -m experiments.sweep grpo maxrl-4x      # these runs alone

A run that was stopped goes on where it was. Results lie in build/experiments/<name>.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unlearnbench import Result
from unlearnbench.cli.progress import Bars
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.methods import BUILT_IN
from unlearnbench.workers.jobs import Compute

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "build" / "experiments"
SEEDS = 3
BEST = 3
LONG = 4.0
MANY_SAMPLES = 256
CHECKPOINTS = (0.25, 0.5)
CONTROLS = ("no_training", "random_reward", "format_reward")


@dataclass(frozen=True)
class Planned:
    """One call of `evaluate`, by the name of its folder."""

    name: str
    method: str
    budget: float = 1.0
    seeds: int = SEEDS
    samples: int = 32
    settings: Mapping[str, float] = field(default_factory=dict)

    def run(self, folder: Path, workers: int | None) -> Result:
        with Bars() as bars:
            return evaluate(
                self.method,
                "micro",
                self.seeds,
                samples=self.samples,
                out=folder / self.name,
                budget=self.budget,
                settings=self.settings,
                compute=Compute(workers=workers),
                progress=bars.show,
            )


METHODS = tuple(Planned(name, name) for name in BUILT_IN)
SINGLE = (
    Planned("grpo-256-samples", "grpo", samples=MANY_SAMPLES),
    *(Planned(f"grpo-{part:g}x", "grpo", budget=part, seeds=1) for part in CHECKPOINTS),
    Planned("without_unlearnable", str(ROOT / "experiments" / "without_unlearnable.py")),
)
"""pass@k far out; the policies that GRPO passes through (a run of less budget is the beginning of one of more)."""


LONGER = tuple(Planned(f"{name}-{LONG:g}x", name, budget=LONG) for name in BUILT_IN)


def longer(results: Mapping[str, Result]) -> list[Planned]:
    """The best methods at four times the budget; neither controls nor the positive control's recipe."""
    ranked = sorted(
        (name for name in results if name not in ("grpo", "mid_training", *CONTROLS)),
        key=lambda name: -(results[name].conversion.gain or 0.0),
    )
    return [planned for name in ranked[:BEST] for planned in LONGER if planned.method == name]


def sweep(names: Sequence[str], folder: Path = RUNS, workers: int | None = None) -> None:
    """Run what is planned, or the runs named, and print one line for each. Raises KeyError for an unknown name."""
    began = time.monotonic()
    results: dict[str, Result] = {}

    def do(planned: Planned) -> None:
        result = planned.run(folder, workers)
        results[planned.name] = result
        gain = result.conversion.gain
        print(
            f"{planned.name}: gain {'-' if gain is None else format(100 * gain, '.1f')} points, "
            f"{(time.monotonic() - began) / 60:.1f} min so far",
            flush=True,
        )

    known = {planned.name: planned for planned in (*METHODS, *LONGER, *SINGLE)}
    for name in names or [planned.name for planned in METHODS]:
        do(known[name])
    if not names:
        for planned in (*longer(results), *SINGLE):
            do(planned)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("methods", nargs="*", help="names of runs [default: every method, the best at 4x, single runs]")
    parser.add_argument("--workers", type=int, help="seeds at once [default: one a core]")
    given = parser.parse_args()
    sweep(given.methods, workers=given.workers)


if __name__ == "__main__":
    main()
