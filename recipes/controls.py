"""The controls of a split as its recipe makes them: null, tuned null, positive; each resumes an interrupted run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearnbench.cli.progress import Bars
from unlearnbench.harness.evaluate import evaluate_run
from unlearnbench.harness.run_config import RunConfig
from unlearnbench.io import files
from unlearnbench.methods import locate
from unlearnbench.splits import load_split
from unlearnbench.workers.jobs import Compute

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
"""Learning rates of the tuned null, in units of the recipe's (PROTOCOL 3.5)."""
SHIPPED = ("result.json", "counts.parquet", "curves.parquet")


@dataclass(frozen=True)
class Controls:
    """Controls of the split in `split`; `work` keeps every run with all its rollouts."""

    split: Path
    work: Path
    compute: Compute = field(default_factory=Compute)

    def null(self, seeds: int, multiple: float = 1.0) -> None:
        """The reference GRPO with fresh seeds at one budget multiple."""
        self._run(f"null_control/{multiple:g}x", seeds, purpose="null", multiple=multiple)

    def tuned(self, seeds: int, factors: Sequence[float] = FACTORS) -> None:
        """GRPO at several learning rates, with fresh seeds each."""
        rate = load_split(self.split).config.recipe.learning_rate
        for factor in factors:
            settings = {"learning_rate": rate * factor}
            self._run(f"tuned_null/{factor:g}", seeds, purpose=f"tuned-{factor:g}", settings=settings)

    def positive(self, seeds: int, start: Path) -> None:
        """GRPO from the mid-trained policy: how far the score can rise."""
        self._run("positive_control", seeds, purpose="positive", start=start)

    def _run(self, name: str, seeds: int, **how: Any) -> None:
        run = self.work / name
        engine = self.compute.engine
        config = RunConfig(load_split(self.split), locate("grpo"), tuple(range(1, seeds + 1)), engine=engine, **how)
        with Bars() as bars:
            evaluate_run(config, run, self.compute, progress=bars.show)
        for file in SHIPPED:
            files.write_bytes(self.split / name / file, (run / file).read_bytes())
