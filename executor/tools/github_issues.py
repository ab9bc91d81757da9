"""The issues of a repository at GitHub, as a place for feature requests.

Source: GitHub's REST API, version 2022-11-28, "Issues", "Search" and "Best practices" (docs.github.com/rest, read
2026-12-01). The search knows a new issue only after a while, so an issue that a call has made before is looked for in
the list of the newest issues.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from backend.chat.models import Json
from backend.config import Settings
from backend.json_client.calls import CallLimits, open_json_client, read_body
from backend.json_client.failures import BodyCompressed, BodyTooLarge
from backend.json_client.retry_after import retry_after_of
from backend.json_client.strict_json import load

LIMITS = CallLimits(total=15, connect=5)
"""A call is made once, in `total` seconds."""
MAX_ANSWER = 8 << 20
"""Bytes of an answer. The text of an issue has up to 65,536 characters."""
NEWEST = 30
"""The newest issues, in which one that an earlier call has made is looked for."""
MAX_QUERY = 150
"""Characters of the words; GitHub takes 256 together with the qualifiers."""
MAX_REPOSITORY = 90
"""Characters, so that the qualifiers fit into a query."""
_HEADERS = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28", "user-agent": "copilot-chat"}
_WORDS = {
    401: "it refuses the token",
    403: "the token may not do that",
    404: "there is no such repository, or the token may not see it",
    410: "the repository has no issues",
    422: "it refuses the request",
}


class GitHubFailure(Exception):
    """A call has failed. `str(error)` says why, without secrets. `status` is that of the answer, or 0."""

    def __init__(self, words: str, status: int = 0) -> None:
        self.status = status
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class Issue:
    """An issue. `state` is `open` or `closed`; `created_at` is in ISO 8601."""

    number: int
    title: str
    text: str
    url: str
    state: str
    created_at: str

    def as_json(self, most: int) -> dict[str, Json]:
        about: dict[str, Json] = {"id": f"#{self.number}", "title": self.title, "description": self.text[:most]}
        return {**about, "url": self.url, "state": self.state, "created_at": self.created_at}


class GitHubIssues:
    """The issues of the repository that the settings name. Every method raises GitHubFailure."""

    def __init__(self, settings: Settings) -> None:
        assert settings.feature_requests_github is not None
        assert settings.feature_requests_github_token is not None
        self._repository = settings.feature_requests_github
        self._label = settings.feature_requests_github_label
        self._url = settings.feature_requests_github_url.rstrip("/")
        self._token = settings.feature_requests_github_token

    async def search(self, query: str, limit: int) -> list[Issue]:
        """Returns issues that have all words of a text, the best first. A text without words finds none."""
        words = " ".join(re.findall(r"\w+", query.lower()))[:MAX_QUERY].strip()
        if not words:
            return []
        asked = quote(f"{words} repo:{self._repository} is:issue", safe="")
        found = await self._call("GET", f"/search/issues?q={asked}&per_page={limit}")
        return [_issue(one) for one in _list(_object(found).get("items"))][:limit]

    async def create(self, id: str, title: str, description: str) -> Issue:
        """Makes an issue for the request `id`, or returns the one that an earlier call has made for it."""
        mark = _mark(id)
        newest = f"/repos/{self._repository}/issues?state=all&sort=created&direction=desc&per_page={NEWEST}"
        for one in _list(await self._call("GET", newest)):
            if mark in str(_object(one).get("body")):
                return _issue(one)
        body = {"title": title, "body": f"{_quoted(description)}\n\n{mark}", "labels": [self._label]}
        return _issue(await self._call("POST", f"/repos/{self._repository}/issues", body))

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Json:
        headers = {**_HEADERS, "authorization": f"Bearer {self._token.get_secret_value()}"}
        try:
            async with (
                asyncio.timeout(LIMITS.total),
                open_json_client(self._url, LIMITS, 1, headers) as client,
                client.stream(method, self._url + path, json=body) as response,
            ):
                if not response.is_success:
                    raise _failure_of(response)
                return load(await read_body(response, MAX_ANSWER))
        except (httpx2.HTTPError, httpx2.StreamError, BodyCompressed, BodyTooLarge, ValueError, TimeoutError) as error:
            raise GitHubFailure(f"it cannot be reached ({type(error).__name__})") from error


def _failure_of(response: httpx2.Response) -> GitHubFailure:
    """A limit of the rate has status 403 or 429, and a header that tells it from a missing right."""
    status = response.status_code
    wait = retry_after_of(response.headers)
    if status == 429 or wait is not None or response.headers.get("x-ratelimit-remaining") == "0":
        return GitHubFailure("it takes no more requests for a while", status)
    if 300 <= status < 400:
        return GitHubFailure("the repository has moved to another name", status)
    return GitHubFailure(_WORDS.get(status, f"it answers with status {status}"), status)


def _mark(id: str) -> str:
    return f"<!-- copilot feature request {id} -->"


def _quoted(text: str) -> str:
    """Returns the text as a block of code: names, numbers and pictures in it notify nobody and load nothing."""
    if not text.strip():
        return "(no description)"
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _issue(given: Json) -> Issue:
    """Raises GitHubFailure if it has another form than the documented one."""
    one = _object(given)
    number, url = one.get("number"), one.get("html_url")
    if not isinstance(number, int) or not isinstance(url, str) or not url.startswith("https://"):
        raise GitHubFailure("it answers with something else than issues")
    text = re.sub(r"<!--.*?-->|^`{3,}\w*$", "", str(one.get("body") or ""), flags=re.DOTALL | re.MULTILINE)
    title, state, since = (str(one.get(name) or "") for name in ("title", "state", "created_at"))
    return Issue(number, title[:300], text.strip(), url, state, since)


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise GitHubFailure("it answers with something else than issues")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise GitHubFailure("it answers with something else than issues")
    return value
