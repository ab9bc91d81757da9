from __future__ import annotations

import asyncio

from backend.chat.announcements import Announcements
from tests.speed import limit


async def test_only_the_newest_subscribe_of_a_channel_confirms_it() -> None:
    confirmed: list[bytes] = []
    heard: list[tuple[bytes, bytes]] = []
    link = Announcements(lambda channel, payload: heard.append((channel, payload)), confirmed.append)
    link.subscribe([b"a"])
    link.unsubscribe(b"a")
    link.subscribe([b"a", b"b"])
    for channel in (b"a", b"b"):
        link.data_received(b"*3\r\n$9\r\nsubscribe\r\n$1\r\n%b\r\n:1\r\n" % channel)
    assert confirmed == [b"b"]
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$2\r\nhi\r\n"
    link.data_received(message[:11])
    assert heard == []
    link.data_received(message[11:] + b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
    assert heard == [(b"b", b"hi")]
    assert confirmed == [b"b", b"a"]


async def test_garbage_from_the_server_ends_the_connection_quietly() -> None:
    link = Announcements(lambda *_: None, lambda _: None)
    link.data_received(b"?what is this\r\n")
    link.connection_lost(None)
    async with asyncio.timeout(limit(20)):
        await link.closed
