"""Does a series of samples rise? A straight line through it, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slope:
    """What it rises by in a unit of time, give or take `error` (a standard error)."""

    value: float
    error: float

    @property
    def at_least(self) -> float:
        """It rises by so much with a certainty of some 97 %."""
        return self.value - 2 * self.error

    def __str__(self) -> str:
        return f"{self.value:+.2f} ± {self.error:.2f}"


def slope_of(times: Sequence[float], values: Sequence[float]) -> Slope:
    """By least squares; needs three samples at different times."""
    n = len(times)
    mean_time, mean = sum(times) / n, sum(values) / n
    spread = sum((t - mean_time) ** 2 for t in times)
    value = sum((t - mean_time) * (v - mean) for t, v in zip(times, values, strict=True)) / spread
    left = sum((v - mean - value * (t - mean_time)) ** 2 for t, v in zip(times, values, strict=True))
    return Slope(value, math.sqrt(left / (n - 2) / spread))
