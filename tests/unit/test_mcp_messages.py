"""Lines, events and bodies of MCP servers: whatever their form, the SDK gets valid messages of bounded size."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from executor.mcp.bodies import EventsBody, JsonBody, plain_pieces
from executor.mcp.messages import MAX_MESSAGE_BYTES, ClientErrorCode, OverlongLine, decode, errors_for, read_lines

ANSWER = b'{"jsonrpc":"2.0","id":3,"result":{"content":[]}}'
BIG = b'{"jsonrpc":"2.0","id":3,"result":{"a":"' + b"x" * MAX_MESSAGE_BYTES + b'"}}'


class Pieces(httpx2.AsyncByteStream):
    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


async def events(*pieces: bytes | Exception, number: int | None = 3) -> list[Any]:
    """The data of the events that the SDK reads."""
    body = EventsBody(Pieces(*pieces), number, asyncio.Event(), lambda: None)
    try:
        text = b"".join([piece async for piece in body])
    finally:
        await body.aclose()
    return [json.loads(line[6:]) for line in text.split(b"\n") if line.startswith(b"data: ")]


async def document(*pieces: bytes | Exception, encoding: str = "identity") -> Any:
    response = httpx2.Response(200, headers={"content-encoding": encoding}, stream=Pieces(*pieces))
    body = JsonBody(plain_pieces(response), 3, asyncio.Event(), lambda: None)
    try:
        return json.loads(b"".join([piece async for piece in body]))
    finally:
        await body.aclose()


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 1_000])
async def test_events_are_read_whatever_ends_their_lines(end: bytes, size: int) -> None:
    text = end.join(
        [b": comment", b"id: 7", b"data:" + ANSWER[:17], b"data: " + ANSWER[17:], b"", b"data: no", b"", b""]
    )
    pieces = [text[place : place + size] for place in range(0, len(text), size)]
    assert await events(*pieces) == [json.loads(ANSWER)]


async def test_an_event_that_is_too_large_answers_its_request_and_is_dropped_without_one() -> None:
    data = b"data: " + BIG + b"\n\n"
    (told,) = await events(data)
    assert (told["id"], told["error"]["code"]) == (3, ClientErrorCode.TOO_LARGE)
    assert await events(data, number=None) == []
    lines = b"".join(b"data: " + BIG[place : place + 1_000] + b"\n" for place in range(0, len(BIG), 1_000))
    (told,) = await events(lines + b"\n")
    assert told["error"]["code"] == ClientErrorCode.TOO_LARGE


async def test_an_event_without_its_empty_line_counts_if_it_is_whole() -> None:
    assert await events(b"data: " + ANSWER) == [json.loads(ANSWER)]
    assert await events(b"data: " + ANSWER[:-2]) == []


async def test_the_id_of_an_event_without_data_is_kept() -> None:
    body = EventsBody(Pieces(b"id: 7\nretry: 10\ndata:\n\n"), 3, asyncio.Event(), lambda: None)
    assert b"id: 7\n" in b"".join([piece async for piece in body])
    await body.aclose()


@pytest.mark.parametrize("field", [b"id: ", b"retry: "])
async def test_the_fields_of_an_event_are_bounded_however_often_they_come(field: bytes) -> None:
    lines = (field + str(number).encode() * 500 + b"\n" for number in range(2_000))
    body = EventsBody(Pieces(*lines, b"data:\n\n"), 3, asyncio.Event(), lambda: None)
    text = b"".join([piece async for piece in body])
    assert len(text) < 8_192
    assert field + b"1999" * 500 in text
    await body.aclose()


async def test_a_cancelled_request_ends_its_body() -> None:
    stop, never = asyncio.Event(), asyncio.Event()

    class Silent(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await never.wait()
            yield b""

    body = EventsBody(Silent(), 3, stop, lambda: None)
    reading = asyncio.create_task(_joined(body))
    await asyncio.sleep(0)
    stop.set()
    assert b"-32903" in await reading
    await body.aclose()


async def _joined(body: httpx2.AsyncByteStream) -> bytes:
    return b"".join([piece async for piece in body])


@pytest.mark.parametrize(
    ("encoding", "pack"), [("identity", bytes), ("gzip", gzip.compress), ("deflate", zlib.compress)]
)
async def test_a_document_is_read_although_it_is_compressed(encoding: str, pack: Any) -> None:
    assert await document(pack(ANSWER), encoding=encoding) == json.loads(ANSWER)
    told = await document(pack(b"x" * 50_000_000), encoding=encoding)
    assert told["error"]["code"] == ClientErrorCode.TOO_LARGE


async def test_a_document_that_breaks_off_or_has_another_id_answers_its_request() -> None:
    assert (await document(ANSWER[:9], httpx2.ReadError("")))["error"]["code"] == ClientErrorCode.LOST
    assert (await document(b"not packed", encoding="gzip"))["error"]["code"] == ClientErrorCode.LOST
    assert (await document(b"<html>"))["error"]["code"] == ClientErrorCode.INVALID_ANSWER
    assert (await document(ANSWER.replace(b"3", b"99")))["id"] == 3


@pytest.mark.parametrize(
    ("head", "tail", "answered"),
    [
        (b'{"jsonrpc":"2.0","id":3,"result":', b"", {3: ClientErrorCode.TOO_LARGE}),
        (b'{ "id" : 3 , "result":', b"", {3: ClientErrorCode.TOO_LARGE}),
        (b'{"result":', b'},"jsonrpc":"2.0","id":3}\r', {3: ClientErrorCode.TOO_LARGE}),
        (b'{"result":', b'},"id":3,"jsonrpc":"2.0"}', {3: ClientErrorCode.TOO_LARGE}),
        (b'{"jsonrpc":"2.0","id":9,"result":', b"", {}),
        (b'{"jsonrpc":"2.0","method":"notifications/message"', b'"id":3}', {}),
        (b'{"result":', b'{"id":3}}', {3: ClientErrorCode.LOST, 4: ClientErrorCode.LOST}),
    ],
)
def test_the_call_of_a_line_that_is_too_long_is_found(head: bytes, tail: bytes, answered: dict[int, int]) -> None:
    found = errors_for(OverlongLine(head, tail), [3, 4])
    assert {message.id: message.error.code for message in found} == answered  # type: ignore[union-attr]


async def test_lines_are_read_in_bounded_memory() -> None:
    class Output:
        def __init__(self) -> None:
            self._pieces = [b"a\nb", b"c\n", *[b"x" * 65_536] * 100, b"end\nd", b""]

        async def read(self, _: int) -> bytes:
            return self._pieces.pop(0)

    a, bc, long, d = [line async for line in read_lines(Output())]
    assert (a, bc, d) == (b"a", b"bc", b"d")
    assert isinstance(long, OverlongLine)
    assert long.head == b"x" * 1_024
    assert long.tail.endswith(b"xend")


def test_what_is_no_message_is_left_out() -> None:
    for text in (b"a banner", b"[]", b"7", b'{"level":30,"id":3}', b'{"id":9,"result":{}}', b'\xff{"jsonrpc"'):
        assert decode(text, {3}) == []
