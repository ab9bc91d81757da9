"""Fakes of three search services, on a real port of this process, as strict as their documentation says.

SearXNG: https://docs.searxng.org/dev/search_api.html (2026.2.6). Brave: its API reference (v1, read 2026-03). Tavily:
its OpenAPI document (read 2026-11). A query of the form `/STATUS` is answered with that status, `/slow` never, `/cut`
by the end of the connection, `/odd` with JSON of another form, `/big` with a long one, and `nothing` finds nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.serving import CutError, Exchange, converse

KEY = "key-of-the-tests"
PAGES = [
    {"url": f"https://example.com/{n}", "title": f"Page  {n}", "snippet": f"Snippet {n} " + "x" * 600}
    for n in range(20)
]
WRONG = [
    {"url": "javascript:alert(1)", "title": "no", "snippet": "no"},
    {"url": "https://example.com/0", "title": "again", "snippet": "again"},
    {"title": "without an address"},
]


class SearchServices:
    """The requests that the three have got."""

    def __init__(self) -> None:
        self.port = 0
        self.queries: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def answer(self, exchange: Exchange) -> None:
        path = urlsplit(exchange.request.path).path
        service = {"/searxng/search": self._searxng, "/brave": self._brave, "/tavily": self._tavily}[path]
        await service(exchange)

    async def _searxng(self, exchange: Exchange) -> None:
        given = _query_of(exchange)
        if not given.get("q"):
            await exchange.answer_text(400, "text/html", "<h1>No query</h1>")
        elif given.get("format") != "json" or given.keys() - {"q", "format", "language", "pageno", "safesearch"}:
            await exchange.answer_text(403, "text/html", "<h1>Forbidden</h1>")
        else:
            found = await self._found(exchange, given["q"], "content")
            await exchange.answer(200, {"query": given["q"], "results": found, "unresponsive_engines": []})

    async def _brave(self, exchange: Exchange) -> None:
        given = _query_of(exchange)
        words = given.get("q", "")
        if exchange.request.headers.get("x-subscription-token") != KEY:
            await exchange.answer(422, _brave_error("SUBSCRIPTION_TOKEN_INVALID", 422))
        elif not 0 < len(words) <= 400 or len(words.split()) > 50 or not 1 <= int(given.get("count", "20")) <= 20:
            await exchange.answer(422, _brave_error("VALIDATION", 422))
        elif words == "/quota":
            await exchange.answer(429, _brave_error("QUOTA_LIMITED", 429))
        else:
            found = (await self._found(exchange, words, "description"))[: int(given.get("count", "20"))]
            await exchange.answer(200, {"type": "search", **({"web": {"results": found}} if found else {})})

    async def _tavily(self, exchange: Exchange) -> None:
        request = exchange.request
        given = json.loads(request.body or b"{}")
        if request.headers.get("authorization") != f"Bearer {KEY}":
            await exchange.answer(401, {"detail": {"error": "Unauthorized: missing or invalid API key."}})
        elif request.method != "POST" or not given.get("query") or not 0 <= given.get("max_results", 5) <= 20:
            await exchange.answer(400, {"detail": {"error": "Invalid request."}})
        else:
            found = (await self._found(exchange, given["query"], "content"))[: given["max_results"]]
            await exchange.answer(200, {"query": given["query"], "results": found, "images": []})

    async def _found(self, exchange: Exchange, query: str, snippet: str) -> list[dict[str, str]]:
        """Returns the pages. Raises CutError after another answer."""
        self.queries.append(query)
        if query == "/slow":
            await asyncio.Event().wait()
        elif query == "/odd":
            await exchange.answer(200, {"results": 3, "web": 3})
        elif query == "/big":
            await exchange.answer(200, {"results": ["x" * 3_000_000]})
        elif query.startswith("/") and query != "/cut":
            await exchange.answer(int(query[1:]), {"detail": {"error": "no"}}, {"retry-after": "7"})
        if query.startswith("/"):
            raise CutError
        pages = [] if query == "nothing" else [PAGES[0], *WRONG, *PAGES[1:]]
        return [{**page, snippet: page.get("snippet", "")} for page in pages]


def _query_of(exchange: Exchange) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(exchange.request.path).query).items()}


def _brave_error(code: str, status: int) -> dict[str, Any]:
    return {"type": "ErrorResponse", "error": {"id": "1", "code": code, "status": status, "detail": "no"}, "time": 1}


@asynccontextmanager
async def search_services() -> AsyncIterator[SearchServices]:
    one = SearchServices()
    jobs: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        job = asyncio.ensure_future(converse(one.answer, reader, writer))
        jobs.add(job)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
