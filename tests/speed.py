"""Scales the time limits of tests to the speed of the machine.

The limits in the tests are chosen for an idle machine that needs `_USUAL` seconds for a fixed piece of work. A test run
measures that work once. `limit` multiplies each limit by the slowness of this machine and by the number of test
processes per core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

_USUAL = 0.1
"""Seconds for `_WORK` on the two-core machine where the limits were chosen, while nothing else runs."""
_WORK = "import asyncio, json, ssl; sum(n * n for n in range(500_000))"
_MAX_SLOWNESS = 20.0
_SLOWNESS, _PROCESSES_PER_CORE = "TEST_SLOWNESS", "TEST_PROCESSES_PER_CORE"
"""Variables of the environment, so that child processes agree with their parent."""
_MAX_LASTING_FACTOR = 1.5
"""The most by which test processes that share a core lengthen `lasting`."""


def measure() -> float:
    """Returns how many times slower than the usual machine this one is now, from 1 to 20. Takes the median time of five
    short processes that import modules and compute, as the tests' own processes do."""
    times = sorted(_time_of_work() for _ in range(5))
    return min(max(times[2] / _USUAL, 1.0), _MAX_SLOWNESS)


def _time_of_work() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", _WORK], check=True)
    return time.perf_counter() - began


def slowness() -> float:
    """Returns TEST_SLOWNESS. If it is not set, measures the machine and sets it."""
    if _SLOWNESS not in os.environ:
        os.environ[_SLOWNESS] = f"{measure():.2f}"
    return float(os.environ[_SLOWNESS])


def share_cores(processes: int) -> None:
    """Sets the number of test processes that run at the same time, for this process and its children."""
    os.environ[_PROCESSES_PER_CORE] = f"{max(processes / len(os.sched_getaffinity(0)), 1):.2f}"


def _processes_per_core() -> float:
    return float(os.environ.get(_PROCESSES_PER_CORE, "1"))


def limit(seconds: float) -> float:
    """Returns the limit, in seconds, for a wait that takes at most `seconds` on the usual machine. It may be generous,
    because a wait that succeeds ends earlier."""
    return seconds * slowness() * _processes_per_core()


def lasting(seconds: float) -> float:
    """Returns the duration, in seconds, of something that a test must observe while it lasts. It is `seconds` on the
    usual machine. Every run takes all of this time, so other test processes lengthen it by at most half."""
    return seconds * slowness() * min(_processes_per_core(), _MAX_LASTING_FACTOR)
