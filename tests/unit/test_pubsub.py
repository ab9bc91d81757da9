from __future__ import annotations

import asyncio

from backend.chat.streams.pubsub import PubSubConnection
from tests.speed import limit


async def test_only_the_newest_subscribe_of_a_channel_confirms_it() -> None:
    confirmed: list[bytes] = []
    received: list[tuple[bytes, bytes]] = []
    connection = PubSubConnection(lambda channel, payload: received.append((channel, payload)), confirmed.append)
    connection.subscribe([b"a"])
    connection.unsubscribe(b"a")
    connection.subscribe([b"a", b"b"])
    for channel in (b"a", b"b"):
        connection.data_received(b"*3\r\n$9\r\nsubscribe\r\n$1\r\n%b\r\n:1\r\n" % channel)
    assert confirmed == [b"b"]
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$2\r\nhi\r\n"
    connection.data_received(message[:11])
    assert received == []
    connection.data_received(message[11:] + b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
    assert received == [(b"b", b"hi")]
    assert confirmed == [b"b", b"a"]


async def test_invalid_bytes_from_the_server_close_the_connection_without_an_exception() -> None:
    connection = PubSubConnection(lambda *_: None, lambda _: None)
    connection.data_received(b"?what is this\r\n")
    connection.connection_lost(None)
    async with asyncio.timeout(limit(20)):
        await connection.closed
