"""What holds when another Redis becomes the master while an answer runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.e2e.chat_api import asked, ending_of, history_of, open_session, text_in
from tests.e2e.sse import counted, text_of
from tests.e2e.stack import Stack, new_user, ready
from tests.speed import limit

BACK_WITHIN = limit(30)
WORDS, DELAY = 100, 30


async def check_turns_over(stack: Stack, move: Callable[[str], Awaitable[None]]) -> None:
    """Moves the master in mid-answer; `move` gets the answer's session.

    A new turn and the running one end exactly, and every process is ready again.
    """
    async with stack.client(new_user()) as http, asyncio.timeout(6 * BACK_WITHIN):
        running = await open_session(http)
        async with asked(http, running, f"/stream {WORDS} {DELAY}") as stream:
            await stream.until(15)
            await move(running)
            async with asked(http, await open_session(http), "/stream 10") as another:
                await asyncio.wait_for(another.rest(), BACK_WITHIN)
            assert text_of(another.events) == counted(10)
            await asyncio.wait_for(stream.rest(), BACK_WITHIN)
        assert ending_of(stream.events) == "completed"
        assert text_of(stream.events) == counted(WORDS)
        assert text_in((await history_of(http, running))[-1]) == counted(WORDS)
        for child in stack.children:
            await ready(child)
