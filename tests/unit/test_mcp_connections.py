"""Responses that nobody reads are closed, and connections of one owner end when they were idle."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest

from backend.chat.outcomes import RemoteTask
from executor.mcp import own_links
from executor.mcp.connection import Connection
from executor.mcp.failures import LastFailure, ReasonKind, ServerBusy
from executor.mcp.http import RelayTransport
from executor.mcp.link import Link
from executor.mcp.messages import ClientErrorCode
from executor.mcp.names import Names
from executor.mcp.own_links import OwnLinks
from executor.mcp.server_entry import HttpServer
from executor.mcp.tasks import TaskState
from tests.speed import limit

CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}


class Body(httpx2.AsyncByteStream):
    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""

    async def aclose(self) -> None:
        self.closed = True


class Server(httpx2.AsyncBaseTransport):
    """Answers when `ready` is set."""

    def __init__(self, status: int, **headers: str) -> None:
        self.ready = asyncio.Event()
        self.body = Body()
        self._status, self._headers = status, headers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await self.ready.wait()
        return httpx2.Response(self._status, headers=self._headers, stream=self.body, request=request)


def relay_to(server: Server, notes: LastFailure | None = None) -> RelayTransport:
    relay = RelayTransport(notes or LastFailure(), [])
    relay._inner = server  # type: ignore[assignment]
    return relay


def request(message: dict[str, Any] = CALL) -> httpx2.Request:
    return httpx2.Request("POST", "http://one.example/mcp", json=message)


async def test_a_call_that_is_cancelled_at_the_moment_of_its_answer_leaves_no_response_open() -> None:
    server = Server(200)
    job = asyncio.create_task(relay_to(server).handle_async_request(request()))
    for _ in range(5):
        await asyncio.sleep(0)  # until it waits for the server
    server.ready.set()
    await asyncio.sleep(0)  # the response is there, and the call has not seen it yet
    job.cancel()
    await asyncio.wait({job}, timeout=limit(5))
    assert job.cancelled()
    assert server.body.closed


async def test_the_body_of_a_redirect_is_closed_and_the_call_is_answered() -> None:
    server, notes = Server(307, location="https://login.example"), LastFailure()
    server.ready.set()
    response = await relay_to(server, notes).handle_async_request(request())
    assert server.body.closed
    assert json.loads(await response.aread())["error"]["code"] == ClientErrorCode.REFUSED
    assert notes.why is not None
    assert notes.why.kind is ReasonKind.REDIRECTED


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_it_is_unknown_whether_a_call_ran_that_a_gateway_has_answered(status: int) -> None:
    server = Server(status)
    server.ready.set()
    response = await relay_to(server).handle_async_request(request())
    assert json.loads(await response.aread())["error"]["code"] == ClientErrorCode.LOST


async def test_a_connection_is_idle_from_the_end_of_its_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_links, "SWEEP_EVERY", 0.01)
    retired, settled = asyncio.Event(), asyncio.Event()

    async def run(start_timeout: float) -> None:
        await retired.wait()

    link = SimpleNamespace(
        server=SimpleNamespace(name="one"), run=run, retire=retired.set, down=retired, usable=True, is_busy=False,
        call_ended_at=time.monotonic(), settled=asyncio.Event().wait,
    )  # fmt: skip
    link.settled = settled.wait
    settled.set()

    def new_link(folder: Path, owner: str) -> Link:
        return cast(Link, link)

    links = OwnLinks(new_link, 1)
    await links.link_of("a")
    monkeypatch.setattr(own_links, "MAX_IDLE", 600.0)
    links._links["a"].asked_at -= 1_000  # the call has taken so long
    sweeping = asyncio.create_task(links.sweep())
    await asyncio.sleep(0.1)
    assert not retired.is_set()
    link.call_ended_at -= 1_000
    async with asyncio.timeout(limit(5)):
        await retired.wait()
    sweeping.cancel()
    await links.end()


async def test_a_connection_behind_which_a_task_works_makes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program would end with it, and a server of 2025-11-25 would forget the task with its session."""
    monkeypatch.setattr(own_links, "MAX_OWN", 2)
    status = "working"

    class OwnLink:
        server = SimpleNamespace(name="one")
        usable, is_busy, call_ended_at = True, False, 0.0

        def __init__(self) -> None:
            self.down = asyncio.Event()

        async def run(self, start_timeout: float) -> None:
            await self.down.wait()

        async def settled(self) -> None:
            pass

        def retire(self) -> None:
            self.down.set()

        async def ask(self, *_: Any) -> TaskState:
            return TaskState.model_validate({"taskId": "1", "status": status, "result": {"content": []}})

    server = HttpServer(name="one", url="https://one.example/mcp", per="session")  # type: ignore[arg-type]
    connection = Connection(server, 1, 1, Names(["one"]))
    links = connection._own = OwnLinks(lambda *_: cast(Link, OwnLink()), 1)
    for owner in ("a", "b"):
        await connection.tasks._of_task(RemoteTask("one", "work", "1", owner), "tasks/get", cast(Any, None))
    first = links._links["a"].link
    with pytest.raises(ServerBusy):
        await links.link_of("c")
    status = "completed"
    await connection.tasks.look(RemoteTask("one", "work", "1", "b"))
    await links.link_of("c")
    assert (set(links._links), first.down.is_set()) == ({"a", "c"}, False)
    await links.end()
