"""Which of several processes this one is, as ``torchrun`` says in the environment. Loads nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """This process's number among all (``rank``, of ``size``) and among those of this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints; a process alone is."""
        return self.rank == 0


def launched() -> Launch:
    """Read the environment; without all of what ``torchrun`` sets, the process is alone."""
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if "MASTER_ADDR" not in os.environ or not all(number.isdecimal() for number in numbers):
        return Launch()
    rank, size, local_rank = map(int, numbers)
    return Launch(rank, size, local_rank)
