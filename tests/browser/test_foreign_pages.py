"""Another web page in the user's browser, against the server of `make run`, which asks for no token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.browser.driving import Browser
from tests.e2e.stack import Servers, Stack, open_stack
from tests.plain_http import http_client
from tests.servers.ports import free_port
from tests.speed import limit

LIMIT = limit(20)
_PAGE = b"<!doctype html><title>elsewhere</title><p>a page of somebody else</p>"
_ATTACK = """(async (base, session) => {
  const quiet = (path, init) =>
    fetch(base + path, { mode: 'no-cors', credentials: 'include', ...init }).catch(() => {});
  await quiet('/api/chat/sessions', { method: 'POST' });
  await quiet(`/api/chat/sessions/${session}/cancel`, { method: 'POST' });
  for (let n = 0; n < 9; n += 1) await quiet('/api/chat/events');
  const open = await Promise.all(['', '/api/chat/sessions', '/metrics'].map((path) =>
    fetch(base + path).then(() => 'read', () => 'refused')));
  const frame = document.createElement('iframe');
  const form = Object.assign(document.createElement('form'), { method: 'POST', action: base + '/api/chat/sessions',
    target: 'f' });
  frame.name = 'f';
  document.body.append(frame, form);
  await new Promise((done) => { frame.onload = done; form.submit(); });
  const feed = new EventSource(base + '/api/chat/events');
  await new Promise((done) => { feed.onerror = done; feed.onopen = done; });
  window.ended = [feed.readyState === EventSource.OPEN ? 'open' : 'closed', ...open].join();
})"""


@pytest.fixture
async def local(browser: Browser, postgres_dsn: str, redis_dsn: str, tmp_path: Path) -> AsyncIterator[Stack]:
    servers = Servers(postgres_dsn, redis_dsn)
    async with open_stack(servers, tmp_path, AUTH_MODE="none", JWT_VERIFY_KEY="") as stack:
        yield stack


@asynccontextmanager
async def another_site() -> AsyncIterator[str]:
    """A page on another port of `localhost`, which is another site than 127.0.0.1."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(_PAGE)}\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode() + _PAGE)
        await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "localhost", port):
        yield f"http://localhost:{port}/"


async def test_a_page_of_another_origin_can_neither_read_nor_change_nor_occupy_anything(
    browser: Browser, local: Stack
) -> None:
    async with http_client(base_url=local.base, timeout=LIMIT) as http, another_site() as elsewhere:
        session = (await http.post("/api/chat/sessions", json={})).json()["id"]
        message = {"message": "/stream 10000 20"}
        async with http.stream("POST", f"/api/chat/sessions/{session}/stream", json=message) as answer:
            assert answer.status_code == 200
            tab = await browser.open("victim")
            await tab.go(elsewhere)
            await tab.js(f"void {_ATTACK}({local.base!r}, {session!r})")
            await tab.until("window.ended !== undefined")
            await tab.shows("window.ended", "closed,refused,refused,refused")
            async with http.stream("GET", "/api/chat/events") as feed:
                assert feed.status_code == 200
            listed = (await http.get("/api/chat/sessions")).json()["sessions"]
            assert [one["id"] for one in listed] == [session]
            running = (await http.get(f"/api/chat/sessions/{session}")).json()
            assert running["active_stream"] is not None
            await http.post(f"/api/chat/sessions/{session}/cancel")
        await tab.close()


async def test_a_name_that_resolves_to_this_machine_gets_nothing(browser: Browser, local: Stack) -> None:
    tab = await browser.open("rebound")
    await tab.go(local.base.replace("127.0.0.1", "rebound.test"))
    assert "host_not_allowed" in await tab.js("document.body.innerText")
    read = "fetch('/api/chat/sessions').then((one) => one.text()).then((text) => { window.got = text; })"
    await tab.js(f"void {read}")
    await tab.until("window.got !== undefined")
    assert "host_not_allowed" in await tab.js("window.got")
    await tab.close()
