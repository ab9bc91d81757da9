"""How large a fault test is, and which seed it has.

`make test` runs a small version of each with a fixed seed; `make faults` (FAULTS=full) the whole of it, with a new seed
each time. FAULT_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
from typing import TypeVar

FULL = os.environ.get("FAULTS") == "full"
N = TypeVar("N", int, float)


def scale(small: N, full: N) -> N:
    """The one or the other number, by the kind of run."""
    return full if FULL else small


def new_seed() -> int:
    """FAULT_SEED, else a new one in a full run, else 1."""
    if told := os.environ.get("FAULT_SEED"):
        return int(told)
    return random.randrange(1 << 32) if FULL else 1
