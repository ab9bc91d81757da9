"""I3: messages with the same id are one message and one turn, however often and concurrently they are sent. I2: the
turn of a client that disconnects at the first byte completes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.chat_api import history_of, open_session, read_with_cuts, task_of, text_in
from tests.e2e.sse import counted, open_stream, text_of
from tests.e2e.stack import Servers, Stack, new_user, open_stack
from tests.faults.figures import record
from tests.faults.scale import scale
from tests.servers.proxy import FaultProxy, Mode
from tests.speed import limit

KEYS, DUPLICATES, DROPS = scale(5, 1000), 20, scale(10, 200)
AT_ONCE = 5
pytestmark = pytest.mark.timeout(scale(120, 1800))


@pytest.fixture
async def high_limit_stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with open_stack(
        servers, tmp_path_factory.mktemp("high_limit_stack"), MAX_OPEN_STREAMS="10000", MAX_RUNNING_TURNS="1000"
    ) as stack:
        yield stack


async def posted(client: httpx.AsyncClient, session: str, key: str, text: str = "/stream 5") -> str:
    """Sends a message, asserts that its stream is exact, and returns the id of its task."""
    path = f"/api/chat/sessions/{session}/stream"
    async with open_stream(client, "POST", path, json={"message": text, "message_id": key}) as stream:
        assert stream.status == 200
        assert text_of(await stream.rest()) == counted(5)
        return stream.task_id


async def assert_asked_once(client: httpx.AsyncClient, session: str, tasks: set[str]) -> None:
    """Asserts that the conversation has one question and one answer, of one task."""
    assert len(tasks) == 1
    shown = await history_of(client, session)
    assert [message["role"] for message in shown] == ["user", "assistant"]
    assert text_in(shown[-1]) == counted(5)


async def test_concurrent_duplicates_are_one_message_with_one_answer(high_limit_stack: Stack) -> None:
    async def one_key(client: httpx.AsyncClient) -> None:
        session, key = await open_session(client), uuid.uuid4().hex
        tasks = await asyncio.gather(*(posted(client, session, key) for _ in range(DUPLICATES)))
        await assert_asked_once(client, session, set(tasks))
        other = await client.post(
            f"/api/chat/sessions/{session}/stream", json={"message": "something else", "message_id": key}
        )
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")

    async with high_limit_stack.client(new_user()) as client:
        for _ in range(0, KEYS, AT_ONCE):
            await asyncio.gather(*(one_key(client) for _ in range(AT_ONCE)))
    record("I3", f"{KEYS} message ids x {DUPLICATES} at once: one message, one turn, one answer each; another text 422")


async def test_a_message_whose_reply_was_lost_can_be_sent_again(high_limit_stack: Stack) -> None:
    where = urlsplit(high_limit_stack.base)
    assert where.hostname
    assert where.port
    async with FaultProxy(where.hostname, where.port) as proxy:
        async with (
            high_limit_stack.client(new_user()) as client,
            high_limit_stack.client(base=f"http://{proxy.host}:{proxy.port}") as lossy,
        ):
            lossy.headers.update(client.headers)
            for _ in range(KEYS):
                session, key = await open_session(client), uuid.uuid4().hex
                async with proxy.failing(Mode.LOSE_REPLIES):
                    with pytest.raises(httpx.TransportError):
                        await posted(lossy, session, key)
                await assert_asked_once(
                    client, session, {await posted(lossy, session, key), await posted(client, session, key)}
                )
        assert proxy.lost >= KEYS
    record("I3", f"{KEYS} messages whose answer was lost, sent again: none twice")


async def test_the_turn_of_a_client_that_disconnects_at_the_first_byte_completes(high_limit_stack: Stack) -> None:
    async def drop(client: httpx.AsyncClient) -> None:
        session = await open_session(client)
        path = f"/api/chat/sessions/{session}/stream"
        async with client.stream("POST", path, json={"message": "/stream 5"}) as response:
            task = response.headers["x-resumable-stream-id"]
            with suppress(StopAsyncIteration):
                await anext(response.aiter_raw(1))
        async with asyncio.timeout(limit(30)):
            while (await task_of(client, task))["status"] != "completed":
                await asyncio.sleep(0.05)
        assert text_of(await read_with_cuts(client, task, [])) == counted(5)
        await assert_asked_once(client, session, {task})

    async with high_limit_stack.client(new_user()) as client:
        for _ in range(0, DROPS, AT_ONCE):
            await asyncio.gather(*(drop(client) for _ in range(AT_ONCE)))
    record("I2", f"{DROPS} clients that went at the first byte: each turn ended, once")
