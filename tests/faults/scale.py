"""The size and the seed of the fault tests.

`make test` runs a small version of each with a fixed seed. `make faults` (FAULTS=full) runs the full size with a new
seed each time. FAULT_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
from typing import TypeVar

FULL = os.environ.get("FAULTS") == "full"
N = TypeVar("N", int, float)


def scale(small: N, full: N) -> N:
    """Returns `full` in a full run, otherwise `small`."""
    return full if FULL else small


def new_seed() -> int:
    """Returns FAULT_SEED if it is set, otherwise a random seed in a full run and 1 in a small one."""
    if seed := os.environ.get("FAULT_SEED"):
        return int(seed)
    return random.randrange(1 << 32) if FULL else 1
