"""Random waits, so that many processes do not try again at the same moment."""

from __future__ import annotations

import random


def jitter(seconds: float, low: float = 0.5, high: float = 1.0) -> float:
    """Returns a random number of seconds between `low` and `high` times `seconds`."""
    return seconds * random.uniform(low, high)  # noqa: S311 - spreads load, guards no secret
