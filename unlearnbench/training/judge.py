"""What a run asks of the judge, which sits in another process and alone knows answers, solutions and labels.

The loop sends each round's rollouts once and gets one verdict each; it never holds a gold answer. `harness/judge.py`
is the judge itself, `workers/judge_client.py` the side of the pipe that a training process holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unlearnbench.records import Tokens, Verdict


@dataclass(frozen=True, slots=True)
class Draw:
    """The rollouts of one plan: one context, drawn `len(tokens)` times."""

    item_id: str
    source: str
    """`policy`, `hinted` (drawn in another context) or `prefixed` (drawn after the beginning of an answer)."""
    prompt_tokens: int
    """Length of the context, prefilled once for all of them."""
    policy_version: int
    tokens: Sequence[Tokens]
    texts: Sequence[str]
    """Decoded without the token that ended the rollout, as `Policy.decode` does."""
    stopped: Sequence[bool]
    """Whether each ended by an end token, not by the response limit."""


class Judge(Protocol):
    """The judge of one run of one seed."""

    def verdicts(self, step: int, round: int, draws: Sequence[Draw]) -> list[Verdict]:
        """One verdict a rollout, in the order of the draws. A round is judged once."""

    def record(self, step: int, rewards: Sequence[float], kept: Sequence[str]) -> None:
        """The training reward of each rollout of a step, in the order of its groups, and the items trained on."""

    def log(self, metrics: Mapping[str, float | int | None]) -> None:
        """A line of metrics of one step."""

    def save(self, steps: int) -> None:
        """Everything up to `steps` belongs to a checkpoint that is about to be written."""

    def resume(self, steps: int) -> None:
        """Forget everything after the checkpoint at `steps` (0: all of it)."""

    def ask(self, name: str, item_id: str | None = None, text: str | None = None) -> Any:
        """Something privileged, by its name in `records.READS`. The judge notes it: the run's track follows."""
