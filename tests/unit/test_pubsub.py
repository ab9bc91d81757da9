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


async def test_a_node_that_has_a_slot_no_longer_says_so_once_for_each_slot() -> None:
    """It ends the subscriptions of a slot that moves away, and answers MOVED to those that come later."""
    confirmed: list[bytes] = []
    moved: list[int] = []
    received: list[tuple[bytes, bytes]] = []
    connection = PubSubConnection(lambda *message: received.append(message), confirmed.append, moved.append)
    connection.subscribe([b"foo"])
    connection.data_received(b"*3\r\n$10\r\nssubscribe\r\n$3\r\nfoo\r\n:1\r\n")
    connection.data_received(b"*3\r\n$8\r\nsmessage\r\n$3\r\nfoo\r\n$2\r\nhi\r\n")
    ended = b"*3\r\n$12\r\nsunsubscribe\r\n$3\r\nfoo\r\n:0\r\n"
    connection.data_received(ended)
    connection.subscribe([b"foo"])
    connection.data_received(b"-MOVED 12182 127.0.0.1:7001\r\n")
    connection.unsubscribe(b"foo")
    connection.data_received(ended)
    assert (confirmed, received, moved) == ([b"foo"], [(b"foo", b"hi")], [12182, 12182])
    assert not connection.closed.done()
