"""The budget: what a run has cost, in tokens and FLOPs, and when it is spent (PROTOCOL 3.10)."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Meter:
    """Counts of one run. C = 2 N (generated + prefilled + forward-only tokens) + 6 N (trained tokens)."""

    parameters: int
    limit: int | None = None
    generated: int = 0
    prefilled: int = 0
    forward: int = 0
    trained: int = 0
    verifier_calls: int = 0
    ungradable: int = 0

    @property
    def flops(self) -> int:
        """The cost C so far."""
        cheap = self.generated + self.prefilled + self.forward
        return 2 * self.parameters * cheap + 6 * self.parameters * self.trained

    @property
    def spent(self) -> bool:
        """Whether the limit is reached; the step that reaches it is finished."""
        return self.limit is not None and self.flops >= self.limit

    def state(self) -> dict[str, int]:
        counts = asdict(self)
        del counts["limit"], counts["parameters"]
        return counts

    def restore(self, state: dict[str, int]) -> None:
        for name, value in state.items():
            setattr(self, name, int(value))
