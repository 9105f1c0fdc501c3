"""Work that tests give to real worker processes, by the names of these functions."""

from __future__ import annotations

import torch

from unlearnbench.workers.messages import Work
from unlearnbench.workers.worker import Link


def take_memory(job: Work, link: Link) -> None:
    """Ask for more memory than there is."""
    torch.empty(1 << 50)
