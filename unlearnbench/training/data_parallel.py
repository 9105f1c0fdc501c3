"""Several processes that train one policy together: who does which part, and how the parts come together again.

Every process runs the whole loop on the same data and hence holds the same method, policy and optimiser; only the
costly parts (sampling, verdicts, forward and backward passes) are shared out. Draws depend on their keys alone, so
the number of processes changes nothing but the order of floating-point sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from unlearnbench.errors import MethodError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among `size` that train together. The first one, `rank` 0, writes and reports."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def own(self, values: Sequence[T]) -> list[T]:
        """The part of a list that falls to this process: every `size`-th, so that long and short ones spread."""
        return list(values[self.rank :: self.size])

    def together(self, own: Sequence[T], total: int) -> list[T]:
        """The whole list again, from everybody's `own` part of it, in every process."""
        if self.size == 1:
            return list(own)
        from accelerate.utils import gather_object

        parts: list[list[T]] = gather_object([list(own)])
        return [parts[k % self.size][k // self.size] for k in range(total)]

    def from_first(self, own: T) -> T:
        """What the first process has, in every process."""
        return self.everybody(own)[0]

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Put the sum over processes in place of each one's gradient, in float32."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def everybody(self, own: T) -> list[T]:
        """What each process has, in the order of their ranks."""
        if self.size == 1:
            return [own]
        from accelerate.utils import gather_object

        found: list[T] = gather_object([own])
        return found

    def require_same(self, digests: Sequence[str], method: str, step: int) -> None:
        """Raise MethodError unless all processes are about to learn from the same batches (LOOP 12)."""
        if len(set(self.everybody(tuple(digests)))) > 1:
            raise MethodError(
                f"{method} did not do the same in every process in step {step}; draw its randomness from "
                "self.run.random and self.run.shuffled"
            )

    def wait(self) -> None:
        """Until every process has come this far."""
        if self.size > 1:
            torch.distributed.barrier()


def join(size: int) -> Processes:
    """Join the others that this process was started with (RANK and MASTER_ADDR in the environment, as torchrun has it).

    gloo on CPU, NCCL on GPUs, chosen by accelerate.
    """
    if size == 1:
        return Processes()
    from accelerate import PartialState

    state: Any = PartialState(cpu=not torch.cuda.is_available())
    return Processes(state.process_index, state.num_processes)
