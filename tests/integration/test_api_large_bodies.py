"""Large bodies of anybody: counted before they are decoded, bounded for the process, and no trouble for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Event

import pytest

from backend.api.body_memory import CALLERS_SHARE, FREE_BYTES
from backend.api.json_body import load_conversation
from backend.chat.models import Json
from tests.e2e.stack import Servers, open_stack
from tests.faults.gauges import rss
from tests.integration.running_api import LIMIT, RawAnswer, RunningApi, new_id, running_api, send_raw
from tests.plain_http import http_client
from tests.speed import limit

JSON = {"content-type": "application/json"}
MEMORY = 1 << 20
"""The memory for bodies of these tests, in bytes."""
SHARE = MEMORY // CALLERS_SHARE
HEAD = "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n{more}\r\n"


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    async with running_api(postgres_dsn, redis_dsn, executor=False, max_body_memory=MEMORY) as resources:
        yield resources


def filled(head: bytes, unit: bytes, size: int, tail: bytes) -> bytes:
    return head + unit * ((size - len(head) - len(tail) - len(unit)) // len(unit)) + unit[:-1] + tail


UNITS = {"objects": b"{},", "arrays": b"[],", "strings": b'"a",', "nulls": b"null,", "parts": b'{"parts":[{}]},'}


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS.keys())
@pytest.mark.parametrize(
    ("path", "head", "tail"),
    [
        ("/api/chat", b'{"id":"aaaaaaaaaaaaaaaaaaaa","messages":[', b"]}"),
        ("/api/chat/sessions", b'{"metadata":{"a":[', b"]}}"),
    ],
)
async def test_a_body_of_very_many_values_is_refused_before_it_is_decoded(
    api: RunningApi, unit: bytes, path: str, head: bytes, tail: bytes
) -> None:
    size = 4_000_000 if path == "/api/chat" else 1_000_000
    answer = await api.http.post(path, content=filled(head, unit, size, tail), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_values")
    assert answer.headers["connection"] == "close"


async def test_while_a_large_body_is_decoded_others_are_answered(
    api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body is decoded only when a health request was answered, which began after the body had arrived whole.

    The bytes of this body count as less than a caller's share. Its values are added when the last byte has arrived, and
    then it counts as the whole share.
    """
    begun, answered = Event(), Event()

    def load(body: bytes, max_values: int) -> Json:
        begun.set()
        assert answered.wait(LIMIT), "the event loop waits for the decoding"
        return load_conversation(body, max_values)

    monkeypatch.setattr("backend.api.routes.chat.load_conversation", load)
    body = filled(b'{"id":"aaaaaaaaaaaaaaaaaaaa","messages":[', b"{},", SHARE + FREE_BYTES - 10_000, b"]}")
    large = asyncio.create_task(api.http.post("/api/chat", content=body, headers=JSON))
    async with asyncio.timeout(LIMIT):
        while not begun.is_set():
            await asyncio.sleep(0.01)  # between two checks of a bounded wait
        assert _counted(api) == SHARE
        assert (await api.http.get("/health/live")).status_code == 200
        answered.set()
        answer = await large
    assert (answer.status_code, answer.json()["code"]) == (422, "empty_message")


def _counted(api: RunningApi) -> float:
    text = api.app.request_middleware._metrics.render().decode()
    return float(next(line for line in text.splitlines() if line.startswith("http_body_bytes")).split()[1])


@asynccontextmanager
async def unfinished(port: int, path: str, size: int, *headers: str) -> AsyncIterator[asyncio.StreamReader]:
    """Sends all of a body but its last byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        more = "".join(f"{header}\r\n" for header in headers)
        writer.write(HEAD.format(path=path, size=size, more=more).encode() + b" " * (size - 1))
        await writer.drain()
        yield reader
    finally:
        writer.close()


async def until_counted(api: RunningApi, least: int) -> None:
    async with asyncio.timeout(LIMIT):
        while _counted(api) < least:
            await asyncio.sleep(0.01)


async def test_unfinished_bodies_of_one_caller_take_a_quarter_of_the_memory_and_others_the_rest(
    api: RunningApi,
) -> None:
    size, session = 200_000, await api.new_session()
    counts_as = size - 1 - 65_536
    authorization = f"authorization: {api.as_user()['authorization']}"
    async with unfinished(api.port, "/api/chat", size):
        await until_counted(api, counts_as)
        refused = await send_raw(api.port, _post("/api/chat", size))
        assert (refused.status, refused.code, refused.closed) == (503, "server_busy", True)
        assert b"retry-after: " in refused.head
        async with unfinished(api.port, "/api/chat", size, authorization):
            await until_counted(api, 2 * counts_as)
        short = {"message": "x" * 60_000, "on_busy": "reject"}
        async with api.http.stream("POST", f"/api/chat/sessions/{session}/stream", json=short) as answer:
            assert answer.status_code == 200
    async with asyncio.timeout(LIMIT):
        while _counted(api):
            await asyncio.sleep(0.01)


async def test_all_callers_together_take_no_more_than_there_is(api: RunningApi) -> None:
    """A body that is larger than a caller's share counts as that share, so four callers fill the memory."""
    size = 900_000
    async with asyncio.timeout(LIMIT):
        users = [f"authorization: {api.as_user()['authorization']}" for _ in range(5)]
        async with (
            unfinished(api.port, "/api/chat", size, users[0]),
            unfinished(api.port, "/api/chat", size, users[1]),
            unfinished(api.port, "/api/chat", size, users[2]),
            unfinished(api.port, "/api/chat", size, users[3]),
        ):
            await until_counted(api, MEMORY)
            refused = await send_raw(api.port, _post("/api/chat", size, users[4]))
            assert (refused.status, refused.code) == (503, "server_busy")
            assert (await api.http.post("/api/chat/sessions", json={})).is_success
        while _counted(api):
            await asyncio.sleep(0.01)


def _post(path: str, size: int, *headers: str) -> bytes:
    more = "".join(f"{header}\r\n" for header in headers)
    return HEAD.format(path=path, size=size, more=more).encode() + b" " * size


async def test_a_whole_history_of_the_ai_sdk_is_accepted_and_only_its_last_message_is_used(api: RunningApi) -> None:
    """`useChat` sends the outputs of all tools, too, which may be large and have many values."""
    table = {"rows": [{"at": at, "name": "n" * 20, "of": [1, 2, 3]} for at in range(20_000)]}
    tool = {"type": "dynamic-tool", "toolCallId": "c", "toolName": "t", "state": "output-available", "output": table}
    history = [
        {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "first"}]},
        {"id": "msg_a", "role": "assistant", "parts": [{"type": "step-start"}, tool]},
        {"id": "m2", "role": "user", "parts": [{"type": "text", "text": "second, and last"}]},
    ]
    session = new_id()
    request = {"id": session, "messages": history, "trigger": "submit-message"}
    async with api.http.stream("POST", "/api/chat", json=request) as answer:
        assert answer.status_code == 200, await answer.aread()
    rows = (await api.session(session))["messages"]
    assert [row["content"] for row in rows] == ["second, and last"]


async def test_bodies_of_very_many_values_and_unfinished_ones_cost_a_process_little_memory(
    postgres_dsn: str, redis_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On the build before, one such body of 16 MiB took 860 MB and 16 s; here the limit of 4 MiB holds as well."""
    folder = tmp_path_factory.mktemp("api")
    async with open_stack(Servers(postgres_dsn, redis_dsn), folder, executors=0) as stack:
        api = stack.apis[0]
        before = rss(api)
        async with http_client(base_url=api.url, timeout=limit(30)) as http:
            body = filled(b'{"id":"aaaaaaaaaaaaaaaaaaaa","messages":[', b"{},", 4_000_000, b"]}")
            most = filled(b'{"id":"aaaaaaaaaaaaaaaaaaaa","messages":[', b"{},", 370_000, b"]}")
            answers = await asyncio.gather(
                *(http.post("/api/chat", content=one, headers=JSON) for one in [body] * 8 + [most] * 4)
            )
            assert {answer.status_code for answer in answers} <= {413, 422, 503}
            sockets = [asyncio.create_task(_hang(api.port)) for _ in range(70)]
            answered = await asyncio.gather(*sockets)
            assert {one.code for one in answered if one.data} == {"server_busy"}
            assert (await http.get("/health/live")).status_code == 200
        assert rss(api) - before < 100


async def _hang(port: int) -> RawAnswer:
    """Sends 3.9 MB of a body that never ends, until it is refused or accepted."""
    head = HEAD.format(path="/api/chat", size=4_000_000, more="").encode()
    try:
        async with asyncio.timeout(limit(1)):
            return await send_raw(port, head + b" " * 3_900_000)
    except (TimeoutError, ConnectionError):
        return RawAnswer(b"", False)
