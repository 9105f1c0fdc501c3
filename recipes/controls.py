"""The controls of a split as its recipe makes them: null, tuned null, positive; each resumes what was stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.cli.progress import Bars
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.io import files
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.splits import Split, load_split

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
"""Learning rates of the tuned null, in units of the recipe's (PROTOCOL 3.5)."""


@dataclass(frozen=True)
class Controls:
    """Where a split's controls are run, and how: `work` keeps every run with all its rollouts."""

    work: Path
    engine: Engine = TRANSFORMERS
    workers: int | None = None

    def null(self, split: Split, seeds: int, multiple: float = 1.0) -> None:
        """The reference GRPO with fresh seeds at one budget multiple."""
        run = self._run(split, f"null/{multiple:g}x", seeds, "null", budget=multiple)
        ship(run, split.path / "null_control" / f"{multiple:g}x")

    def tuned(self, split: Split, seeds: int, factors: Sequence[float] = FACTORS) -> None:
        """GRPO at several learning rates, with fresh seeds each."""
        rate = split.config.recipe.learning_rate
        for factor in factors:
            settings = {"learning_rate": rate * factor}
            run = self._run(split, f"tuned/{factor:g}", seeds, f"tuned-{factor:g}", settings=settings)
            ship(run, split.path / "tuned_null" / f"{factor:g}")

    def positive(self, split: Split, seeds: int, start: Path) -> None:
        """GRPO from the mid-trained policy: how far the score can rise."""
        run = self._run(split, "positive", seeds, "positive", start=start)
        ship(run, split.path / "positive_control")

    def _run(
        self,
        split: Split,
        name: str,
        seeds: int,
        purpose: str,
        *,
        budget: float = 1.0,
        settings: Mapping[str, Any] | None = None,
        start: Path | None = None,
    ) -> Path:
        run = self.work / name
        with Bars() as bars:
            evaluate(
                "grpo",
                load_split(split.path),
                seeds,
                out=run,
                budget=budget,
                settings=settings,
                start=start,
                purpose=purpose,
                engine=self.engine,
                workers=self.workers,
                progress=bars.show,
            )
        return run


def ship(run: Path, folder: Path) -> None:
    """Copy what a control's readers need out of a run's folder."""
    for name in ("counts.parquet", "result.json"):
        files.write_bytes(folder / name, (run / name).read_bytes())
