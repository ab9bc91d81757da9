"""A fake of the part of GitHub's REST API that feature requests use: issues of one repository, and their search.

As strict as the documentation (docs.github.com/rest, version 2022-11-28, read 2026-12-01): a user agent is required
(403), the token is checked (401), other repositories do not exist (404), titles must not be empty (422), a body has up
to 65,536 characters (422), a query up to 256 (422). Stricter than there, other qualifiers are refused. As there, the
search knows a new issue only later: when a test has called `index`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.serving import Exchange, converse

TOKEN, REPOSITORY = "token-of-the-tests", "owner/wishes"
MAX_BODY, MAX_QUERY = 65_536, 256


class GitHub:
    """`issues` has all that were made. `fault` answers everything: a status with headers, `cut` after the work, or
    `drip`, an answer that goes on and on."""

    def __init__(self) -> None:
        self.url = ""
        self.issues: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.fault: tuple[int, dict[str, str]] | str | None = None
        self._found: list[dict[str, Any]] = []

    def index(self) -> None:
        self._found = list(self.issues)

    async def answer(self, exchange: Exchange) -> None:
        request = exchange.request
        if isinstance(self.fault, tuple):
            await exchange.answer(self.fault[0], {"message": "no"}, self.fault[1])
            return
        if self.fault == "drip":
            await exchange.begin_stream()
            while True:
                await exchange.send(b" ")
                await asyncio.sleep(0.05)
        status, document = self._refused(exchange) or self._answer(request.method, request.path, request.body)
        if self.fault == "cut" and request.method == "POST":
            await exchange.hang_up()
        await exchange.answer(status, document)

    def _refused(self, exchange: Exchange) -> tuple[int, Any] | None:
        headers = exchange.request.headers
        if not headers.get("user-agent"):
            return 403, {"message": "Request forbidden by administrative rules."}
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        if headers.get("x-github-api-version") != "2022-11-28":
            return 400, {"message": "version"}
        return None

    def _answer(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if (method, path) == ("GET", "/search/issues"):
            return self._search(query["q"][0], int(query["per_page"][0]))
        if path != f"/repos/{REPOSITORY}/issues":
            return 404, {"message": "Not Found"}
        if method == "POST":
            return self._create(json.loads(body))
        return 200, self.issues[::-1][: int(query.get("per_page", ["30"])[0])]

    def _create(self, given: dict[str, Any]) -> tuple[int, Any]:
        if (
            not given.get("title")
            or len(given.get("body") or "") > MAX_BODY
            or given.keys() - {"title", "body", "labels"}
        ):
            return 422, {"message": "Validation Failed"}
        number = len(self.issues) + 1
        url = f"https://github.example/{REPOSITORY}/issues/{number}"
        about = {"number": number, "html_url": url, "state": "open", "created_at": "2026-12-01T12:00:00Z"}
        self.issues.append({**about, **given})
        return 201, self.issues[-1]

    def _search(self, query: str, most: int) -> tuple[int, Any]:
        self.asked.append(query)
        words = query.split()
        if len(query) > MAX_QUERY or f"repo:{REPOSITORY}" not in words or "is:issue" not in words:
            return 422, {"message": "Validation Failed"}
        wanted = [word for word in words if ":" not in word]
        if len(words) != len(wanted) + 2:
            return 422, {"message": "an unexpected qualifier"}
        found = [one for one in self._found if all(_has(one, word) for word in wanted)]
        return 200, {"total_count": len(found), "incomplete_results": False, "items": found[:most]}


def _has(issue: dict[str, Any], word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", f"{issue['title']} {issue['body']}", re.IGNORECASE) is not None


@asynccontextmanager
async def github_server() -> AsyncIterator[GitHub]:
    one = GitHub()
    jobs: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        jobs.add(asyncio.ensure_future(converse(one.answer, reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield one
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
