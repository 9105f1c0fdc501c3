"""What a launcher (accelerate launch, torchrun, srun) tells a process of the others that it was started with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from unlearnbench.errors import RunError

NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
"""As torchrun and `accelerate launch` set them. MASTER_PORT is the launcher's own: we meet elsewhere."""


@dataclass(frozen=True)
class Launch:
    """One of the processes that a launcher started: of `world` in all, `local` of them on this machine.

    The first of each machine stays and starts workers in the place of all of them (a worker must not see labels, and
    what a launcher starts has the whole command to do); the others leave at once.
    """

    rank: int
    world: int
    local_rank: int
    local: int
    address: str
    """Of the machine that has rank 0."""

    @property
    def stays(self) -> bool:
        """Whether this process works for its machine."""
        return self.local_rank == 0

    @property
    def first(self) -> bool:
        """Whether this process writes what is shared, and prints."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether all processes are on this machine."""
        return self.local == self.world


def launched(environment: Mapping[str, str] | None = None) -> Launch | None:
    """What the launcher says, or None where there was none. Raises RunError for half of it."""
    found = os.environ if environment is None else environment
    if "RANK" not in found or "WORLD_SIZE" not in found:
        if "MASTER_ADDR" in found and "ACCELERATE_MIXED_PRECISION" in found:
            raise RunError(
                "`accelerate launch --cpu` starts one process and tells it no rank; on CPUs, too, launch with "
                "--multi_gpu in place of --cpu, or with torchrun, or give --processes instead"
            )
        return None
    if missing := [name for name in NEEDED if name not in found]:
        raise RunError(
            f"RANK is set and {missing[0]} is not; set {', '.join(NEEDED)} for each process as torchrun does, or unset "
            "RANK to work on this machine alone"
        )
    numbers = []
    for name in NEEDED[:-1]:
        if not found[name].isdecimal():
            raise RunError(f"{name} is {found[name]!r} and must be a number; set it as torchrun does, or unset RANK")
        numbers.append(int(found[name]))
    rank, world, local_rank, local = numbers
    if not (rank < world and local_rank < local <= world and local_rank <= rank):
        raise RunError(
            f"RANK {rank} of WORLD_SIZE {world} and LOCAL_RANK {local_rank} of LOCAL_WORLD_SIZE {local} do not fit; "
            "set them as torchrun does, or unset RANK"
        )
    return Launch(rank, world, local_rank, local, found["MASTER_ADDR"])
