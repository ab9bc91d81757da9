"""The formats of three search services.

SearXNG: https://docs.searxng.org/dev/search_api.html (2026.2.6). Its setting `search.formats` must name `json`; else it
answers 403. Brave: https://api-dashboard.search.brave.com/api-reference (v1, read 2026-03), which tells a wrong key by
422. Tavily: https://docs.tavily.com/documentation/api-reference/endpoint/search (read 2026-11), with statuses of its
own for accounts that are used up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from backend.chat.models import Json

MAX_COUNT = 10
_MOST_WORDS = 50
"""Words of a query that Brave takes."""
_CODES = {400: "bad_request", 401: "authentication", 403: "authentication", 422: "bad_request", 429: "rate_limited"}


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page that a search has found."""

    url: str
    title: str
    snippet: str


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a service."""

    method: str
    url: str
    params: Mapping[str, str] | None = None
    body: Mapping[str, Json] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Service(Protocol):
    """A search service."""

    name: ClassVar[str]

    def request(self, query: str, count: int) -> Request: ...

    def results(self, answer: Json) -> list[Json]:
        """Returns objects with `url`, `title` and `snippet`. Raises KeyError or TypeError for an answer that has
        another form than the documented one."""
        ...

    def code_of(self, status: int, body: str) -> str:
        """Returns the code of a failure: bad_request, authentication, quota_exceeded, rate_limited or unavailable."""
        ...


class SearXNG:
    name: ClassVar[str] = "searxng"

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/search"

    def request(self, query: str, count: int) -> Request:
        return Request("GET", self._url, {"q": query, "format": "json"}, headers={"accept": "application/json"})

    def results(self, answer: Json) -> list[Json]:
        return [_result(one, "content") for one in _list(_object(answer)["results"])]

    def code_of(self, status: int, body: str) -> str:
        return _CODES.get(status, "unavailable")


class Brave:
    name: ClassVar[str] = "brave"

    def __init__(self, key: str, url: str = "https://api.search.brave.com/res/v1/web/search") -> None:
        self._key, self._url = key, url

    def request(self, query: str, count: int) -> Request:
        words = " ".join(query.split()[:_MOST_WORDS])
        params = {"q": words, "count": str(count), "text_decorations": "false", "result_filter": "web"}
        headers = {"accept": "application/json", "x-subscription-token": self._key}
        return Request("GET", self._url, params, headers=headers)

    def results(self, answer: Json) -> list[Json]:
        web = _object(answer).get("web")  # it is missing if nothing is found
        return [_result(one, "description") for one in _list(_object(web)["results"])] if web is not None else []

    def code_of(self, status: int, body: str) -> str:
        if "SUBSCRIPTION_" in body or "subscription-token" in body:  # of 404 and 422
            return "authentication"
        return "quota_exceeded" if "QUOTA_LIMITED" in body else _CODES.get(status, "unavailable")


class Tavily:
    name: ClassVar[str] = "tavily"

    def __init__(self, key: str, url: str = "https://api.tavily.com/search") -> None:
        self._key, self._url = key, url

    def request(self, query: str, count: int) -> Request:
        body: dict[str, Json] = {"query": query, "max_results": count, "search_depth": "basic"}
        return Request("POST", self._url, body=body, headers={"authorization": f"Bearer {self._key}"})

    def results(self, answer: Json) -> list[Json]:
        return [_result(one, "content") for one in _list(_object(answer)["results"])]

    def code_of(self, status: int, body: str) -> str:
        return "quota_exceeded" if status in (432, 433) else _CODES.get(status, "unavailable")


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _result(one: Json, snippet: str) -> Json:
    result = _object(one)
    return {"url": result.get("url"), "title": result.get("title"), "snippet": result.get(snippet)}
