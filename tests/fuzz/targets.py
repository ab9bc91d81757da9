"""One target for each decoder that reads bytes of strangers.

A target takes any bytes. It raises unless the decoder keeps its promises: the errors that it names, the same result
however the bytes are cut into pieces, values that the stores and clients can hold.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address
from typing import Any

import httpx2
import orjson
from mcp_types import JSONRPCError
from pydantic import TypeAdapter, ValidationError
from standardwebhooks import Webhook
from starlette.datastructures import Headers

from backend.api.auth import WebhookSecrets
from backend.api.importing import read_turns
from backend.api.json_body import load_conversation, load_json
from backend.api.json_meter import JsonMeter
from backend.api.proxies import TrustedProxies
from backend.chat.models import MAX_DEPTH, Json, is_too_deep
from backend.chat.part_json import parts_json
from backend.chat.protocol.agent_json import parse_agent, redacted
from backend.chat.queue.completions import Completion, EntryRefused
from backend.config import Settings
from backend.errors import AppError, ConfigError, InvalidAgent, InvalidConversation
from backend.ids import StreamId
from backend.postgres_address import Address
from backend.rabbitmq_address import parse_rabbitmq_url
from backend.redis_address import parse_redis_url
from backend.setting_types import AllowedHosts, Hosts, HttpUrl, OriginList
from executor.llm.answer_body import AnswerBody
from executor.llm.anthropic_stream import AnthropicDecoder
from executor.llm.events import Finished, ModelEvent, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart
from executor.llm.openai_stream import OpenAIDecoder
from executor.llm.responses_stream import ResponsesDecoder
from executor.llm.sse import SseParser
from executor.mcp.bodies import EventsBody, JsonBody, dumped
from executor.mcp.messages import ClientErrorCode, decode
from executor.web.failures import WebFailure
from executor.web.urls import page_url

Target = Callable[[bytes], None]
MAX_VALUES = 10_000
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_CURSOR = re.compile(r"[0-9]{1,19}-[0-9]{1,19}", re.ASCII)
SECRET = base64.b64encode(b"a secret of the fuzz targets").decode()


def pieces_of(data: bytes) -> Iterator[bytes]:
    """Cuts the data. Its first bytes decide where, so that the fuzzer can find a bad place."""
    sizes = [byte % 17 + 1 for byte in data[:4]] or [1]
    place = n = 0
    while place < len(data):
        size = sizes[n % len(sizes)] if place < 256 else 4_096
        yield data[place : place + size]
        place, n = place + size, n + 1


def _nodes(value: Json) -> int:
    return 1 + sum(map(_nodes, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def _is_storable(value: Json) -> bool:
    return _UNSTORABLE.search(orjson.dumps(value).decode()) is None and b"\\u0000" not in orjson.dumps(value)


# --- bodies of requests -------------------------------------------------------------------------------------------


def _metered(pieces: Sequence[bytes]) -> int | type[AppError]:
    meter = JsonMeter(MAX_VALUES, MAX_DEPTH)
    try:
        for piece in pieces:
            meter.feed(piece)
    except AppError as error:
        return type(error)
    return meter.values


def json_body(data: bytes) -> None:
    """A body of a request: the meter counts no less than is there, in any pieces; the value can be stored."""
    counted = _metered([data])
    in_pieces = _metered(list(pieces_of(data)))
    with suppress(AppError):
        load_conversation(data, MAX_VALUES)
    try:
        value = load_json(data)
    except AppError as error:
        assert 400 <= error.status < 500, error  # noqa: PT017
        return
    assert counted == in_pieces, (counted, in_pieces)
    assert not isinstance(counted, int) or _nodes(value) <= counted + 1
    assert not is_too_deep(value)
    assert _is_storable(value)


def conversation(data: bytes) -> None:
    """Reads the bytes as an exported conversation. It is refused, or its turns can be stored, each after its parent."""
    try:
        document = load_json(data, MAX_DEPTH + 8)
    except AppError:
        return
    messages = document.get("messages") if isinstance(document, dict) else None
    tree = document.get("tree") if isinstance(document, dict) else None
    if not isinstance(messages, list) or not (tree is None or isinstance(tree, list)):
        return
    try:
        turns = read_turns(messages, tree)
    except InvalidConversation:
        return
    known = 0
    for turn in turns:
        assert turn.parent <= known, turn
        assert [row.sequence for row in turn.rows] == list(range(known + 1, known + 1 + len(turn.rows)))
        known += len(turn.rows)
    stored = [parts_json(row.message.parts) for turn in turns for row in turn.rows]
    assert not any(is_too_deep(part) for parts in stored for part in _values_of(parts))
    assert _is_storable(stored)


def _values_of(parts: list[Json]) -> list[Json]:
    return [value for part in parts for value in part.values()]


def cursor(data: bytes) -> None:
    """A cursor: two numbers of at most 19 digits, which are written as they are read."""
    text = data.decode("utf-8", "replace")
    try:
        found = StreamId.parse(text)
    except ValueError:
        return
    assert _CURSOR.fullmatch(text), text
    assert StreamId.parse(str(found)) == found


def completion(data: bytes) -> None:
    """An entry of `chat:completions`: refused, or an outcome with a digest."""
    try:
        found = Completion.parse(data)
    except EntryRefused:
        return
    assert Completion.parse(found.encode()) == found
    assert len(found.outcome.digest) == 64


def agent(data: bytes) -> None:
    """Parses the JSON of an agent. It is refused, or gives a graph that survives a round trip and has valid links."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    try:
        graph = parse_agent(value)
    except InvalidAgent as refused:
        assert refused.problems  # noqa: PT017
        assert all(len(problem) < 1_000 for problem in refused.problems)  # noqa: PT017
        return
    nodes = {node["id"] for node in graph.document["nodes"]}
    assert len(nodes) == graph.node_count
    assert {link[end] for link in graph.document["links"] for end in ("source_id", "sink_id")} <= nodes
    assert _is_storable(graph.document)
    again = parse_agent(graph.document)
    assert again.document == graph.document
    assert redacted(redacted(graph.document)) == redacted(graph.document)


# --- answers of models ---------------------------------------------------------------------------------------------


def _events(decoder: Any, pieces: Sequence[bytes]) -> tuple[list[ModelEvent], str | None]:
    body = AnswerBody(decoder)
    events: list[ModelEvent] = []
    for piece in pieces:
        read, failure = body.feed(piece)
        events += read
        if failure is not None:
            return events, failure.code
    read, failure = body.end()
    events += read
    return events, failure.code if failure is not None else None


def _check_answer(make: Callable[[], Any], data: bytes) -> None:
    events, failure = _events(make(), [data])
    in_pieces, failure_in_pieces = _events(make(), list(pieces_of(data)))
    assert failure == failure_in_pieces, (failure, failure_in_pieces)
    assert [type(event) for event in events] == [type(event) for event in in_pieces]
    started: set[int] = set()
    for place, event in enumerate(events):
        match event:
            case TextDelta(text) | ReasoningDelta(text):
                assert text
                assert _UNSTORABLE.search(text) is None
            case ToolCallStart(index, id, name):
                assert index not in started
                assert id
                assert _UNSTORABLE.search(id + name) is None
                started.add(index)
            case ToolCallDelta(index, text):
                assert index in started
                assert _UNSTORABLE.search(text) is None
            case Finished():
                assert place == len(events) - 1


def openai_stream(data: bytes) -> None:
    """An answer in OpenAI's format: the same events in any pieces, in the order that `events.py` promises."""
    _check_answer(lambda: OpenAIDecoder({"taken"}), data)


def anthropic_stream(data: bytes) -> None:
    """An answer in Anthropic's format."""
    _check_answer(lambda: AnthropicDecoder({"taken"}), data)


def responses_stream(data: bytes) -> None:
    """An answer in the format of OpenAI's Responses API."""
    _check_answer(lambda: ResponsesDecoder({"taken"}), data)


def sse(data: bytes) -> None:
    """Server-sent events: the same payloads in any pieces, as the lines of the specification say."""
    whole, cut = SseParser(), SseParser()
    found = [*whole.feed(data), *whole.end()]
    in_pieces = [payload for piece in pieces_of(data) for payload in cut.feed(piece)] + cut.end()
    assert found == in_pieces
    assert all(b"\r" not in payload for payload in found)


# --- MCP ------------------------------------------------------------------------------------------------------------


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


class _Pieces(httpx2.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in pieces_of(self._data):
            yield piece


async def _read(body: EventsBody | JsonBody) -> bytes:
    text = b"".join([piece async for piece in body])
    await body.aclose()
    return text


def _check_messages(text: bytes) -> None:
    for message in decode(text, {1, "a"}):
        again = decode(dumped(message), {1, "a"})
        assert len(again) == 1
        assert type(again[0]) is type(message)
        assert not isinstance(message, JSONRPCError) or message.error.code not in set(ClientErrorCode) - {
            ClientErrorCode.INVALID_ANSWER
        }


def mcp(data: bytes) -> None:
    """Reads the bytes as a line, a body and events of an MCP server. The SDK gets valid JSON-RPC, and one answer to its
    request."""
    _check_messages(data)
    stop = asyncio.Event()
    answer = _loop().run_until_complete(_read(JsonBody(_Pieces(data), 1, stop, lambda: None)))
    (message,) = decode(answer, {1})
    assert message.id == 1  # type: ignore[union-attr]
    events = _loop().run_until_complete(_read(EventsBody(_Pieces(data), 1, stop, lambda: None)))
    for line in events.split(b"\n"):
        assert not line or line.partition(b":")[0] in (b"data", b"id", b"retry"), line
        if line.startswith(b"data: "):
            assert len(decode(line.removeprefix(b"data: "), {1})) == 1


# --- signatures and addresses ---------------------------------------------------------------------------------------


def webhook(data: bytes) -> None:
    """A signed message: only a right signature counts, and every signed message that can be sent has one."""
    id, time, signature, body = (*data.split(b"\n", 3), b"", b"", b"", b"")[:4]
    secrets = WebhookSecrets(Settings(chat_webhook_secret=SECRET))
    given = [(b"webhook-id", id), (b"webhook-timestamp", time), (b"webhook-signature", signature)]
    assert secrets.signatures(Headers(raw=given), body) == []
    try:
        text, name = body.decode(), id.decode("ascii")
    except UnicodeDecodeError:
        return
    now = datetime.now(UTC)
    right = Webhook(SECRET).sign(name, now, text)
    given[1:] = [(b"webhook-timestamp", str(int(now.timestamp())).encode()), (b"webhook-signature", right.encode())]
    found = secrets.signatures(Headers(raw=given), body)
    assert found in ([right], []), found
    assert found or not name.isprintable() or not name, name


def addresses(data: bytes) -> None:
    """Addresses of stores and pages, and X-Forwarded-For: refused by name, or taken."""
    text = data.decode("utf-8", "replace")
    for kind in (HttpUrl, OriginList, AllowedHosts, Hosts):
        with suppress(ValidationError):
            _adapter(kind).validate_python(text)
    with suppress(ConfigError):
        Address.parse(f"postgresql://{text}")
    with suppress(ConfigError):
        parse_redis_url(f"redis://{text}")
    with suppress(ConfigError):
        parse_rabbitmq_url(f"amqp://{text}")
    with suppress(WebFailure):
        assert page_url(f"https://{text}").host
    client = TrustedProxies("10.0.0.0/8, ::1").client_of("10.0.0.1", text.split("\n"))
    assert ip_address(client)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        json_body, conversation, cursor, completion, agent, openai_stream, anthropic_stream, responses_stream, sse, mcp,
        webhook, addresses,
    )
}  # fmt: skip
