"""A user who has as much going on as one may have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.e2e.stack import Stack
from tests.e2e.talk import asked, open_session

RUNNING = 5
STREAMS = 8
"""Turns, and open streams, of one user at once: the default limits."""


@asynccontextmanager
async def crowded(home: Stack, user: str) -> AsyncIterator[None]:
    """No other turn of the user is taken within the block; those that run are cancelled at its end."""
    async with home.client(user) as client, AsyncExitStack() as running:
        sessions = [await open_session(client) for _ in range(RUNNING)]
        for session in sessions:
            await running.enter_async_context(asked(client, session, "/stream 5000 20"))
        yield
        for session in sessions:
            await client.post(f"/api/chat/sessions/{session}/cancel")
