"""The configurations of `deploy/proxies`: an answer through each proxy comes at once, is cut, resumed and left.

Times are never measured. A chunk came at once if the answer was still running when it was read.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backend.api.timeouts import Timeouts
from tests import ROOT
from tests.e2e.sse import counted
from tests.integration.running_api import LIMIT, RunningApi, running_api
from tests.servers.front import NAMES, Front, front
from tests.speed import limit

COMES_WITHIN = limit(5)
"""Seconds within which a reader gets what it waits for."""
HEARTBEATS = Timeouts(heartbeat_every=0.3, tick=0.1)
NEVER_ENDS = {"vite"}
"""Proxies that do not tell their client that a stream was cut."""
OTHER_HOST = {"next", "next-handler"}
"""Proxies that pass on another Host than the page's. Browsers then say by another header whose page it is."""
EVENT = re.compile(rb"id: ([\d-]+)\ndata: (.*)\n\n")


@pytest.fixture(scope="module")
async def api(postgres_dsn: str, redis_dsn: str) -> AsyncIterator[RunningApi]:
    changes: dict[str, Any] = {"trusted_proxies": "127.0.0.1"}
    async with running_api(postgres_dsn, redis_dsn, timeouts=HEARTBEATS, **changes) as api:
        yield api


@pytest.fixture(scope="module", params=NAMES)
async def proxy(request: pytest.FixtureRequest, api: RunningApi, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (apt-get install curl)")
    async with front(request.param, api.port, tmp_path_factory.mktemp(request.param)) as running:
        yield request.param, running


class Reader:
    """curl, which asks for compressed answers, as browsers do, and hands on each byte that it gets."""

    def __init__(self, process: asyncio.subprocess.Process, through: Front) -> None:
        self._process = process
        self._through = through
        self.data = b""

    async def until(self, wanted: bytes, times: int = 1) -> None:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(COMES_WITHIN):
                while self.data.count(wanted) < times:
                    piece = await self._process.stdout.read(65536)
                    if not piece:
                        pytest.fail(
                            f"the stream ended before {wanted!r}; {self.came}; curl: {await self._process.wait()}"
                        )
                    self.data += piece
        except TimeoutError:
            pytest.fail(f"{wanted!r} did not come within {COMES_WITHIN:.0f} s; {self.came}")

    @property
    def came(self) -> str:
        """The end of what came without the heartbeats, and what the proxy has printed, for a failure's message."""
        came = self.data.replace(b": keep-alive\n\n", b"")[-500:]
        return f"{came!r} came; the proxy printed {self._through.output()}"

    async def to_the_end(self) -> int:
        """Returns curl's exit code: 0 if the stream ended properly."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT):
            self.data += await self._process.stdout.read()
            return await self._process.wait()

    @property
    def text(self) -> str:
        chunks = [json.loads(data) for _, data in EVENT.findall(self.data)]
        return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")

    @property
    def cursor(self) -> str:
        cursor: bytes = EVENT.findall(self.data)[-1][0]
        return cursor.decode()


@asynccontextmanager
async def reading(proxy: Front, path: str, *options: str) -> AsyncIterator[Reader]:
    process = await asyncio.create_subprocess_exec(
        "curl", "-skSN", "-H", "accept-encoding: gzip, br", "--http2" if proxy.http2 else "--http1.1",
        *options, proxy.base + path, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip
    try:
        yield Reader(process, proxy)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def posted(proxy: tuple[str, Front], text: str) -> tuple[str, ...]:
    """Returns curl's options for a message, as a page of the proxy's own origin sends it without a token."""
    name, through = proxy
    sent = ["content-type: application/json", f"origin: {through.base}"]
    if name in OTHER_HOST:
        sent.append("sec-fetch-site: same-origin")
    headers = [option for header in sent for option in ("-H", header)]
    return *headers, "-d", json.dumps({"message": text})


async def status_of(api: RunningApi, session: str) -> str:
    status: str = (await api.session(session))["chat_status"]
    return status


async def test_chunks_come_at_once_also_in_the_feed(api: RunningApi, proxy: tuple[str, Front]) -> None:
    _, through = proxy
    session = await api.new_session()
    async with reading(through, f"/api/chat/events?session_id={session}") as feed:
        await feed.until(b'"snapshot"')  # a turn that starts earlier is in the snapshot alone
        message = posted(proxy, "/stream 100000 20")
        async with reading(through, f"/api/chat/sessions/{session}/stream", *message) as answer:
            await feed.until(b'"turn-started"')
            await answer.until(b'"text-delta"')
            assert await status_of(api, session) == "running"
            stopped = await api.http.post(f"/api/chat/sessions/{session}/cancel")
            assert stopped.json()["cancelled"] is True
            await answer.until(b"data: [DONE]\n\n")
            assert await answer.to_the_end() == 0


async def test_heartbeats_come_while_the_answer_is_silent(api: RunningApi, proxy: tuple[str, Front]) -> None:
    _, through = proxy
    session = await api.new_session()
    async with reading(through, f"/api/chat/sessions/{session}/stream", *posted(proxy, "/stream 2 60000")) as answer:
        await answer.until(b": keep-alive\n\n", times=3)
        await api.http.post(f"/api/chat/sessions/{session}/cancel")
        await answer.until(b"data: [DONE]\n\n")


async def test_a_cut_is_no_end_and_the_rest_comes_by_the_cursor(api: RunningApi, proxy: tuple[str, Front]) -> None:
    name, through = proxy
    session = await api.new_session()
    async with reading(through, f"/api/chat/sessions/{session}/stream", *posted(proxy, "/stream 100000 20")) as answer:
        await answer.until(b'"text-delta"')
        task = (await api.active_stream(session))["task_id"]
        for stream in list(api.app.open_streams):
            stream.drop()
        if name not in NEVER_ENDS:
            await answer.to_the_end()
        assert b"[DONE]" not in answer.data
        whole = answer.data.rpartition(b"\n\n")[0] + b"\n\n"
        answer.data = whole
        cursor = "last-event-id: " + answer.cursor
        async with reading(through, f"/api/chat/tasks/{task}/stream", "-H", cursor) as rest:
            await rest.until(b'"text-delta"')
            await api.http.post(f"/api/chat/sessions/{session}/cancel")
            await rest.until(b"data: [DONE]\n\n")
            text = answer.text + rest.text
            assert text == counted(text.count(" "))


async def test_a_client_that_leaves_is_noticed(api: RunningApi, proxy: tuple[str, Front]) -> None:
    _, through = proxy
    session = await api.new_session()
    async with reading(through, f"/api/chat/sessions/{session}/stream", *posted(proxy, "/stream 2 60000")) as answer:
        await answer.until(b": stream-open")
        assert len(api.app.open_streams) > 0
    async with asyncio.timeout(limit(30)):
        while len(api.app.open_streams):
            await asyncio.sleep(0.05)
    await api.http.post(f"/api/chat/sessions/{session}/cancel")


async def test_metrics_are_not_published(proxy: tuple[str, Front]) -> None:
    name, through = proxy
    for path, known in (("/metrics", b"http_requests_total"), ("/api/chat/health", b"copilot-chat")):
        async with reading(through, path) as answer:
            assert await answer.to_the_end() == 0
            compressed = answer.data.startswith(b"\x1f\x8b")
            shown = gzip.decompress(answer.data) if compressed else answer.data
            assert (known in shown) is (path != "/metrics"), name


def test_every_shipped_configuration_is_tested() -> None:
    shipped = {path.name.split(".")[0].lower().removesuffix("file") for path in (ROOT / "deploy" / "proxies").iterdir()}
    assert shipped == set(NAMES) - {"next-handler"}  # it is a recipe
