"""Makes the limits of tests fit a machine of any speed.

The limits in the tests suit a quiet machine that needs `_USUAL` seconds for a fixed piece of work. The run measures
that work once, and `limit` makes every limit longer by as much as this machine is slower or busier, and again by as
many test processes as share a core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

_USUAL = 0.1
"""Seconds for `_WORK` on the two-core machine where the limits were chosen, while nothing else runs."""
_WORK = "import asyncio, json, ssl; sum(n * n for n in range(500_000))"
_MOST = 20.0
_SLOWNESS, _CROWD = "TEST_SLOWNESS", "TEST_CROWD"
_MOST_LASTING = 1.5


def measure() -> float:
    """Returns how many times slower this machine is now, from 1 to 20: the median of five short processes that import
    modules and compute, as the tests' own processes do."""
    times = sorted(_time_of_work() for _ in range(5))
    return min(max(times[2] / _USUAL, 1.0), _MOST)


def _time_of_work() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", _WORK], check=True)
    return time.perf_counter() - began


def slowness() -> float:
    """Returns what TEST_SLOWNESS says, else measures and keeps it there, so that child processes agree."""
    if _SLOWNESS not in os.environ:
        os.environ[_SLOWNESS] = f"{measure():.2f}"
    return float(os.environ[_SLOWNESS])


def share_cores(processes: int) -> None:
    """Says how many test processes run side by side, for this process and its children."""
    os.environ[_CROWD] = f"{max(processes / len(os.sched_getaffinity(0)), 1):.2f}"


def _crowd() -> float:
    return float(os.environ.get(_CROWD, "1"))


def limit(seconds: float) -> float:
    """Returns the limit for a wait that takes at most `seconds` on the usual machine. It may be generous: a wait that
    succeeds ends before it."""
    return seconds * slowness() * _crowd()


def lasting(seconds: float) -> float:
    """Returns how long something has to last that a test must meet in the middle, `seconds` on the usual machine. Each
    run takes all of this time, so other test processes count for half at most."""
    return seconds * slowness() * min(_crowd(), _MOST_LASTING)
