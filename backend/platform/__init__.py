"""A client of the agent platform, an external service that runs agents and blocks (docs/platform.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING

from backend.config import Settings

if TYPE_CHECKING:  # its HTTP client takes 15 ms to import, which an executor without a platform saves
    from backend.platform.client import Platform

__all__ = ["open_platform"]


@asynccontextmanager
async def open_platform(settings: Settings, most_seconds: float = inf) -> AsyncIterator[Platform | None]:
    """Yields the client, or None if PLATFORM_URL is not set. A call takes `most_seconds` at most."""
    if settings.platform_url is None:
        yield None
        return
    from backend.platform.client import open_client  # see above

    async with open_client(settings, settings.platform_url, most_seconds) as platform:
        yield platform
