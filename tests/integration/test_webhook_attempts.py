"""One attempt to deliver to an endpoint, which may be hostile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backend.chat.store.webhooks.deliveries import Failure
from backend.outside_addresses import OutsideAddresses
from executor.webhooks.attempt import AttemptResult, open_client, post_event
from tests.servers.receiver import Receiver, receiver

LOOPBACK = "127.0.0.0/8, ::1/128"


@pytest.fixture
async def inbox() -> AsyncIterator[Receiver]:
    async with receiver() as inbox:
        yield inbox


async def tried(url: str, networks: str = LOOPBACK) -> AttemptResult:
    async with open_client(OutsideAddresses(networks), 2) as client:
        return await post_event(client, url, b"{}", {"content-type": "application/json", "webhook-id": "evt_1"})


async def test_a_message_is_posted_as_it_is(inbox: Receiver) -> None:
    assert await tried(inbox.url("/hook%2Fx?a=b%2Bc")) == AttemptResult(None, 200)
    request = await inbox.next()
    assert (request.method, request.path, request.body) == ("POST", "/hook%2Fx?a=b%2Bc", b"{}")
    assert request.headers["webhook-id"] == "evt_1"
    assert not {"authorization", "cookie"} & request.headers.keys()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0.0.0.0"])
async def test_an_address_that_is_not_permitted_gets_no_connection(inbox: Receiver, host: str) -> None:
    """A name is judged by the address to which it leads when the connection is made."""
    assert await tried(f"http://{host}:{inbox.port}/", "") == AttemptResult(Failure.ADDRESS_REFUSED)
    assert inbox.waiting == 0


async def test_a_redirect_is_not_followed(inbox: Receiver) -> None:
    inbox.answer_with([307])
    assert await tried(inbox.url()) == AttemptResult(Failure.REDIRECTED, 307)
    assert inbox.waiting == 1


@pytest.mark.parametrize(
    ("status", "asked", "waits"), [(503, "120", 120), (429, "7", 7), (500, "120", 0), (404, "9", 0), (503, "soon", 0)]
)
async def test_retry_after_counts_with_the_statuses_that_have_it(
    inbox: Receiver, status: int, asked: str, waits: float
) -> None:
    inbox.answer_with([status])
    inbox.headers["retry-after"] = asked
    assert await tried(inbox.url()) == AttemptResult(Failure.REFUSED, status, waits)


async def test_410_is_told_apart(inbox: Receiver) -> None:
    inbox.answer_with([410])
    assert await tried(inbox.url()) == AttemptResult(Failure.GONE, 410)


async def test_failures_have_names_without_words_of_the_endpoint(free_port: int) -> None:
    async def answers(data: bytes) -> Failure | None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            return (await tried(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")).failure

    assert (await tried(f"http://127.0.0.1:{free_port}/")).failure is Failure.NOT_CONNECTED
    assert (await tried("http://nowhere.invalid/")).failure is Failure.NOT_RESOLVED
    assert await answers(b"") is Failure.NOT_ANSWERED
    assert await answers(b"SSH-2.0-OpenSSH_9.9\r\n") is Failure.NOT_ANSWERED
    assert await answers(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000) is Failure.NOT_ANSWERED


async def test_a_body_without_end_is_not_read() -> None:
    """Returns with the head of the answer: a hostile endpoint could send for ever."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        except ConnectionError:
            gone.set()
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        result = await tried(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        assert result == AttemptResult(None, 200)
        await gone.wait()
