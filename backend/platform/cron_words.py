"""Cron expressions in words."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from cronsim import CronSim, CronSimError

_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


@lru_cache(256)
def cron_in_words(cron: str) -> str:
    """Returns English words such as “At 08:00 every day”, or the expression itself if CronSim does not know it.

    Another platform may have expressions of its own.
    """
    try:
        words: str = CronSim(cron, _ANY_TIME).explain()
    except CronSimError:
        return cron
    return words
