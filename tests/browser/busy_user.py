"""Gives a user as many running turns as the default limits allow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.e2e.chat_api import asked, open_session
from tests.e2e.stack import Stack

RUNNING = 5
STREAMS = 8
"""The default limits of running turns and open streams of one user."""


@asynccontextmanager
async def at_the_turn_limit(stack: Stack, user: str) -> AsyncIterator[None]:
    """Starts RUNNING turns of the user, so that the API refuses others within the block. Cancels them at its end."""
    async with stack.client(user) as client, AsyncExitStack() as running:
        sessions = [await open_session(client) for _ in range(RUNNING)]
        for session in sessions:
            await running.enter_async_context(asked(client, session, "/stream 5000 200"))
        yield
        for session in sessions:
            await client.post(f"/api/chat/sessions/{session}/cancel")
