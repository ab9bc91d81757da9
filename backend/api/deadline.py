"""Limits the time in which a request is answered, whatever the stores do.

When PostgreSQL is frozen, asyncpg needs up to 15 s to give a statement up, and its cleanup cannot be shortened. So the
work of a request runs as a job of its own; when its time is over, the request is answered and the cleanup goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.responses import Response

from backend.api.sse import EventStream
from backend.errors import Unavailable

T = TypeVar("T")


async def answered_within(seconds: float, work: Coroutine[Any, Any, Response]) -> Response:
    """Returns the response of `work`. After `seconds` cancels it, does not wait for it, and raises Unavailable."""
    return await within(seconds, work)


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Returns the result of `work`. After `seconds` cancels it, does not wait for it, and raises Unavailable."""
    job = asyncio.create_task(work, name="request")
    try:
        done, _ = await asyncio.wait({job}, timeout=seconds)
    except asyncio.CancelledError:
        job.cancel()
        job.add_done_callback(_discard)
        raise
    if not done:
        job.cancel()
        job.add_done_callback(_discard)
        raise Unavailable
    return job.result()


def _discard(job: asyncio.Task[Any]) -> None:
    """Discards the result of a cancelled job. A stream gives its slot back; an error is not reported."""
    if not job.cancelled() and job.exception() is None and isinstance(stream := job.result(), EventStream):
        stream.abandon()
