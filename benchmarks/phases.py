"""Where the time of a run goes: calls are timed in place, without a profiler that would slow them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.machine import now


class Phases:
    """Seconds by phase. The time of a wrapped call inside another one belongs to the inner call only."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def forget(self) -> None:
        """Start again from zero, after a warm-up. Call it between wrapped calls."""
        self.seconds.clear()

    @contextmanager
    def timing(self, owner: Any, name: str, phase: str | Callable[[], str]) -> Iterator[None]:
        """Count the calls of `owner.name` under a phase, which may be decided at the call; undone at the end."""
        original = getattr(owner, name)
        own = name in vars(owner)

        def timed(*args: Any, **kwargs: Any) -> Any:
            label = phase if isinstance(phase, str) else phase()
            self._inner.append(0.0)
            began = now()
            try:
                return original(*args, **kwargs)
            finally:
                spent = now() - began
                self.seconds[label] += spent - self._inner.pop()
                self._inner[-1] += spent

        setattr(owner, name, timed)
        try:
            yield
        finally:
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)
