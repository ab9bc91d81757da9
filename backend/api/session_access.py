"""Ends the streams of callers who may no longer access their session, because it now belongs to a user.

A stream is checked when it opens. Afterwards, whoever assigns a session to a user tells all API processes, and each of
them looks up the owners of the sessions that its open streams show. It does so every CHECK_EVERY seconds, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.api.open_streams import OpenStreams
from backend.chat.keys import ASSIGNED_CHANNEL
from backend.chat.resources import Resources
from backend.chat.store import sessions
from backend.errors import Unavailable
from backend.supervised import start_supervised

CHECK_EVERY = 30.0
"""Seconds between two checks without a message."""
PAUSE = 1.0
"""Seconds to wait after a check. The next one finds the streams that were opening meanwhile."""
LOOKED_UP_TOGETHER = 500
"""Sessions in one query."""
logger = logging.getLogger(__name__)


@asynccontextmanager
async def watching_owners(resources: Resources, open_streams: OpenStreams) -> AsyncIterator[None]:
    """Ends foreign streams while the block runs."""

    async def watch() -> None:
        with resources.hub.listen([ASSIGNED_CHANNEL]) as subscription:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_EVERY):
                        await subscription.receive()
                for _ in range(2):
                    await end_foreign_streams(resources, open_streams)
                    await asyncio.sleep(PAUSE)

    job = start_supervised(watch, "session-owners")
    try:
        yield
    finally:
        job.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await job


async def end_foreign_streams(resources: Resources, open_streams: OpenStreams) -> None:
    """Ends each stream whose session belongs to a user other than the one who reads it."""
    shown = sorted({stream.viewer.session_id for stream in open_streams if stream.viewer is not None})
    for start in range(0, len(shown), LOOKED_UP_TOGETHER):
        with contextlib.suppress(Unavailable):  # the next check comes soon
            async with resources.database.connection() as c:
                owners = await sessions.owners_of(c, shown[start : start + LOOKED_UP_TOGETHER])
            ended = open_streams.drop_foreign(owners)
            if ended:
                logger.info("streams of sessions that were assigned to a user were ended", extra={"streams": ended})
