"""Limits for each caller and minute: how many sessions are created, and how many shared conversations are read."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from backend.errors import RateLimited

WINDOW_S = 60.0


class PerMinute:
    """Counts in windows of a minute. All counts are forgotten with their window, so that they take bounded memory."""

    def __init__(self, most: int, refusal: type[RateLimited], clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._refusal = refusal
        self._clock = clock
        self._ends = -math.inf
        self._made: Counter[str] = Counter()

    def count(self, quota_key: str) -> None:
        """Counts what is about to be done. Raises `refusal` after `most` times, with the rest of the minute."""
        now = self._clock()
        if now >= self._ends:
            self._ends = now + WINDOW_S
            self._made.clear()
        if self._made[quota_key] >= self._most:
            raise self._refusal(retry_after=math.ceil(self._ends - now))
        self._made[quota_key] += 1
