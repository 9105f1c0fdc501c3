"""Dense, then binary: first each valid step of the trace is rewarded, then only the right answer.

Sun et al. 2025, "RL Grokking Recipe: How Does RL Unlock and Transfer New Algorithms in LLMs?" (DELTA, arXiv
2509.21016): where no rollout passes, the share of unit tests that a program passes is rewarded at first, which leaves
the region without reward, and then the full pass alone, without which policies stay almost right. What differs:
problems here have no unit tests, so the share is that of the steps of the reference trace that the rollout's own trace
has from its beginning on, which the judge tells (track `process`); and the first phase takes half of the budget (the
paper's length could not be found).
"""

from __future__ import annotations

from pydantic import Field

from unlearnbench.method import Method
from unlearnbench.records import Rollout


class DenseThenBinary(Method):
    """Rewards valid steps first, then right answers."""

    track = "process"
    source = "arXiv 2509.21016"

    class Settings(Method.Settings):
        """`dense` is the share of the budget with the dense reward."""

        dense: float = Field(default=0.5, ge=0, le=1)

    def reward(self, rollout: Rollout) -> float:
        """Valid steps over all steps of the reference trace; later 1 or 0."""
        if self.run.progress >= self.settings.dense:
            return super().reward(rollout)
        valid, steps = self.run.valid_steps(rollout)
        return valid / steps
