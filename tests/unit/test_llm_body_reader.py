"""The reader of a model's answer: where its bytes come from, and its limits on silences."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web

from executor.llm.body_reader import PatientReader, reader_of
from tests.speed import lasting, limit

BODY = b"data: one\n\ndata: two\n\n"


@asynccontextmanager
async def served(*, compressed: bool = False) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if compressed:
            response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(request)
        for piece in (BODY[:5], BODY[5:]):
            await response.write(piece)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def chat(client: Any) -> AbstractAsyncContextManager[Any]:
    body = {"model": "m", "messages": [], "stream": True}
    opened: AbstractAsyncContextManager[Any] = client.chat.completions.with_streaming_response.create(**body)
    return opened


def messages(client: Any) -> AbstractAsyncContextManager[Any]:
    body = {"model": "m", "messages": [], "stream": True, "max_tokens": 1}
    opened: AbstractAsyncContextManager[Any] = client.messages.with_streaming_response.create(**body)
    return opened


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("client_class", "http_class", "ask"),
    [
        (openai.AsyncOpenAI, openai.DefaultAioHttpClient, chat),
        (anthropic.AsyncAnthropic, anthropic.DefaultAioHttpClient, messages),
    ],
)
async def test_bytes_come_from_the_buffer_of_aiohttp_unless_they_are_compressed(
    client_class: Any, http_class: Any, ask: Callable[[Any], AbstractAsyncContextManager[Any]], compressed: bool
) -> None:
    async with served(compressed=compressed) as port:
        url = f"http://127.0.0.1:{port}"
        async with (
            client_class(api_key="k", base_url=url, http_client=http_class(), max_retries=0) as client,
            ask(client) as response,
        ):
            read = reader_of(response)
            assert isinstance(read, partial) is not compressed
            pieces = [piece async for piece in _all(read)]
    assert b"".join(pieces) == BODY


async def _all(read: Callable[[], Any]) -> AsyncIterator[bytes]:
    while piece := await read():
        yield piece


class Pipe:
    """Bytes that a test hands over one piece at a time."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self.pieces.get()


async def test_a_wait_ends_at_its_limit_and_the_first_one_has_its_own() -> None:
    pipe = Pipe()
    reader = PatientReader(pipe.read, limit(20), 0.05)
    asyncio.get_running_loop().call_later(lasting(0.15), pipe.pieces.put_nowait, b"late")
    assert await reader.read() == b"late"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(), limit(20))
    reader.close()
    job = asyncio.current_task()
    assert job is not None
    assert not job.cancelling()


async def test_time_between_two_reads_is_no_silence() -> None:
    pipe = Pipe()
    reader = PatientReader(pipe.read, 0.05, 0.05)
    await asyncio.sleep(lasting(0.2))
    pipe.pieces.put_nowait(b"one")
    assert await reader.read() == b"one"
    await asyncio.sleep(lasting(0.2))
    pipe.pieces.put_nowait(b"two")
    assert await reader.read() == b"two"
    reader.close()


async def test_a_cancelled_read_is_no_silence() -> None:
    reader = PatientReader(Pipe().read, limit(20), limit(20))
    job = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    reader.close()


async def test_a_cancel_that_comes_right_before_the_end_of_a_silence_counts() -> None:
    reader = PatientReader(Pipe().read, 0.01, limit(20))
    job = asyncio.create_task(reader.read())
    await asyncio.sleep(0)
    time.sleep(0.02)  # both fall into one turn of the event loop
    job.cancel()
    reader._look()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert job.cancelled()
    reader.close()
