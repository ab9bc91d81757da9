"""Fits a straight line to a series of samples, with its standard error, to decide if the series rises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slope:
    """The rise per unit of time, with its standard error."""

    value: float
    error: float

    @property
    def at_least(self) -> float:
        """The rise that is exceeded with a confidence of about 97 %."""
        return self.value - 2 * self.error

    def __str__(self) -> str:
        return f"{self.value:+.2f} ± {self.error:.2f}"


def slope_of(times: Sequence[float], values: Sequence[float]) -> Slope:
    """Returns the slope by least squares. Needs three samples at different times."""
    n = len(times)
    mean_time, mean = sum(times) / n, sum(values) / n
    spread = sum((t - mean_time) ** 2 for t in times)
    value = sum((t - mean_time) * (v - mean) for t, v in zip(times, values, strict=True)) / spread
    left = sum((v - mean - value * (t - mean_time)) ** 2 for t, v in zip(times, values, strict=True))
    return Slope(value, math.sqrt(left / (n - 2) / spread))
