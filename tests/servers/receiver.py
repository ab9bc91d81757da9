"""A receiver of webhooks on a real port of this process. It keeps the requests and answers with given statuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

from tests.fakes.serving import Exchange, Request, converse
from tests.speed import limit

WITHIN = limit(20)


class Receiver:
    """A server that keeps its requests for `next`. It answers with the statuses of `answer_with` in order, then with
    200."""

    def __init__(self) -> None:
        self.port = 0
        self.headers: dict[str, str] = {}
        """Additional headers of its answers."""
        self.silent_paths: set[str] = set()
        """Paths whose requests it keeps without an answer."""
        self._received: asyncio.Queue[Request] = asyncio.Queue()
        self._statuses: deque[int] = deque()
        self._server: asyncio.Server | None = None
        self._jobs: set[asyncio.Task[None]] = set()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answer_with(self, statuses: Iterable[int]) -> None:
        self._statuses.extend(statuses)

    async def next(self, within: float = WITHIN) -> Request:
        return await asyncio.wait_for(self._received.get(), within)

    @property
    def waiting(self) -> int:
        """The number of received requests that `next` has not returned yet."""
        return self._received.qsize()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and ends open connections."""
        if self._server is not None:
            self._server.close()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        job = asyncio.ensure_future(self._converse(reader, writer))
        self._jobs.add(job)
        job.add_done_callback(partial(self._forget, writer))

    def _forget(self, writer: asyncio.StreamWriter, job: asyncio.Task[None]) -> None:
        """Closes the connection, even if the job was cancelled before it began."""
        self._jobs.discard(job)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await converse(self._answer, reader, writer)

    async def _answer(self, exchange: Exchange) -> None:
        status = self._statuses.popleft() if self._statuses else 200
        self._received.put_nowait(exchange.request)
        if exchange.request.path in self.silent_paths:
            await asyncio.Event().wait()  # until `stop`, or the sender closes the connection
        redirect = {"location": "/elsewhere"} if status // 100 == 3 else {}
        await exchange.answer(status, {"status": "ok"}, {**redirect, **self.headers})


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    await one.listen()
    try:
        yield one
    finally:
        await one.stop()
